// The training step, written once. It narrows the parameters through the chosen strategies, walks the
// schedule's actions and asks each role at its place; it knows no strategy by name.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/chunk.hpp"
#include "ref/data_order.hpp"

namespace lockstep {

// What a run is made of, the same on every rank.
struct Run {
  ModelConfig model;
  Settings settings;
  Plan plan;
  const TokenFile* data = nullptr;
  Mesh mesh() const;
};

struct StepResult {
  double loss = 0, grad_norm = 0;
};

class Executor {
 public:
  Executor(const Run&, int rank, Device&);
  ~Executor();

  // Fills this rank's weights: source(param) gives the whole tensor [rows, cols], or null for the fresh
  // values, which this many threads make.
  void initialise(const std::function<const float*(const Param&)>& source, int threads = 1);

  // One optimizer step. `raw` sees the gradients when they are whole and not yet clipped, `done` the end.
  StepResult step(i64 step, const std::function<void()>& raw = {}, const std::function<void()>& done = {});

  const LocalParams& params() const { return params_; }
  const std::vector<Piece>& pieces() const { return store_->pieces(); }
  Store& store() const { return *store_; }
  const Home& home() const { return *home_; }

 private:
  struct Handover;
  void load_tokens(i64 step);
  void draw_tokens(i64 step);
  void act(const Action&, Handover&);
  Request post(const Action&, bool receive, const Buf&);
  bool receives(const Action&) const;
  bool sends(const Action&) const;
  void join_tied_gradients();
  double gradient_norm();

  Run run_;
  Settings seen_;  // of this rank: samples are segments of sequences, where those are cut
  Mesh mesh_;
  int rank_, stage_;
  Device& device_;
  int microbatches_;
  i64 b_;
  std::unique_ptr<Seam> seam_;
  std::unique_ptr<Spread> spread_;
  std::unique_ptr<Schedule> schedule_;
  LocalParams params_;
  std::vector<std::vector<int>> gradient_order_;
  std::unique_ptr<Home> home_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Stash> stash_;
  std::unique_ptr<Shelf> shelf_;
  std::vector<Action> actions_;
  int chunks_ = 1;                               // of all stages
  std::vector<std::string> x_names_, dy_names_;  // by chunk: what it takes in, forward and backward
  std::vector<std::unique_ptr<Chunk>> mine_;     // chunks of this stage, ascending
  Buf ids_, labels_, losses_, squares_, cos_, sin_;
  std::vector<i32> host_ids_, host_labels_, row_ids_, row_labels_;
  std::vector<double> host_losses_;
  float loss_scale_ = 1;
  double valid_ = 1;
};

}  // namespace lockstep
