// What this machine's kernels, messages, copies and disk reach.
#pragma once
#include <functional>
#include <string>

#include "suites/planner/cluster.hpp"

namespace lockstep {

struct MeasureHow {
  std::string isa = "auto", scratch;
  int threads = 1;  // of a rank
  bool quick = false;
};

// A cluster of one node with a device for each core (or `threads` of them). Takes a minute on an idle
// machine; `say` is told what is measured next.
Cluster measure(const MeasureHow&, const std::function<void(const std::string&)>& say);
std::string cluster_text(const Cluster&, const std::string& comment);  // as load_cluster() reads it

}  // namespace lockstep
