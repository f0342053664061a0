// What a process holds beside the arenas and messages of its ranks.
#pragma once
#include "suites/planner/cluster.hpp"
#include "suites/planner/measure/calibration.hpp"

namespace lockstep {

// Trains a small model on one device and on two, each in a process of its own: what those hold beyond the
// formulas is the `[process]` lines. To be measured first, while this process itself holds little.
void measure_process(const MeasureHow&, Cluster&, Measurements& notes);

}  // namespace lockstep
