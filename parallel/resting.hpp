// Weights of a rank's units between their uses: on the device all the time, or below it and fetched for each
// use (Ren et al. 2021, ZeRO-Offload; Rajbhandari et al. 2021, ZeRO-Infinity, section 5). Where they rest the
// home says; what a unit's buffer holds, all of it or a shard, the store does. Not a strategy.
#pragma once
#include <vector>

#include "parallel/roles.hpp"

namespace lockstep {

class RestingWeights {
 public:
  RestingWeights(const Context&, const std::vector<i64>& elements);  // by unit; 0: it has none
  bool below() const { return rest_ != Kind::weights; }              // the device
  const Buf& at_rest(int unit) const { return units_[unit].rest; }   // what the optimizer updates
  const Buf& here(int unit) const { return below() ? units_[unit].here : units_[unit].rest; }  // acquired
  void prefetch(int unit);
  void acquire(int unit);  // calls nest
  void release(int unit);

 private:
  struct Unit {
    Buf rest, here;
    Request coming;  // of `here`
    int users = 0;
  };
  Device& device_;
  const Kind rest_;
  std::vector<Unit> units_;
};

}  // namespace lockstep
