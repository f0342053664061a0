// Two runs of sweeps side by side: what a change of code, machine or setting did to their plans.
#pragma once
#include <optional>
#include <string>

#include "reports/record.hpp"

namespace lockstep {

struct RunComparison {
  bool well = false;  // no plan is worse after than before, as far as compare_runs counts it
  std::string text;   // lines; the last one is the verdict
};

struct RunsAsked {
  std::optional<double> slower = {};  // it is a fault to be slower by more percent than that
  bool all = false;                   // tables do not end after 20 rows
  bool allow_missing = false;
};

// Faults are: a plan that the second run lacks, unless that is allowed, for what is not run fails nowhere; a
// plan that was ok and is not; another hash of the same training (model, data, dtype, batch, seq, steps,
// seed), of a plan that is ok in both or of the reference; with `slower`, a plan timed in both that became
// slower by more, if its medians' 95 % intervals do not meet. UserError: the runs have no plan in common, or
// one is damaged.
RunComparison compare_runs(const RunRecord& before, const RunRecord& after, const RunsAsked& = {});

}  // namespace lockstep
