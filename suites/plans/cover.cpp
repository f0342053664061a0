#include "suites/plans/cover.hpp"

#include <algorithm>

namespace lockstep {
namespace {

struct Goal {
  Box box;
  int count;  // index into CoveringArray::counts
};

// The values of one axis that pass a test, the other axes free; nothing if none passes.
template <class Pass>
std::optional<Box> where(const PlanSearch& search, const std::string& word, const Pass& pass) {
  Box box = search.everything();
  for (std::size_t a = 0; a < box.size(); ++a) {
    const SuiteAxis& axis = search.axes()[a];
    if (axis.word != word) continue;
    box[a] = 0;
    for (std::size_t v = 0; v < axis.values.size(); ++v)
      if (pass(axis.values[v])) box[a] |= std::uint64_t{1} << v;
    if (box[a]) return box;
  }
  return {};
}
std::optional<Box> wider_than(const PlanSearch& search, const std::string& word, int width) {
  return where(search, word, [&](const std::string& value) { return std::stoi(value) > width; });
}
std::optional<Box> with_value(const PlanSearch& search, const std::string& word, const std::string& value) {
  return where(search, word, [&](const std::string& v) { return v == value; });
}
void narrow(std::optional<Box>& box, const std::optional<Box>& to) {
  box = box && to ? intersection(*box, *to) : std::nullopt;
}

std::vector<Box> pairs_of_values(const PlanSearch& search) {
  std::vector<Box> boxes;
  const Box all = search.everything();
  for (std::size_t a = 0; a < all.size(); ++a)
    for (std::size_t b = a + 1; b < all.size(); ++b)
      for (std::size_t v = 0; v < search.axes()[a].values.size(); ++v)
        for (std::size_t w = 0; w < search.axes()[b].values.size(); ++w) {
          boxes.push_back(all);
          boxes.back()[a] = std::uint64_t{1} << v, boxes.back()[b] = std::uint64_t{1} << w;
        }
  return boxes;
}

std::vector<Box> each_strategy(const PlanSearch& search) {
  std::vector<Box> boxes;
  for (const StrategyWords& s : strategies_within(search.axes())) {
    std::optional<Box> box = search.everything();
    if (!s.split.empty()) narrow(box, wider_than(search, s.split, 1));
    for (const auto& [word, value] : s.words) narrow(box, with_value(search, word, value));
    if (box) boxes.push_back(*box);
  }
  return boxes;
}

// Of k boxes each, what lies in all of them; two values of one word exclude each other.
std::vector<Box> together(const std::vector<Box>& boxes, int k, const Box& within, std::size_t from = 0) {
  if (k == 0) return {within};
  std::vector<Box> all;
  for (std::size_t i = from; i < boxes.size(); ++i)
    if (const auto both = intersection(within, boxes[i])) {
      const std::vector<Box> more = together(boxes, k - 1, *both, i + 1);
      all.insert(all.end(), more.begin(), more.end());
    }
  return all;
}

// Each strategy on a mesh that is 4 wide on one axis and split on the two others.
std::vector<Box> wide_meshes(const PlanSearch& search) {
  std::vector<Box> boxes;
  for (const char* wide : {"dp", "tp", "pp"}) {
    std::optional<Box> box = search.everything();
    for (const char* axis : {"dp", "tp", "pp"})
      narrow(box, axis == wide ? with_value(search, axis, "4") : wider_than(search, axis, 1));
    if (!box) continue;
    const std::vector<Box> with = together(each_strategy(search), 1, *box);
    boxes.insert(boxes.end(), with.begin(), with.end());
  }
  return boxes;
}

// Which triples of axis values the chosen plans show.
class Triples {
 public:
  explicit Triples(const std::vector<SuiteAxis>& axes) {
    for (const SuiteAxis& axis : axes) first_.push_back(values_), values_ += axis.values.size();
    seen_.resize(values_ * values_ * values_);
  }
  int fresh(const Choice& c) const {
    int count = 0;
    each(c, [&](std::size_t triple) { count += !seen_[triple]; });
    return count;
  }
  void add(const Choice& c) {
    each(c, [&](std::size_t triple) { seen_[triple] = true; });
  }

 private:
  template <class Visit>
  void each(const Choice& c, const Visit& visit) const {
    for (std::size_t i = 0; i < c.size(); ++i)
      for (std::size_t j = i + 1; j < c.size(); ++j)
        for (std::size_t k = j + 1; k < c.size(); ++k)
          visit((value(c, i) * values_ + value(c, j)) * values_ + value(c, k));
  }
  std::size_t value(const Choice& c, std::size_t axis) const { return first_[axis] + c[axis]; }

  std::size_t values_ = 0;  // of all axes
  std::vector<std::size_t> first_;
  std::vector<bool> seen_;
};

class Cover {
 public:
  Cover(const CoverOrder& order, const PlanSearch::Judge& judge)
      : order_(order), search_(order.axes, judge, order.tries), dice_(order.seed), triples_(order.axes) {}

  CoveringArray build() {
    const std::vector<Box> strategy = each_strategy(search_);
    keep_possible("triples of strategies", together(strategy, 3, search_.everything()));
    keep_possible("strategies on wide meshes", wide_meshes(search_));
    keep_possible("pairs of strategies", together(strategy, 2, search_.everything()));
    keep_possible("pairs of values", pairs_of_values(search_));
    dice_.shuffle(open_);
    while (!open_.empty()) choose(next());
    result_.needed = static_cast<int>(result_.plans.size());
    while (static_cast<int>(result_.plans.size()) < order_.plans)
      if (const auto more = freshest())
        choose(*more);
      else
        break;  // there are no more legal plans
    return std::move(result_);
  }

 private:
  // A goal is possible if a legal plan meets it. Plans found on the way answer for many goals at once.
  void keep_possible(const std::string& what, const std::vector<Box>& boxes) {
    const int count = static_cast<int>(result_.counts.size());
    result_.counts.push_back({what});
    for (const Box& box : boxes) {
      bool possible =
          std::any_of(known_.begin(), known_.end(), [&](const Choice& c) { return inside(c, box); });
      if (!possible)
        if (const auto found = search_.find(box)) known_.push_back(*found), possible = true;
      if (possible)
        open_.push_back({box, count}), ++result_.counts[count].legal;
      else if (search_.gave_up())
        ++result_.counts[count].undecided;
    }
  }

  // A plan that meets the first open goal and, one after another, each further one that still fits.
  Choice next() {
    Box box = search_.everything();
    Choice plan = *std::find_if(known_.begin(), known_.end(),
                                [&](const Choice& c) { return inside(c, open_.front().box); });
    for (const Goal& goal : open_)
      if (const auto narrower = intersection(box, goal.box)) {
        if (!inside(plan, *narrower)) {
          const auto found = search_.find(*narrower);
          if (!found) continue;
          plan = *found;
        }
        box = *narrower;
      }
    return plan;
  }

  // Of some random legal plans not yet chosen, the one with most triples not yet seen.
  std::optional<Choice> freshest() {
    constexpr int kCandidates = 32;
    std::optional<Choice> best;
    int most = -1;
    for (int i = 0; i < kCandidates; ++i) {
      const auto plan = search_.find(search_.everything(), &dice_);
      if (!plan) break;
      if (const int fresh = triples_.fresh(*plan); fresh > most) most = fresh, best = plan;
    }
    return best;
  }

  void choose(const Choice& plan) {
    std::erase_if(open_, [&](const Goal& goal) {
      const bool met = inside(plan, goal.box);
      if (met) ++result_.counts[goal.count].covered;
      return met;
    });
    triples_.add(plan);
    search_.exclude(plan);
    result_.plans.push_back(search_.plan(plan));
  }

  const CoverOrder& order_;
  PlanSearch search_;
  Dice dice_;
  Triples triples_;
  std::vector<Choice> known_;  // legal plans
  std::vector<Goal> open_;     // legal and not yet covered
  CoveringArray result_;
};

}  // namespace

CoveringArray covering_array(const CoverOrder& order, const PlanSearch::Judge& judge) {
  return Cover(order, judge).build();
}

}  // namespace lockstep
