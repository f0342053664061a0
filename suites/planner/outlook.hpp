// What can be said of a plan without simulating its step: its bytes exactly, its seconds at least.
#pragma once
#include "suites/planner/pieces.hpp"

namespace lockstep {

// Of each stage most bytes alive at once, by medium: they depend on the order of its actions alone. And
// seconds at least, by its work alone.
struct StageTotal {
  std::array<i64, 3> live{};
  double seconds = 0;
};
std::vector<StageTotal> stage_totals(PlanPieces&);

// More seconds at least, said less soon: each stage by itself, as if its neighbours were never late, after
// the forwards that come before its first one and before the backwards that follow its last one. Stages that
// are alike are asked once.
double seconds_at_least(PlanPieces&);

}  // namespace lockstep
