// A run made whole again while its ranks compute: each hands in the parts that it holds.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "suites/run/whole.hpp"

namespace lockstep {

// What a rank handed in: elements [first, first + n) of a rectangle of a tensor.
struct Holding {
  i64 step;
  bool weight;  // else gradient
  int rank;
  int param;  // of the table; a tied head's is its embedding
  Slice slice;
  i64 first, n;
  bool holds(i64 row, i64 col) const;
};

// Collects a Whole. A place that several ranks hold must have one value on all of them.
class Assembly {
 public:
  // What a sentence about a place calls it.
  struct Names {
    const char *gradient = "gradient", *weight = "weight";
  };
  // mpi: ranks are processes, each with an assembly of its own, and rank 0's becomes whole at gather().
  Assembly(const Prepared&, i64 steps, MpiWorld* mpi, Names);
  Assembly(const Prepared& p, i64 steps, MpiWorld* mpi = nullptr) : Assembly(p, steps, mpi, Names{}) {}
  ~Assembly();
  void gradients(i64 step, const RankView&);  // raw, from Executor::step's first hook
  void weights(i64 step, const RankView&);
  // What the optimizer keeps, in the place of gradients and of weights.
  using OfState = View Home::State::*;
  void state(const RankView&, OfState in_gradients, OfState in_weights);
  void result(i64 step, const StepResult&, int rank);
  void gather();  // with mpi, by every process when its rank has ended; else nothing
  // Empty, or which replicas differ and along which axis, or what no rank has written. Call when all ranks
  // have ended.
  std::string problem() const;
  const Whole& whole() const { return whole_; }
  const std::vector<Holding>& holdings() const { return holdings_; }
  Whole give_whole() { return std::move(whole_); }  // the last thing that is asked of it

 private:
  struct Cells;
  struct Parcel;
  struct Place {
    i64 step;
    bool weight;
    int param;  // -1: loss and gradient norm
    i64 at;
    bool operator==(const Place&) const = default;
  };
  struct Disagreement {
    Place place;
    std::string text;
    std::vector<int> agree, differ;  // ranks: with the first that handed it in, or not
  };
  void put(i64 step, bool weight, int rank, const LocalParam&, i64 first, i64 n, const float* values);
  void put_one(const Place&, int rank, float value);
  std::vector<int> holders(const Place&) const;
  Whole whole_;
  const Mesh mesh_;
  const Names names_;
  std::unique_ptr<Cells> cells_;
  std::vector<Holding> holdings_;
  std::string problem_;
  std::unique_ptr<Disagreement> disagreement_;  // the first
  MpiWorld* mpi_;
  std::string parcels_;  // of a process that is not rank 0: what rank 0 is to put
  mutable std::mutex mutex_;
};

}  // namespace lockstep
