// What an accelerator has beside its kernels: memory, and the link to the host's.
#pragma once
#include "suites/planner/cluster.hpp"
#include "suites/planner/measure/calibration.hpp"

namespace lockstep {

// Of fast mode, on the first of them; null: nothing but this processor is measured.
std::unique_ptr<Engine> engine_of(const MeasureHow&);

// What is free of its memory, and what a rank's engine takes of that: to be asked first.
void measure_device_memory(const MeasureHow&, Cluster&, Measurements& notes);
// What the process has come to hold of it since, its kernels' code: to be asked last.
void measure_device_context(const MeasureHow&, Cluster&, Measurements& notes);
// Between the device's memory and such of the host's as plans offload to, one way and back.
void measure_device_copies(const MeasureHow&, Cluster&, Measurements& notes);

}  // namespace lockstep
