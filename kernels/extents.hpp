// How far a kernel reads or writes each of its operands, from its name and sizes alone.
#pragma once
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep {

// Elements from where each operand begins to where the kernel ends in it, in the order of kernels/ops.hpp.
// `sizes`: the kernel's numbers in that order. std::logic_error: a kernel without a formula here.
std::vector<i64> extents_of(const char* kernel, const std::vector<double>& sizes);

}  // namespace lockstep
