// A training that goes on, under the same plan or another: `lockstep train --state` and `--resume`. A folder
// of one step:
//
//   config.json, model.safetensors           as --save writes them
//   first_moments/, second_moments/          AdamW's, as such models too
//   masters/                                 float32 weights, where the model's are bf16
//   state.json                               steps done, settings, data, plan, hashes of all tensors
//
// The last is written last: a folder without it is one whose writing was cut off.
#pragma once
#include <optional>
#include <string>

#include "suites/run/assembly.hpp"
#include "suites/run/reference.hpp"

namespace lockstep {

// Hashes of what a training is of: the weights that it began from, and its text.
struct Origin {
  std::string weights, data;
};

struct TrainingState {
  i64 steps = 0;     // that were done
  std::string plan;  // under which the last were
  Origin origin;
  Weights weights, masters, first, second;  // by parameter of the table
};

// What ranks hand in after a step, and rank 0 writes.
class StateKeeper {
 public:
  StateKeeper(const Prepared&, MpiWorld*);
  void take(const RankView&);  // by every rank, after its step
  void gather();               // by every process, when all ranks have handed in
  // FOLDER/step-N of N steps done, the weights being those of the last. By the process of rank 0. Throws
  // std::runtime_error: replicas differ. UserError: it cannot be written.
  std::string write(const std::string& folder, i64 steps, const Run&, const Origin&,
                    const std::string& model_path, const Weights&, i64 shard_bytes);

 private:
  Assembly moments_;
  std::optional<Assembly> masters_;
};

// `path`: a step's folder, or one of several, of which the last that is whole counts. UserError: there is
// none, or it is of another model, text or settings; or it has done settings.steps or more.
TrainingState read_state(const std::string& path, const Run&);

// UserError: `folder` cannot be written to, or holds the state of a training that was further than so many
// steps.
void check_state_folder(const std::string& folder, i64 done);
std::string hash_of(const Weights&);

// Gives a rank, whose weights are the state's already, its part of the rest.
void take_up(const RankView&, const TrainingState&);

}  // namespace lockstep
