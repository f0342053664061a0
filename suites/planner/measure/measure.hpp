// What this machine's kernels, messages, copies and disk reach, as a cluster.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "suites/planner/cluster.hpp"
#include "suites/planner/measure/calibration.hpp"

namespace lockstep {

struct Calibration {
  Cluster cluster;  // of one node, with a device for each core (or `threads` of them)
  Measurements notes;
};

struct MeasureStep {
  std::string what;
  double share;  // of the whole, roughly
  std::function<void()> run;
};

// One after the other they fill `into`, which must outlive them. A minute or two on an idle machine.
std::vector<MeasureStep> measure_steps(const MeasureHow&, Calibration& into);

}  // namespace lockstep
