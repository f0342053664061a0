// One mutant: a plan, what goes wrong in it, and what the gates said.
#pragma once
#include <string>
#include <vector>

#include "suites/mutants/mutation.hpp"
#include "suites/mutants/stage.hpp"

namespace lockstep {

struct Mutant {
  int plan;          // of staged_plans()
  std::string kind;  // the same for sites that are alike
  Mutation mutation;
  std::vector<GateVerdict> verdicts;  // without those that pass; in the order in which gates are asked
  bool caught() const { return !verdicts.empty(); }
};

// Chosen from all sites of all plans: of each kind as many as `each`, by `seed`.
std::vector<Mutant> choose_mutants(const std::vector<Prepared>& plans, int each, i64 seed);

}  // namespace lockstep
