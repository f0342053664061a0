// One mutant: a plan, what goes wrong in it, and what the gates said.
#pragma once
#include <string>
#include <vector>

#include "suites/mutants/mutation.hpp"
#include "suites/mutants/stage.hpp"

namespace lockstep {

struct Mutant {
  std::string plan;
  bool tied;         // the model's head and embedding share a weight
  std::string kind;  // the same for sites that are alike
  Mutation mutation;
  std::string axis{};            // of the mesh, of a message
  std::string bug{}, seen_in{};  // of a named one
  std::vector<GateVerdict>
      verdicts{};            // without those that pass; in the order in which a plan's gates are asked
  std::string equivalent{};  // why nothing can be seen of it; empty: it must be caught
  bool caught() const { return !verdicts.empty(); }
  bool missed() const { return !caught() && equivalent.empty(); }
  std::string text() const;  // "dp=2: message `unit3.gradient` (all_reduce) no. 0: dropped"
};

// Chosen from all sites of all plans: of each kind as many as `each`, by `seed`.
std::vector<Mutant> choose_mutants(const std::vector<Prepared>& plans, int each, i64 seed);

// The tensor, kernel or kind of memory that a verdict names first, or nothing.
std::string named_by(const GateVerdict&);

}  // namespace lockstep
