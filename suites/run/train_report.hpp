// What `lockstep train` does with a step once it is whole: printed, hashed, and as asked written to a dump,
// kept to go on from, or held to the single-device reference.
#pragma once
#include <optional>
#include <string>

#include "reports/dump.hpp"
#include "suites/run/locate.hpp"
#include "suites/run/training_state.hpp"

namespace lockstep {

struct TrainOptions {
  std::string model, data, plan = "dp=1", init, dump, save, state, resume, isa = "auto", timing = "eager",
                           comm = "local", device = "cpu", scratch, cluster;
  int threads = 1;
  i64 state_every = 0;
  double shard_gb = 5;
  bool check = false, fast = false, graphs = false;
  Settings settings;
  // Whether the training's state is kept when so many steps are done.
  bool keeps(i64 done) const {
    return !state.empty() && (done == settings.steps || (state_every > 0 && done % state_every == 0));
  }
};

class TrainReport {
 public:
  // Keeps the run and the options. resumed: of a training that goes on; a reference begins where that began,
  // with `initial`. UserError: what is to be written cannot be, which is said before the training, not after;
  // or it began otherwise.
  TrainReport(const Run&, const TrainOptions&, const Weights& initial, const TrainingState* resumed);
  // state: what the ranks have handed in, if it is to be kept.
  void step(i64 k, const Assembly&, StateKeeper* state, double seconds);
  int finish();  // exit status of the command

 private:
  void prepare_folder();
  void dump_step(i64 k, const Whole::Step&);
  void compare(i64 k, const Assembly&);

  const Run& run_;
  const TrainOptions& o_;
  const i64 done_;  // steps before the first one here
  Origin origin_;   // where it is kept
  const std::vector<Param> table_;
  RunHash hash_;
  i64 shard_bytes_;
  std::optional<DumpWriter> dump_;
  std::optional<Reference> reference_;
  std::optional<Finding> difference_;
  std::string vacuous_;  // the first step whose numbers are equal and show nothing
};

}  // namespace lockstep
