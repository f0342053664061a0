// Every plan of a suite against one device, each in a process that it may take down, with a record that
// outlives this one. Ends in one line, VALID or INVALID.
#pragma once
#include <optional>
#include <string>

#include "reports/record.hpp"
#include "suites/progress.hpp"
#include "suites/sweep/check_plan.hpp"
#include "suites/sweep/crew.hpp"
#include "suites/sweep/predicted_steps.hpp"
#include "suites/sweep/sweep_folder.hpp"

namespace lockstep {

struct SweepOptions {
  std::string out{};   // folder; empty: nothing is kept
  bool fresh = false;  // start anew, instead of going on
  bool retry = false;  // run again what was recorded without a verdict: crashed, timeout, out of memory
  bool timed = true;   // time what passes, not only judge
  int jobs = 0;        // plans at once that are judged and not timed; 0: one per core, at most eight
  std::string verdict_file{};  // where the last line goes; empty: to stdout
};

class Sweep {
 public:
  // UserError: the text does not fit the model, or the folder is another sweep's.
  Sweep(const Suite&, Enumeration, const SweepOptions&);
  int run();                                        // exit status
  const RunRecord& record() const { return run_; }  // of what was run so far

 private:
  Identity identity() const;
  void introduce();
  void take_up();          // what is recorded already
  void make_references();  // or read them: one for each batch that a plan is run with
  void make_reference(Standard&);
  const Standard& standard_of(const Plan& plan) const {
    return standards_.at(suite_.settings_of(plan).batch);
  }
  void run_plans();
  void run_plans(const std::vector<const Plan*>&, Crew, int jobs);
  void run_launched(int ranks, const std::vector<const Plan*>&);  // which all have so many
  Crew threads(int jobs) const;                                   // to run plans whose ranks are threads
  PlanRecord record_of(const Plan&, const Answer&, double seconds) const;
  PlanRecord heard_of(const Plan&, const std::string& said) const;  // of a plan that a job has answered
  ForkedWorker::Limits limits() const;
  void save(const std::string& verdict);
  int conclude();
  int end(const std::string& outcome, int status);

  const Suite& suite_;
  const ModelConfig model_;
  const TokenFile data_;
  const Enumeration all_;
  const SweepOptions options_;
  Progress progress_;
  RunRecord run_;
  std::optional<Cluster> cluster_;  // that timed steps are predicted on, too
  std::optional<SweepFolder> folder_;
  std::map<i64, Standard> standards_;  // by batch
  double reference_seconds_ = 0;
  std::map<std::string, PlanRecord> done_;  // by the plan's line
  double busy_seconds_ = 0;                 // in steps and gates, the reference's included
};

// The command that judges this one plan again, by the suite's settings and on the same kernels.
std::string judge_again(const Suite&, const std::string& plan);

}  // namespace lockstep
