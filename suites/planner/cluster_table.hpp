// A cluster of a table that has been read already.
#pragma once
#include <toml++/toml.h>

#include "suites/planner/cluster.hpp"

namespace lockstep {

// As load_cluster(); `origin` names the file where something is wrong.
Cluster read_cluster(const toml::table&, const std::string& origin);

}  // namespace lockstep
