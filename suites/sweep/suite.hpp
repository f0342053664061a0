// A suite: which model, text and settings, and which plans: every combination of axes, or few that cover
// them. The format is described in suites/README.md.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "suites/plans/cover.hpp"
#include "suites/timing/stopwatch.hpp"

namespace lockstep {

inline constexpr const char* kRanks = "{ranks}";

struct Suite {
  std::string name, path;   // the file's, without .toml; the file
  std::string model, data;  // paths; in the file they are relative to its folder
  Settings settings;
  std::string cluster;  // path of what steps are predicted on, as `data`; empty: none are
  std::string scratch;  // not in the file: --scratch
  // Nor are these: what starts a plan's ranks as processes, with kRanks for their number, and what carries
  // their messages ("mpi", "nccl"). Empty and "local": they are threads.
  std::string launch, comm = "local";
  std::string isa = "auto";
  std::string device = "cpu";  // what computes
  int threads = 1;             // of each rank
  bool fast = false;  // mode = "fast": plans that only fast mode can sum are run too, in that mode alone
  bool weak = false;  // scaling = "weak": settings.batch is a replica's, and a step's is dp times that
  Repeats repeats;    // of a timed step
  int max_ranks = 64;
  double max_seconds = 0;  // of one plan; 0: by the reference's time
  double max_memory = 0;   // GiB that the process of a plan may hold; 0: most of the machine's
  // What is known of a run of all of it: how many plans there are, and how their one hash begins. 0, "":
  // nothing.
  i64 expected_plans = 0;
  std::string expected_hash;
  std::vector<std::vector<SuiteAxis>> grids;  // each [[axes]], in the order of plan_words()
  std::optional<CoverOrder> cover;
  std::vector<Plan> also;
  // What a plan of this suite is run with.
  Settings settings_of(const Plan& plan) const {
    Settings s = settings;
    if (weak) s.batch *= plan.number("dp");
    return s;
  }
  // With what it must be possible.
  Settings admitting(const Plan& plan) const {
    Settings s = settings_of(plan);
    s.fast = fast;
    return s;
  }
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
  std::string part{};  // which part of a suite this is, for who reads the verdict; empty: all of it
  i64 in_suite = 0;    // plans that may run of the whole suite; 0: not known, some were asked for
  // Of the covering array, if there is one: what it covers, and with how many plans.
  std::vector<CoveringArray::Count> covered;
  int covering = 0;
  std::map<std::string, i64> by_rule() const;  // how many plans each rule refused
};
Enumeration enumerate(const Suite&, const ModelConfig&);

}  // namespace lockstep
