// Adding up gradients in the tree of kernels/EXACT.md while they arrive in any fixed order: sample by sample,
// or as partial sums that are nodes of the tree. A partial sum is named by its node; how many wait at once
// decides the number of slots.
#pragma once
#include <utility>
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep {

class Accumulation {
 public:
  // The sum over samples [first, last), which is one node of the tree.
  struct Node {
    i64 first, last;
    auto operator<=>(const Node&) const = default;
  };
  struct Arrival {
    int slot = 0;
    bool add = false;                         // add what arrives to the slot, or overwrite the slot
    std::vector<std::pair<int, int>> merges;  // then slot first += slot second, in this order
  };
  // arrivals: nodes of the tree over [0, total) in the order they come; std::logic_error for what is no node.
  // fast: all are added into one slot as they come, in no tree's order.
  Accumulation(const std::vector<Node>& arrivals, i64 total, bool fast = false);
  // Single samples that fill one node (a rank's aligned block), std::logic_error if not. The sum ends in slot
  // 0.
  Accumulation(const std::vector<i64>& samples, i64 total, bool fast = false);
  int slots() const { return slots_; }
  const Arrival& at(i64 first) const;  // the arrival that begins with this sample
  // What all arrivals add up to: the fewest nodes, ascending. The i-th ends in slot i, as arrivals in
  // ascending order (and one node in any order) do; std::logic_error for others.
  const std::vector<Node>& sums() const { return sums_; }

 private:
  i64 first_ = 0;
  std::vector<Arrival> by_sample_;  // from first_ on
  std::vector<Node> sums_;
  int slots_ = 0;
};

}  // namespace lockstep
