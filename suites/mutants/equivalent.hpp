// Mutants of which nothing can be seen, because nothing that counts has changed.
#pragma once
#include <string>

#include "suites/mutants/mutant.hpp"

namespace lockstep {

// Why this mutant, which no gate has caught, is the same program in all that a gate promises; empty: it is
// not, and a gate has a hole. `sound`: the plan without it.
std::string equivalence(const Mutant&, const Prepared& sound, const Prepared& mutated);

}  // namespace lockstep
