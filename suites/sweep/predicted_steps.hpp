// The planner's word beside the stopwatch's: what a calibrated machine's steps should take.
#pragma once
#include <string>
#include <vector>

#include "reports/record.hpp"
#include "suites/planner/cluster.hpp"
#include "suites/sweep/suite.hpp"

namespace lockstep {

// UserError: as load_cluster(), or a cluster of other numbers than the suite's.
Cluster cluster_of_sweep(const std::string& path, const Settings&);

// Sets `predicted_seconds` of the plans that were timed and have at most as many ranks as the cluster
// devices.
void predict_steps(std::vector<PlanRecord>&, const Suite&, const ModelConfig&, const Cluster&);

}  // namespace lockstep
