// The sizes at which a machine's kernels are timed. A kernel's numbers are in the order of kernels/ops.hpp.
#pragma once
#include "suites/planner/grid.hpp"
#include "suites/planner/measure/calibration.hpp"

namespace lockstep {

// Of a matmul or attention: what a Grid of it is made at.
std::array<std::vector<double>, 3> grid_shape(const std::string& kernel, const MeasureHow&);
std::vector<double> numbers_of(const std::string& kernel, double rows, double columns, double sums);
// Numbers that the operands of the largest of such calls have together.
i64 largest(const std::string& kernel, const std::array<std::vector<double>, 3>& shape);

// One of a product's that goes on for long: large, and on its grid.
std::array<double, 3> sustained_shape(const std::array<std::vector<double>, 3>& matmul);

// Of all others: about how many numbers each operand has.
std::vector<i64> operand_sizes(const std::string& kernel, const MeasureHow&);
std::vector<double> numbers_of(const std::string& kernel, i64 n, const MeasureHow&);

}  // namespace lockstep
