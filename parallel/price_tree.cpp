// What the exact tree over samples costs in partial sums (kernels/EXACT.md): its formulas.
#include <algorithm>

#include "parallel/price.hpp"

namespace lockstep {
namespace {

// Whole subtrees that samples [first, last) of the tree over [from, to) are made of.
i64 subtrees(i64 from, i64 to, i64 first, i64 last) {
  if (to <= first || last <= from) return 0;
  if (first <= from && to <= last) return 1;
  const i64 mid = from + (to - from) / 2;
  return subtrees(from, mid, first, last) + subtrees(mid, to, first, last);
}

// Where the largest subtree that [first, last) begins with ends.
i64 first_end(i64 n, i64 first, i64 last) {
  i64 end = last;
  while (subtrees(0, n, first, end) > 1) --end;
  return end;
}

}  // namespace

i64 block_sums(i64 n, i64 block) {
  i64 most = 0;
  for (i64 first = 0; first < n; first += block) most = std::max(most, subtrees(0, n, first, first + block));
  return most;
}

i64 block_slots(i64 n, i64 block) {
  i64 most = 0;
  for (i64 first = 0; first < n; first += block)
    for (i64 end = first + 1; end <= first + block; ++end) most = std::max(most, subtrees(0, n, first, end));
  return most;
}

i64 tree_slots(i64 n, i64 microbatch, i64 block, bool reversed) {
  i64 most = 0;
  for (i64 first = 0; first < n; first += microbatch) {
    const i64 last = first + microbatch;
    // When everything up to `end` has arrived; in reverse, all from `last` on and this microbatch up to
    // `end`.
    const auto waiting = [&](i64 end) {
      if (!reversed) return subtrees(0, n, 0, end);
      return end == last ? subtrees(0, n, first, n) : subtrees(0, n, first, end) + subtrees(0, n, last, n);
    };
    for (i64 at = first; at < last; at += block)
      for (i64 end = at; end < at + block;)
        most = std::max(most, waiting(end = first_end(n, end, at + block)));
  }
  return most;
}

}  // namespace lockstep
