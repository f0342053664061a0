// All stages of a plan against each other, an action of the schedule at a time: as parallel/executor.cpp
// takes them, with rendezvous between stages.
#pragma once
#include <functional>
#include <memory>

#include "parallel/strategy_error.hpp"
#include "suites/planner/chunks/chunk_programs.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/course.hpp"
#include "suites/planner/prediction.hpp"

namespace lockstep {

std::unique_ptr<Schedule> make_schedule(const Run&);
// What a stage holds from the beginning: tokens, and what the step's messages are put in.
i64 input_bytes(const Shape&, int chunks, int stage);
// What stages hand over to each other.
Message handed_over(const Plan&, const Shape&);
// What all ranks add up at the end: the gradient norm, and the losses.
Message norm_of_all();
Message losses_of_all(const Run&);

// What a pass of a chunk costs: where a breakdown is wanted the whole program, else the quick form of it.
struct PassCost {
  Program program;
  QuickProgram quick;
};

// The plan would wait for ever: its line, and where each stage stands.
struct Hangs : StrategyError {
  using StrategyError::StrategyError;
};

class Pipeline {
 public:
  Pipeline(const Run&, const Mesh&, const CostModel&, int chunks, int microbatches,
           const std::vector<std::vector<Action>>& actions, const std::vector<int>& shapes,
           const std::vector<int>& leaving, bool quick);
  ~Pipeline();
  std::function<const PassCost&(int chunk, const PassShape&)> cost;
  std::function<const UpdateProgram&(int stage, bool first_microbatch)> update;
  Prediction run();  // or Hangs

 private:
  struct Carrying {
    double start = 0, wait = 0;
  };
  struct Handed;
  struct Stage;
  bool advance(int stage);
  bool wait(Stage&, const Handed&, const Carrying&);
  void carry(Stage&, double seconds);
  void offer(Stage&, const Action&, bool receive);
  void issue(Stage&, const PassCost&);
  void keep_up(Stage&);
  const PassCost& cost_of(Stage&, const Action&);
  void check_done() const;
  void finish();
  Prediction said();
  void meet(const std::vector<int>& stages, double seconds, Axis);

  const Run& run_;
  const Mesh& mesh_;
  const CostModel& model_;
  const int chunks_, microbatches_;
  const std::vector<std::vector<Action>>& actions_;
  const std::vector<int>& shapes_;  // by chunk: those of one shape cost the same
  const bool quick_;
  std::vector<Stage> stages_;
  std::vector<const PassCost*> known_;  // by shape and pass
  std::vector<Handed> handed_;          // by the chunk it goes into, direction and microbatch
  std::vector<double> links_;           // when free: from stage, to stage
  // Of a message to the next stage; where the stages carry it themselves, what each end does at its start
  // and its wait.
  double hand_seconds_ = 0;
  Carrying sending_, receiving_;
  i64 hand_bytes_ = 0;
};

}  // namespace lockstep
