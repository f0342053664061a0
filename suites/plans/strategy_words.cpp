// The strategies as words of a plan, read from what has registered.
#include <algorithm>

#include "parallel/roles.hpp"
#include "suites/plans/cover.hpp"

namespace lockstep {
namespace {

using Axes = std::vector<SuiteAxis>;

const SuiteAxis* axis_of(const Axes& axes, const std::string& word) {
  const auto at = std::find_if(axes.begin(), axes.end(), [&](const SuiteAxis& a) { return a.word == word; });
  return at == axes.end() ? nullptr : &*at;
}

template <class Role>
std::vector<Word> words_of() {
  std::vector<Word> words;
  for (const Word& word : plan_words())
    for (const auto* s : strategies<Role>())
      if (std::any_of(s->words.begin(), s->words.end(), [&](const Word& w) { return w.name == word.name; })) {
        words.push_back(word);
        break;
      }
  return words;
}

// Of one role; `split`: the axis of the mesh that gives it something to do, or empty.
template <class Role>
void add(const std::string& split, const Axes& axes, std::vector<StrategyWords>& list) {
  StrategyWords plain{{}, split, {}};
  for (const Word& word : words_of<Role>()) {
    const SuiteAxis* axis = axis_of(axes, word.name);
    if (!axis) continue;
    plain.words.emplace_back(word.name, word.fallback);
    for (const std::string& value : axis->values)
      if (value != word.fallback) list.push_back({word.name + "=" + value, split, {{word.name, value}}});
  }
  if (split.empty()) return;
  Plan plan = Plan::parse("");
  plan.set(split, "2");
  plain.name = chosen<Role>(plan).name;
  list.push_back(plain);
}

}  // namespace

std::vector<StrategyWords> strategies_within(const Axes& axes) {
  std::vector<StrategyWords> list;
  add<Seam>("tp", axes, list);
  if (axis_of(axes, "cp")) add<Spread>("cp", axes, list);
  add<Schedule>("pp", axes, list);
  add<Store>("dp", axes, list);
  add<Home>("", axes, list);
  add<Stash>("", axes, list);
  add<Shelf>("", axes, list);
  return list;
}

}  // namespace lockstep
