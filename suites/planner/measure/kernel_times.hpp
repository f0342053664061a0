// What each kernel of a plan's step takes, timed alone, and how far that is from what bounds it.
#pragma once
#include <string>
#include <vector>

#include "kernels/work.hpp"
#include "parallel/cluster.hpp"
#include "suites/planner/measure/kernel_bench.hpp"

namespace lockstep {

// All calls of one kernel with the same sizes and types in a step of rank 0.
struct KernelTime {
  std::string kernel, sizes;  // "64 704 256 1": its numbers, in the order of kernels/ops.hpp
  bool halves = false;        // some operand is stored as bf16
  int calls = 0;              // in a step
  Work work;                  // of one
  double seconds = 0;         // of one
};

struct KernelTimes {
  double copy_bandwidth = 0;  // bytes a second, read and written, of the `copy` kernel on far memory, float32
  i64 copy_bytes = 0;
  std::vector<KernelTime> kernels;  // what takes most of a step first
  int on_host = 0;                  // calls whose operands lie in host memory: not timed
};

// engine: null for this processor, with `isa` and `threads`. Operands come from memory, not from caches,
// which a small model's step has them in. Shows its progress on stderr.
KernelTimes kernel_times(const Prepared&, Engine*, const std::string& isa, int threads);

// As a table; step_seconds: of a whole step. peak: flop/s of the device, 0 if not known.
std::string kernel_table(const KernelTimes&, double step_seconds, double peak);
// The same as lines of kernel, sizes, dtype, calls, seconds, flops, bytes, with a head line;
// std::runtime_error: it cannot be written.
void write_kernel_csv(const KernelTimes&, const std::string& path);

}  // namespace lockstep
