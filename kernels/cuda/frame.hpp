// How the kernels of a GPU are written: as blocks of threads that go through phases together. Within a phase
// no thread reads what another writes; between two phases all of a block meet. So the same body runs on a GPU
// (kernels/cuda/launch.cuh) and in loops on the host, where tests hold its arithmetic to kernels/plain.
//
// A kernel is a struct, passed by value:
//   struct State                           one thread's, kept over its phases
//   i64 phases(i64 block) const            how many, the same for all threads of the block
//   void phase(i64 p, const Place&, State&) const
// Order and rounding of every sum: EXACT.md. Arrays: ops.hpp. Blocks of threads: CUDA C++ Programming Guide.
#pragma once
#include <stdexcept>

#include "kernels/exact_math.hpp"
#include "kernels/ops.hpp"

namespace lockstep::cuda {

struct Place {
  i64 block;
  int thread, threads;  // in the block
  float* shared;        // the block's, as much as was asked for; garbage at first
};

inline constexpr int kThreads = 256;
inline constexpr int kLanes = 16;  // of a lane sum
inline constexpr int kDepth = 8;   // partial sums of a tree that wait at once
inline constexpr i64 kMostLeaves = i64{1} << (kDepth - 1);

LOCKSTEP_ANYWHERE inline i64 blocks_for(i64 n, i64 each) { return (n + each - 1) / each; }
LOCKSTEP_ANYWHERE inline i64 lesser(i64 a, i64 b) { return a < b ? a : b; }

// n > 0 independent elements, one a thread.
template <class F>
struct Each {
  struct State {};
  i64 n;
  F f;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 1; }
  LOCKSTEP_ANYWHERE void phase(i64, const Place& at, State&) const {
    const i64 i = at.block * at.threads + at.thread;
    if (i < n) f(i);
  }
};
template <class On, class F>
void each(Lanes& lanes, i64 n, const F& f) {
  if (n > 0) On::launch(lanes, Each<F>{n, f}, blocks_for(n, kThreads), kThreads, 0);
}

// The sum of 16 lanes: folded in halves, as LaneSum::total().
LOCKSTEP_ANYWHERE inline float fold_lanes(const float* lane) {
  float fold[kLanes];
  for (int i = 0; i < kLanes; ++i) fold[i] = lane[i];
  for (int half = kLanes / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) fold[i] = fold[i] + fold[i + half];
  return fold[0];
}

// A tree over leaves that come in ascending order, on a stack: after leaf i the two topmost are added as
// often as there are nodes of the tree that end with leaf i.
LOCKSTEP_ANYWHERE inline int merges_after(i64 i, i64 leaves) {
  int nodes = 0;
  for (i64 lo = 0, hi = leaves; hi - lo > 1;) {
    if (hi - 1 == i) ++nodes;
    const i64 mid = lo + (hi - lo) / 2;
    (i < mid ? hi : lo) = mid;
  }
  return nodes;
}
template <class Leaf>
LOCKSTEP_ANYWHERE float tree_on_stack(i64 leaves, const Leaf& leaf) {
  float stack[kDepth];
  int top = 0;
  for (i64 i = 0; i < leaves; ++i) {
    stack[top++] = leaf(i);
    for (int m = merges_after(i, leaves); m > 0; --m, --top) stack[top - 2] = stack[top - 2] + stack[top - 1];
  }
  return stack[0];
}
inline void check_leaves(i64 leaves) {
  if (leaves > kMostLeaves) throw std::invalid_argument("device cuda adds trees of at most 128 leaves");
}

}  // namespace lockstep::cuda
