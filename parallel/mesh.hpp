// Where a rank stands. Rank = tp + TP * (cp + CP * (dp + DP * pp)) in a plan's words: tensor parallel
// innermost, stages outermost.
#pragma once
#include <string>
#include <vector>

namespace lockstep {

// The groups a rank talks in. A strategy on an axis of its own adds a name here and its group in mesh.cpp.
enum class Axis {
  world,  // every rank
  dp,     // same stage, same slice, other samples
  tp,     // same stage, same samples, other slices
  pp,     // same slice and samples, other stages
  cp,     // of dp those whose samples are segments of the same sequences
  kv,     // the tensor-parallel ranks that hold the same key/value head
  tie,    // first and last stage, where a tied weight lives twice
  // Where the replicas of dp are groups that share a unit's weights, gradients or moments, and not all one:
  shard,    // those of a group, each with another shard
  replica,  // those that have the same shard, of all groups
  count
};
const char* axis_name(Axis);
// Messages of gradients and weights, between ranks that train on other samples: they go one after another.
constexpr bool along_dp(Axis a) { return a == Axis::dp || a == Axis::shard || a == Axis::replica; }
constexpr Axis in_one_queue(Axis a) { return along_dp(a) ? Axis::dp : a; }

struct Group {
  Axis axis = Axis::world;
  std::vector<int> ranks;  // world ranks, in the order of sums
  int me = 0;              // my index in it
  int size() const { return static_cast<int>(ranks.size()); }
};

// With segments of sequences as samples, ranks of cp are ranks of dp: dp counts a plan's dp x cp. In the
// order of samples, which is that of the sums over dp, the first segments of all sequences come first; so
// groups of replicas, which are neighbours in it, are ranks of one segment as long as there are as many
// groups.
struct Mesh {
  int dp = 1, tp = 1, pp = 1;
  int kv_replicas = 1;  // tensor-parallel ranks per key/value head
  int replicas = 1;     // groups of dp's ranks, neighbours in each, among whom each unit is shared
  int cp = 1;           // segments of a sequence, each on another rank
  int size() const { return dp * tp * pp; }
  int tp_of(int rank) const { return rank % tp; }
  int cp_of(int rank) const { return rank / tp % cp; }
  int dp_of(int rank) const { return cp_of(rank) * (dp / cp) + rank / tp / cp % (dp / cp); }
  int pp_of(int rank) const { return rank / (tp * dp); }
  int shards() const { return replicas < dp ? dp / replicas : 1; }
  int shard_of(int rank) const { return dp_of(rank) % shards(); }
  int replica_of(int rank) const { return dp_of(rank) / shards(); }
  Axis sharing() const { return replicas > 1 ? Axis::shard : Axis::dp; }
  int rank_of(int d, int t, int p) const { return t + tp * (d / (dp / cp) + cp * (d % (dp / cp)) + dp * p); }
  Group group(Axis, int rank) const;
};

}  // namespace lockstep
