// What a kernel does, from its name and sizes alone: floating-point operations and bytes that must move.
#pragma once
#include <string>
#include <vector>

namespace lockstep {

struct Work {
  enum Class { matmul, attention, rows } kind = rows;  // bound by arithmetic, by both, by memory
  double flops = 0;
  double bytes = 0;  // each operand read once, each result written once
};

// `sizes`: the kernel's numbers in the order of kernels/ops.hpp; number_bytes: of an activation, weight or
// gradient (4 or 2). Attention is causal: half the square is computed. std::logic_error: a kernel without a
// formula here.
Work work_of(const char* kernel, const std::vector<double>& sizes, int number_bytes = 4);

// "matmul", "attention", "rows".
const char* class_name(Work::Class);
std::vector<std::string> kernel_names_and_classes();

}  // namespace lockstep
