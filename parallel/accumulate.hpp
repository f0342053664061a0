// Adding up per-sequence gradients in the tree of kernels/EXACT.md while they arrive in any fixed order.
// A partial sum is named by its node in the tree; how many wait at once decides the number of slots.
#pragma once
#include <utility>
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep {

class Accumulation {
 public:
  struct Arrival {
    int slot = 0;
    bool add = false;                         // add the leaf to the slot, or overwrite the slot
    std::vector<std::pair<int, int>> merges;  // then slot first += slot second, in this order
  };
  // arrivals: the samples in the order their gradients come; they must fill whole nodes of the tree over
  // [0, total). One node only (a rank's aligned block): std::logic_error otherwise. The sum ends in slot 0.
  Accumulation(const std::vector<i64>& arrivals, i64 total);
  // Fast mode: all into one slot, as they come.
  static Accumulation in_one_slot(const std::vector<i64>& arrivals);
  int slots() const { return slots_; }
  const Arrival& at(i64 sample) const;

 private:
  Accumulation() = default;
  i64 first_ = 0;
  std::vector<Arrival> by_sample_;
  int slots_ = 0;
};

}  // namespace lockstep
