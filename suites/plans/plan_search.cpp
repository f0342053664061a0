#include "suites/plans/plan_search.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

namespace lockstep {

bool inside(const Choice& choice, const Box& box) {
  for (std::size_t a = 0; a < box.size(); ++a)
    if (!(box[a] >> choice[a] & 1)) return false;
  return true;
}

std::optional<Box> intersection(const Box& a, const Box& b) {
  Box both(a.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(both[i] = a[i] & b[i])) return {};
  return both;
}

PlanSearch::PlanSearch(std::vector<SuiteAxis> axes, Judge judge, int tries)
    : axes_(std::move(axes)),
      judge_(std::move(judge)),
      tries_(tries),
      choice_(axes_.size()),
      order_(axes_.size()) {}

Box PlanSearch::everything() const {
  Box box;
  for (const SuiteAxis& axis : axes_) box.push_back(~std::uint64_t{0} >> (64 - axis.values.size()));
  return box;
}

Plan PlanSearch::plan(const Choice& choice) const {
  Plan plan = Plan::parse("");
  for (std::size_t a = 0; a < axes_.size(); ++a) plan.set(axes_[a].word, axes_[a].values[choice[a]]);
  return plan;
}

std::optional<Choice> PlanSearch::find(const Box& box, Dice* dice) {
  std::iota(order_.begin(), order_.end(), 0);
  if (dice)
    dice->shuffle(order_);
  else  // what is all but decided first
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int a, int b) { return std::popcount(box[a]) < std::popcount(box[b]); });
  chosen_ = 0;
  left_ = tries_, gave_up_ = false;
  AxisSet blamed = 0;
  if (descend(0, box, dice, blamed)) return choice_;
  return {};
}

// Completes choice_ from this depth on. If that cannot be done, `blamed` are axes before it whose values rule
// out every completion.
bool PlanSearch::descend(std::size_t depth, const Box& box, Dice* dice, AxisSet& blamed) {
  if (depth == axes_.size()) {
    const std::optional<AxisSet> refused = judge();
    if (refused) blamed = *refused;
    return !refused;
  }
  const int axis = order_[depth];
  const AxisSet self = AxisSet{1} << axis;
  std::vector<int> values;
  for (int v = 0; v < static_cast<int>(axes_[axis].values.size()); ++v)
    if (box[axis] >> v & 1) values.push_back(v);
  if (dice) dice->shuffle(values);

  blamed = 0;
  chosen_ |= self;
  for (const int v : values) {
    choice_[axis] = v;
    AxisSet why = 0;
    if (const auto lesson = forbidden(axis))
      why = *lesson;
    else if (descend(depth + 1, box, dice, why))
      return true;
    blamed |= why & ~self;
    if (gave_up_ || !(why & self)) {  // another value of this axis would not help
      blamed = why;
      break;
    }
  }
  chosen_ &= ~self;
  return false;
}

// The axes of a lesson that the value just chosen for this axis completes.
std::optional<PlanSearch::AxisSet> PlanSearch::forbidden(int axis) const {
  for (const auto& [axes, known] : lessons_)
    if ((axes >> axis & 1) && !(axes & ~chosen_) && known.count(values_of(axes))) return axes;
  return {};
}

Choice PlanSearch::values_of(AxisSet axes) const {
  Choice values;
  for (; axes; axes &= axes - 1) values.push_back(choice_[std::countr_zero(axes)]);
  return values;
}

// Asks about the complete choice: nothing if it is legal, or the axes to blame.
std::optional<PlanSearch::AxisSet> PlanSearch::judge() {
  if (excluded_.count(choice_)) return ~AxisSet{0};
  if (left_-- == 0) {
    gave_up_ = true;
    return 0;
  }
  if (const auto refusal = judge_(plan(choice_))) return learn(*refusal);
  return {};
}

PlanSearch::AxisSet PlanSearch::learn(const Refusal& refusal) {
  AxisSet axes = 0;
  for (std::size_t a = 0; a < axes_.size(); ++a)
    if (std::find(refusal.words.begin(), refusal.words.end(), axes_[a].word) != refusal.words.end())
      axes |= AxisSet{1} << a;
  lessons_[axes].insert(values_of(axes));
  return axes;
}

}  // namespace lockstep
