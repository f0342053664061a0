// What this machine's kernels reach, by shape and by size.
#pragma once
#include "suites/planner/cluster.hpp"
#include "suites/planner/measure/calibration.hpp"

namespace lockstep {

// Matmuls and attention: operations a second, on a grid of shapes. Adds what was measured to `notes`.
Grid measure_grid(const std::string& kernel, const MeasureHow&, Measurements& notes);

// All others: bytes a second by the bytes that a call moves.
bool measured_by_rows(const std::string& kernel);
Curve measure_rows(const std::string& kernel, const MeasureHow&, Measurements& notes);

// How much of its rate each of so many ranks keeps when all compute at once: matmuls, or kernels that move
// bytes.
double measure_crowd(int ranks, bool arithmetic, const MeasureHow&, Measurements& notes);

// What part of a product's rate on the grid is left to a GPU that has been multiplying for seconds: power
// lowers its clock.
double measure_sustained(const Grid& matmul, const MeasureHow&, Measurements& notes);

}  // namespace lockstep
