// A cluster as a file.
#pragma once
#include "suites/planner/cluster.hpp"

namespace lockstep {

// As load_cluster() reads it, with a comment on top.
std::string cluster_text(const Cluster&, const std::string& comment);

}  // namespace lockstep
