// Which kernels a predicted step's computing goes to.
#pragma once
#include <string>
#include <vector>

#include "suites/planner/answer/explain.hpp"

namespace lockstep {

struct KernelShare {
  std::string kernel;
  bool on_host = false;
  i64 calls = 0;
  double seconds = 0, flops = 0, bytes = 0;
};

// Of one rank of the stage, in a step; most seconds first. UserError: more passes than can be traced whole.
std::vector<KernelShare> kernel_shares(const Plan&, const Question&, int stage);
// Of the stage that computes longest.
std::string kernel_shares_text(const Plan&, const Question&);

}  // namespace lockstep
