// What a step of a plan costs, three times: by the closed formulas, by the trace, and as it ran with guarded
// buffers.
#pragma once
#include <string>
#include <vector>

#include "suites/reference.hpp"

namespace lockstep {

struct Costs {
  struct Rank {
    Price formula;
    Peaks traced;
    i64 guard_peak = 0;                     // bytes alive at once
    std::vector<Posted> announced, posted;  // messages of the trace, of the run
  };
  std::vector<Rank> ranks;
};
// Runs one step, from fresh weights where `initial` is empty.
Costs costs(const Prepared&, const std::string& isa, int threads, const Weights& initial = {});

// The first thing on which the three disagree, or the empty string.
std::string disagreement(const Costs&);

}  // namespace lockstep
