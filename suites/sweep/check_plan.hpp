// One plan through its gates in exact and in fast mode, and if asked timed in fast mode if it passes both and
// the cores suffice.
#pragma once
#include "reports/record.hpp"
#include "suites/sweep/standard.hpp"

namespace lockstep {

// Whether its steps will be timed if it passes. Ranks that share a core would time the operating system;
// those that share an accelerator, its queue. Of ranks that a launcher starts, only their job knows.
bool is_timed(const Plan&, const Standard&);

// By every process of a job; rank 0's record is the plan's.
PlanRecord check_plan(const Plan&, const Standard&);

}  // namespace lockstep
