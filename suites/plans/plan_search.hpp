// Finds legal plans within given values of the axes, or proves that there are none, without listing the whole
// product: backtracking that jumps back to a value that is to blame (conflict-directed backjumping: Prosser
// 1993, "Hybrid algorithms for the constraint satisfaction problem", section 3) and learns from every
// refusal. A refusal says which words its rule looked at; no plan with these values is asked about again.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "parallel/plan.hpp"

namespace lockstep {

// A word of a plan and the values it takes in a suite.
struct SuiteAxis {
  std::string word;
  std::vector<std::string> values;  // 64 at most where plans are searched
};

using Choice = std::vector<int>;         // by axis: which value
using Box = std::vector<std::uint64_t>;  // by axis: which values are allowed, a bit each

bool inside(const Choice&, const Box&);
std::optional<Box> intersection(const Box&, const Box&);  // nothing if an axis has no value left

// The same numbers everywhere: the standard library's distributions differ between implementations.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : bits_(seed) {}
  std::size_t below(std::size_t n) { return bits_() % n; }
  template <class T>
  void shuffle(std::vector<T>& list) {
    for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[below(i)]);
  }

 private:
  std::mt19937_64 bits_;
};

class PlanSearch {
 public:
  using Judge = std::function<std::optional<Refusal>(const Plan&)>;

  // Words that are no axis keep their fallback. At most 64 axes; `tries` bounds the plans that are asked
  // about in one find().
  PlanSearch(std::vector<SuiteAxis> axes, Judge judge, int tries);

  const std::vector<SuiteAxis>& axes() const { return axes_; }
  Box everything() const;
  // The first legal plan in the order of the values, or in the dice's. Nothing: there is none, or it gave up.
  std::optional<Choice> find(const Box&, Dice* dice = nullptr);
  bool gave_up() const { return gave_up_; }               // the last find() ran out of tries
  void exclude(const Choice& c) { excluded_.insert(c); }  // find() passes over it from now on
  Plan plan(const Choice&) const;

 private:
  using AxisSet = std::uint64_t;
  bool descend(std::size_t depth, const Box& box, Dice* dice, AxisSet& blamed);
  std::optional<AxisSet> forbidden(int axis) const;
  std::optional<AxisSet> judge();
  AxisSet learn(const Refusal&);
  Choice values_of(AxisSet) const;

  std::vector<SuiteAxis> axes_;
  Judge judge_;
  int tries_, left_ = 0;
  bool gave_up_ = false;
  std::map<AxisSet, std::set<Choice>> lessons_;  // by axes: values of these that no legal plan has together
  std::set<Choice> excluded_;
  Choice choice_;
  AxisSet chosen_ = 0;      // axes whose value in choice_ counts
  std::vector<int> order_;  // in which axes are chosen
};

}  // namespace lockstep
