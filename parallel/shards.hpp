// What stores that cut a unit over the dp ranks have in common: where the cuts lie, what of the parameters a
// rank owns, how weights are kept and made whole, and how groups of ranks add up what each has summed. Not a
// strategy.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "parallel/resting.hpp"

namespace lockstep {

// A unit's elements in equal shards, the i-th on the i-th of the ranks that share it. The last one is padded.
class Shards {
 public:
  explicit Shards(const Context&);
  i64 length(int unit) const { return lengths_[unit]; }  // of one shard, elements
  i64 padded(int unit) const { return lengths_[unit] * ranks_; }
  i64 mine(int unit) const { return lengths_[unit] * me_; }  // where this rank's begins in the unit
  struct Range {
    i64 from, to;
    bool empty() const { return from >= to; }
  };
  Range owned(int local) const;  // this rank's elements of a local parameter

 private:
  const LocalParams& params_;
  int ranks_, me_;
  std::vector<i64> lengths_;  // by unit
};

// The weights of all units of a rank. `kept`: each is whole all the time, or a shard that is made whole from
// its first acquire (or prefetch) to its last release. The functions are the store's of the same names.
class ShardedWeights {
 public:
  enum class Kept { whole, shard };
  ShardedWeights(const Context&, const Shards&, Kept kept);
  void load(int local, const float* values);
  bool resident() const { return kept_ == Kept::whole; }
  void prefetch(int unit);
  void acquire(int unit);
  void release(int unit);
  View weight(int local) const;
  View kept(int local) const;            // whole ones, at rest
  View own(int local, i64 first) const;  // from element `first`, one that this rank owns, at rest
  void republish();

 private:
  struct Unit {
    Buf gathered;    // [padded], for a while
    Request coming;  // of it
    int users = 0;
    std::string name;
  };
  // A tied head's unit has no weights: it uses the embedding's.
  int of(int unit) const { return params_.unit_weights[unit] ? unit : 0; }
  Request gather(int unit, View mine, const Buf& in, const Buf& out);
  void republish(int unit);

  Device& device_;
  const LocalParams& params_;
  const Shards& shards_;
  Axis sharing_;
  Kept kept_;
  RestingWeights rest_;  // [padded] or [length] of each unit
  std::vector<Unit> units_;
};

// `replicas=r` (hybrid sharding: Zhao et al. 2023, PyTorch FSDP, section 3.2.2): a gradient that a group of
// ranks has summed and cut is summed once a step with those of the other groups, shard by shard, while
// backward goes on.
class AcrossReplicas {
 public:
  explicit AcrossReplicas(const Context&);
  bool any() const { return !alone_; }
  // The unit's sum of this group is in; the message before has arrived then.
  void start(int unit, const Buf& gradients, View shard, i64 n);
  void finish();

 private:
  Device& device_;
  bool alone_;                      // one group
  std::vector<std::string> names_;  // by unit
  Request under_way_;
};

// Its price.
Maybe over_replicas(const Shape&, i64 E);

// What the optimizer updates on this rank; `gradient` finds an element of a local parameter that it owns.
std::vector<Piece> own_pieces(const Context&, const Shards&, const ShardedWeights&,
                              const std::function<View(int local, i64 first)>& gradient);

}  // namespace lockstep
