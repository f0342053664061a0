// Where a plan's program can go wrong, read from its traces: every kernel, message, copy and buffer, with
// every change that makes sense of it.
#pragma once
#include <string>
#include <vector>

#include "parallel/cluster.hpp"
#include "suites/mutants/mutation.hpp"

namespace lockstep {

struct Site {
  std::string kind;  // of sites that are alike, digits apart: "run matmul_dw gradients number 3"
  Mutation mutation;
  std::string axis{};  // of a message
};
// On all ranks at once, and (kind begins with "one rank: ") on one alone. Of a program that does not change
// with the step: set-up and one step.
std::vector<Site> sites_of(const Prepared&);

// Fills in what a mutation must know of the plan's program: Mutation::after.
void complete(Mutation&, const Prepared&);

}  // namespace lockstep
