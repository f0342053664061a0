#include "suites/planner/best.hpp"

#include <iterator>

namespace lockstep {

Best::Best(const Values& values, const Wanted& wanted) : wanted_(wanted) {
  for (const auto& [word, list] : values)
    if (wanted.by_value && list.size() > 1) words_.push_back(word);
}

bool Best::may_be(const Plan& plan, const Weighed& at_least) const {
  const double seconds = at_least.seconds * (1 - 1e-9);
  const std::lock_guard lock(mutex_);
  if (top_.size() < wanted_.top || seconds < top_.rbegin()->first) return true;
  if (seconds <= top_.begin()->first * (1 + wanted_.within)) return true;
  for (const std::string& word : words_) {
    const auto best = by_value_.find(word);
    if (best == by_value_.end()) return true;
    const auto of = best->second.find(plan.text(word));
    if (of == best->second.end() || seconds < of->second.seconds) return true;
  }
  // Those that are both faster and smaller end before it.
  if (!wanted_.pareto) return false;
  const auto faster = front_.upper_bound(seconds);
  return faster == front_.begin() || std::prev(faster)->second > at_least.needs[0];
}

void Best::add(const Plan& plan, const Weighed& w) {
  const std::lock_guard lock(mutex_);
  top_.insert(w.foretold());
  if (top_.size() > wanted_.top) top_.erase(std::prev(top_.end()));
  for (const std::string& word : words_) {
    const auto [it, fresh] = by_value_[word].try_emplace(plan.text(word), w);
    if (!fresh && before(w, it->second)) it->second = w;
  }
  if (!wanted_.pareto) return;
  auto at = front_.upper_bound(w.seconds);
  if (at != front_.begin() && std::prev(at)->second <= w.needs[0]) return;
  while (at != front_.end() && at->second >= w.needs[0]) at = front_.erase(at);
  front_[w.seconds] = w.needs[0];
}

std::map<std::string, std::map<std::string, Weighed>> Best::by_value() const {
  const std::lock_guard lock(mutex_);
  return by_value_;
}

}  // namespace lockstep
