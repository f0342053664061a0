// Where a rank stands. Rank = tp + TP * (dp + DP * pp): tensor parallel innermost, stages outermost.
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
  kv,     // the tensor-parallel ranks that hold the same key/value head
  tie,    // first and last stage, where a tied weight lives twice
  count
};
const char* axis_name(Axis);

struct Group {
  Axis axis = Axis::world;
  std::vector<int> ranks;  // ascending world ranks
  int me = 0;              // my index in it
  int size() const { return static_cast<int>(ranks.size()); }
};

struct Mesh {
  int dp = 1, tp = 1, pp = 1;
  int kv_replicas = 1;  // tensor-parallel ranks per key/value head
  int size() const { return dp * tp * pp; }
  int tp_of(int rank) const { return rank % tp; }
  int dp_of(int rank) const { return rank / tp % dp; }
  int pp_of(int rank) const { return rank / (tp * dp); }
  int rank_of(int d, int t, int p) const { return t + tp * (d + dp * p); }
  Group group(Axis, int rank) const;
};

}  // namespace lockstep
