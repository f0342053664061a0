// A cluster of a table that has been read already.
#pragma once
#include "suites/planner/cluster.hpp"
#include "suites/toml.hpp"

namespace lockstep {

// As load_cluster(); `origin` names the file where something is wrong.
Cluster read_cluster(const toml::table&, const std::string& origin);

}  // namespace lockstep
