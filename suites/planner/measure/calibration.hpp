// What `lockstep calibrate` measured, one by one: the cluster's file is made of it, and it is kept beside
// that.
#pragma once
#include <string>
#include <vector>

#include "suites/planner/measure/kernel_bench.hpp"
#include "suites/planner/measure/stored.hpp"

namespace lockstep {

struct Measurement {
  std::string what;   // "kernel", "host kernel", "message start", "message wait", "copy", "disk", ...
  std::string name;   // of the kernel, the verb, ...
  std::string sizes;  // the kernel's numbers, as a trace has them
  int ranks = 1;      // that did it at once
  double amount = 0;  // operations of a matmul or attention, else bytes
  Sample sample;      // of a process: bytes in place of seconds
};
using Measurements = std::vector<Measurement>;

struct MeasureHow {
  std::string isa = "auto", scratch;
  int threads = 1;  // of a rank
  bool quick = false;
  // Bytes after which a kernel meets the same operands again: what a layer works through, for matmuls and
  // attention, whose weights come again with the next microbatch; what a step does, for what moves bytes.
  double near = 16e6, far = 48e6;
  Accelerator* accelerator = nullptr;  // what is measured, instead of this processor
  bool bf16 = false;                   // what weights and activations are stored as, else float32
  StoredOperands stored{};             // of kernels that are not in it: all as float32
  i64 most = KernelBench::kMost;       // numbers that the operands of one call have together
};

// An HDF5 file, as reports/schema.md has it. UserError: it cannot be written.
void write_measurements(const std::string& path, const MeasureHow&, const Measurements&);

}  // namespace lockstep
