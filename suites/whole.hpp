// Losses, gradients and weights of a run, whole again: assembled from what every rank holds, or taken from
// the reference. Both are compared and hashed in this one form.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "parallel/cluster.hpp"

namespace lockstep {

struct Whole {
  struct Step {
    double loss = 0, grad_norm = 0;
    // By parameter table index, stored rows; a tied head's are empty.
    std::vector<std::vector<float>> gradient, weight;
  };
  std::vector<Param> table;
  std::vector<Step> steps;

  std::string hash() const;
};

// The hash of a run, one step after another: of losses, norms, gradients and weights. -0 counts as +0, pads
// do not count.
class RunHash {
 public:
  RunHash();
  ~RunHash();
  void add(const std::vector<Param>& table, const Whole::Step&);
  std::string text() const;  // 32 hexadecimal digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The first place where two runs differ.
struct Difference {
  i64 step;
  std::string what;  // "loss", "gradient norm", "gradient of <name>", "weight of <name>"
  i64 row = -1, col = -1;
  double expected, found;
  std::string text() const;
};
std::optional<Difference> first_difference(const Whole& expected, const Whole& found);

// Something in a run that needs no second run to be wrong: a loss that is not finite, a gradient all zero,
// clipping that never acted. The empty string if all is well.
std::string vacuous(const Whole&, const Settings&);

// Collects a Whole while ranks run. A place that several ranks hold must have one value on all of them.
class Assembly {
 public:
  // mpi: ranks are processes, each with an assembly of its own, and rank 0's becomes whole at gather().
  Assembly(const Prepared&, i64 steps, MpiWorld* mpi = nullptr);
  ~Assembly();
  void gradients(i64 step, const RankView&);  // raw, from Executor::step's first hook
  void weights(i64 step, const RankView&);
  void result(i64 step, const StepResult&, int rank);
  void gather();  // with mpi, by every process when its rank has ended; else nothing
  // Empty, or which replicas differ, or what no rank has written. Call when all ranks have ended.
  std::string problem() const;
  const Whole& whole() const { return whole_; }

 private:
  struct Cells;
  struct Parcel;
  void put(i64 step, bool weight, int rank, const LocalParam&, i64 first, i64 n, const float* values);
  Whole whole_;
  std::unique_ptr<Cells> cells_;
  std::string problem_;
  MpiWorld* mpi_;
  std::string parcels_;  // of a process that is not rank 0: what rank 0 is to put
  mutable std::mutex mutex_;
};

}  // namespace lockstep
