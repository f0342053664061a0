// The members' contributions of a sum or maximum, combined in the order of kernels/EXACT.md:
// tree(lo, hi) = tree(lo, mid) + tree(mid, hi) with mid = lo + (hi - lo) / 2, each addition rounded once;
// bf16 in float32, of which the result is rounded once.
#pragma once
#include "parallel/comm/comm.hpp"

namespace lockstep {

// out[n] = tree over parts[0..count) of n elements each, count <= kMaxRanks. Integers wrap; the maximum of
// anything and NaN is NaN. `out` may be parts[0]; it may not overlap another part. Allocates nothing.
void combine_tree(Type, Reduce, const void* const* parts, int count, i64 n, void* out);

}  // namespace lockstep
