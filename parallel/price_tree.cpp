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

// Where the subtree that begins [first, last) ends.
i64 first_end(i64 n, i64 first, i64 last) {
  i64 end = last;
  while (subtrees(0, n, first, end) > 1) --end;
  return end;
}

}  // namespace

i64 most_in_block(i64 n, i64 block, bool while_filling) {
  i64 most = 0;
  for (i64 first = 0; first < n; first += block)
    for (i64 last = while_filling ? first + 1 : first + block; last <= first + block; ++last)
      most = std::max(most, subtrees(0, n, first, last));
  return most;
}

i64 tree_slots(i64 n, i64 run, i64 block, bool reversed) {
  i64 most = 0;
  for (i64 first = 0; first < n; first += run)
    for (i64 at = first; at < first + run; at += block)
      for (i64 end = at; end < at + block;) {
        end = first_end(n, end, at + block);
        const i64 here = !reversed            ? subtrees(0, n, 0, end)
                         : end == first + run ? subtrees(0, n, first, n)
                                              : subtrees(0, n, first, end) + subtrees(0, n, first + run, n);
        most = std::max(most, here);
      }
  return most;
}

i64 shard(const Shape& s, i64 e) { return (e + s.dp - 1) / s.dp; }
i64 own_part(const Shape& s, i64 e) { return std::clamp<i64>(e - s.dp_at * shard(s, e), 0, shard(s, e)); }

}  // namespace lockstep
