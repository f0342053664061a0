// A suite: which model, text and settings, and the axes whose every combination is a plan.
// The format is described in suites/README.md.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "parallel/plan.hpp"
#include "suites/stopwatch.hpp"

namespace lockstep {

struct SuiteAxis {
  std::string word;
  std::vector<std::string> values;
};

struct Suite {
  std::string name;         // the file's, without .toml
  std::string model, data;  // paths; in the file they are relative to its folder
  Settings settings;
  std::string isa = "auto";
  int threads = 1;  // of each rank
  Repeats repeats;  // of a timed step
  int max_ranks = 64;
  double max_seconds = 0;  // of one plan; 0: by the reference's time
  double max_memory = 0;   // GiB that the process of a plan may hold; 0: most of the machine's
  std::vector<std::vector<SuiteAxis>> grids;  // each [[axes]], in the order of plan_words()
  std::vector<Plan> also;
};

// UserError, with file and line: not TOML, a key nobody knows (with the nearest that somebody does), a value
// of the wrong type or range.
Suite read_suite(const std::string& path);

// Every combination of each grid's axes and every plan of [[also]], each once; those that break a rule are
// refused.
struct Enumeration {
  struct Refused {
    Plan plan;
    Refusal refusal;
  };
  std::vector<Plan> plans;
  std::vector<Refused> refused;
  std::map<std::string, i64> by_rule() const;  // how many plans each rule refused
};
Enumeration enumerate(const Suite&, const ModelConfig&);

}  // namespace lockstep
