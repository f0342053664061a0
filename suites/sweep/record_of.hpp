// What a sweep's record says of a run and of each plan (reports/schema.md).
#pragma once
#include "reports/record.hpp"
#include "suites/gates/fast.hpp"
#include "suites/sweep/suite.hpp"
#include "suites/sweep/worker.hpp"

namespace lockstep {

RunRecord record_of(const Suite&, const ModelConfig&, const TokenFile&);
// exact: null if that mode cannot sum the plan.
PlanRecord record_of(const Prepared* exact, const Verdict&, const Prepared& fast, const FastVerdict&,
                     int threads);
// Of a plan that came to no verdict: how its process ended.
PlanRecord record_of(const Plan&, const Answer&, int threads);

// Messages and payload bytes of one step by axis, of the given ranks. A send and its receive count once, a
// collective once on every rank; groups of one move nothing.
std::map<std::string, AxisTraffic> traffic(const Prepared&, int first_rank, int ranks);

}  // namespace lockstep
