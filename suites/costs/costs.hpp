// What a step of a plan costs, three times: by the closed formulas, by the trace, and as it ran with guarded
// buffers.
#pragma once
#include <string>
#include <vector>

#include "suites/run/reference.hpp"

namespace lockstep {

struct PlanCosts {
  struct Message {
    std::string what;
    int microbatch;
    Axis axis;
    Verb verb;
    i64 elements;
    auto operator<=>(const Message&) const = default;
  };
  using Messages = std::vector<Message>;  // of a step, sorted
  struct Rank {
    KindBytes formula, traced;          // peak bytes by kind
    i64 traced_together, run_together;  // most bytes alive at one time
    Messages by_formula, by_trace, by_run;
  };
  std::vector<Rank> ranks;
};
// Runs one step, from fresh weights where `initial` is empty.
PlanCosts costs(const Prepared&, const std::string& isa, int threads, const Weights& initial = {});

// The first thing on which the three disagree, or the empty string.
std::string disagreement(const PlanCosts&);

}  // namespace lockstep
