// What the exact tree over samples costs in partial sums (kernels/EXACT.md): its formulas.
#include <algorithm>
#include <utility>
#include <vector>

#include "parallel/price/price.hpp"

namespace lockstep {
namespace {

// Whole subtrees that samples [first, last) of the tree over [from, to) are made of.
i64 subtrees(i64 from, i64 to, i64 first, i64 last) {
  if (to <= first || last <= from) return 0;
  if (first <= from && to <= last) return 1;
  const i64 mid = from + (to - from) / 2;
  return subtrees(from, mid, first, last) + subtrees(mid, to, first, last);
}

// Samples as neighbouring ones are added, in ascending order.
class Arrived {
 public:
  void add(i64 first, i64 last) {
    if (first == last) return;
    if (!ranges_.empty() && ranges_.back().second == first)
      ranges_.back().second = last;
    else
      ranges_.emplace_back(first, last);
  }
  i64 subtrees_of(i64 n) const {
    i64 all = 0;
    for (const auto& [first, last] : ranges_) all += subtrees(0, n, first, last);
    return all;
  }

 private:
  std::vector<std::pair<i64, i64>> ranges_;
};

// Where the largest subtree that [first, last) begins with ends.
i64 first_end(i64 n, i64 first, i64 last) {
  i64 end = last;
  while (subtrees(0, n, first, end) > 1) --end;
  return end;
}

// Additions under the node [from, to), and when its sum is complete, as a place in the order of samples.
// `arrives` says when a node arrives as one sum; -1: it does not.
template <class Arrives>
i64 additions(i64 from, i64 to, const Arrives& arrives, Additions& all) {
  if (const i64 when = arrives(from, to); when >= 0) {
    ++all.begun;
    return when;
  }
  const i64 mid = from + (to - from) / 2;
  const i64 left = additions(from, mid, arrives, all), right = additions(mid, to, arrives, all);
  const bool later_arrives = right > left ? arrives(mid, to) >= 0 : arrives(from, mid) >= 0;
  if (later_arrives)
    ++all.joined, --all.begun;
  else
    ++all.merged;
  return std::max(left, right);
}

}  // namespace

Additions& Additions::operator+=(const Additions& other) {
  joined += other.joined, begun += other.begun, merged += other.merged;
  return *this;
}

Additions tree_additions(i64 n, i64 microbatch, i64 block, bool reversed, i64 parts) {
  const i64 part = n / parts, run = microbatch / parts;
  const auto turn = [&](i64 sample) {
    const i64 j = sample % part / run, turns = reversed ? part / run - 1 - j : j;
    return turns * microbatch + sample / part * run + sample % run;
  };
  Additions all;
  additions(
      0, n, [&](i64 from, i64 to) { return from / block == (to - 1) / block ? turn(to - 1) : i64{-1}; }, all);
  return all;
}

Additions block_additions(i64 n, i64 first, i64 last) {
  Additions all;
  const auto descend = [&](const auto& self, i64 from, i64 to) -> void {
    if (to <= first || last <= from) return;
    if (first <= from && to <= last) {
      additions(
          from, to, [](i64 a, i64 b) { return b - a == 1 ? a : i64{-1}; }, all);
      return;
    }
    const i64 mid = from + (to - from) / 2;
    self(self, from, mid), self(self, mid, to);
  };
  descend(descend, 0, n);
  return all;
}

Additions plain_additions(i64 arrivals) { return {arrivals - 1, 1, 0}; }

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

i64 tree_slots(i64 n, i64 microbatch, i64 block, bool reversed, i64 parts) {
  const i64 part = n / parts, run = microbatch / parts, microbatches = n / microbatch;
  i64 most = 0;
  for (i64 turn = 0; turn < microbatches; ++turn) {
    const i64 j = reversed ? microbatches - 1 - turn : turn;
    for (i64 k = 0; k < parts; ++k)
      for (i64 at = j * run; at < (j + 1) * run; at += block)
        for (i64 end = at; end < at + block;) {
          end = first_end(n, k * part + end, k * part + at + block) - k * part;
          // Of each part what has arrived: before (in reverse: after) this microbatch, and of it so much.
          Arrived arrived;
          for (i64 i = 0; i < parts; ++i) {
            const i64 first = i * part, of_it = i < k ? run : i > k ? 0 : end - j * run;
            arrived.add(first + (reversed ? j * run : 0), first + j * run + of_it);
            if (reversed) arrived.add(first + (j + 1) * run, first + part);
          }
          most = std::max(most, arrived.subtrees_of(n));
        }
  }
  return most;
}

}  // namespace lockstep
