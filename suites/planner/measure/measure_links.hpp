// What this machine's messages, copies and disk reach.
#pragma once
#include "suites/planner/cluster.hpp"
#include "suites/planner/measure/calibration.hpp"

namespace lockstep {

// Messages of every kind between two ranks of this process.
void measure_messages(const MeasureHow&, Cluster&, Measurements& notes);
// From one place in memory to another.
void measure_copies(const MeasureHow&, Cluster&, Measurements& notes);
void measure_disk(const MeasureHow&, Cluster&, Measurements& notes);

}  // namespace lockstep
