// A covering array: few plans that show every combination of a few values at a time, in place of the product
// of all axes. Chosen one plan after another, each to bring as much that is new as it can (Cohen, Dalal,
// Fredman and Patton 1997, "The AETG system", section 3), among plans that break no rule (as Yu et al. 2013,
// "Constraint handling for combinatorial test generation", ask of every completion). suites/README.md says
// what is guaranteed.
#pragma once
#include <string>
#include <vector>

#include "suites/plans/plan_search.hpp"

namespace lockstep {

struct CoverOrder {
  std::vector<SuiteAxis> axes;
  int plans = 0;  // at least as many; beyond what covers, those with most new triples of values
  int seed = 1;
  int tries = 100000;  // plans that a search for one combination may ask about
};

// What a strategy is in a plan's words: zero=3 where dp > 1, or what an axis of the mesh wider than 1 gets
// without further words.
struct StrategyWords {
  std::string name;   // "zero=3"; "1f1b"
  std::string split;  // the axis of the mesh that must be wider than 1, or empty
  std::vector<std::pair<std::string, std::string>> words;  // with these values
};
// Every one that the registry knows and these axes allow.
std::vector<StrategyWords> strategies_within(const std::vector<SuiteAxis>&);

struct CoveringArray {
  struct Count {
    std::string what;
    int covered = 0, legal = 0, undecided = 0;  // undecided: the search gave up; none in practice
  };
  std::vector<Plan> plans;
  std::vector<Count> counts;
  int needed = 0;  // plans that cover; the rest was asked for
};
CoveringArray covering_array(const CoverOrder&, const PlanSearch::Judge&);

}  // namespace lockstep
