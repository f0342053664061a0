// A plan's step in time on a cluster, from its whole trace, as pictures want it.
#pragma once
#include <vector>

#include "suites/planner/answer/explain.hpp"
#include "suites/timing/timeline.hpp"

namespace lockstep {

// Passes of a layer forward in a step, over all stages of one replica: what a whole trace's length goes by.
i64 passes(const Plan&, const Question&);
constexpr i64 kMostPasses = 16384;  // some seconds of tracing
constexpr std::size_t kMostBars = 1000;

// The whole step; where that has more than `most_bars` bars of a stage, its beginning and its end. Nothing
// where it has more than kMostPasses.
std::vector<Timeline> timelines_on(const Plan&, const Question&, std::size_t most_bars = kMostBars);

}  // namespace lockstep
