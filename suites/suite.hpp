// A suite: which model, text and settings, and which plans: every combination of axes, or few that cover
// them. The format is described in suites/README.md.
#pragma once
#include <string>
#include <vector>

#include "suites/cover.hpp"

namespace lockstep {

struct Suite {
  std::string name;         // the file's, without .toml
  std::string model, data;  // paths; in the file they are relative to its folder
  Settings settings;
  std::string scratch;  // not in the file: --scratch
  std::string isa = "auto";
  int threads = 1;      // of each rank
  int timed_steps = 5;  // after a warm-up step
  int max_ranks = 64;
  std::vector<std::vector<SuiteAxis>> grids;  // each [[axes]], in the order of plan_words()
  std::optional<CoverOrder> cover;
  std::vector<Plan> also;
};

// UserError, with file and line: not TOML, a key nobody knows (with the nearest that somebody does), a value
// of the wrong type or range.
Suite read_suite(const std::string& path);

// Every combination of each grid's axes, the plans of the covering array and those of [[also]], each once;
// those that break a rule are refused.
struct Enumeration {
  struct Refused {
    Plan plan;
    Refusal refusal;
  };
  std::vector<Plan> plans;
  std::vector<Refused> refused;
  std::vector<CoveringArray::Count> covered;  // by the covering array, if there is one
};
Enumeration enumerate(const Suite&, const ModelConfig&);

}  // namespace lockstep
