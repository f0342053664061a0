#include "suites/planner/enumerate.hpp"

#include <algorithm>

#include "parallel/roles.hpp"

namespace lockstep {
namespace {

std::vector<i64> divisors(i64 n) {
  std::vector<i64> all;
  for (i64 d = 1; d * d <= n; ++d)
    if (n % d == 0) {
      all.push_back(d);
      if (d * d < n) all.push_back(n / d);
    }
  std::sort(all.begin(), all.end());
  return all;
}

std::vector<std::string> texts(const std::vector<i64>& numbers) {
  std::vector<std::string> list;
  for (const i64 n : numbers) list.push_back(std::to_string(n));
  return list;
}

class Walk {
 public:
  Walk(const ModelConfig& model, const Settings& settings, i64 devices, const Values& values,
       const std::function<void(const Plan&)>& visit)
      : model_(model), settings_(settings), devices_(devices), values_(values), visit_(visit) {
    for (const Word& word : plan_words())
      if (!values_.at(word.name).empty()) open_.push_back(word.name);
    // dp follows from tp and pp; words with few meanings alone come last.
    std::stable_sort(open_.begin(), open_.end(),
                     [&](const auto& a, const auto& b) { return turn(a) < turn(b); });
  }

  Enumerated run() {
    descend(0);
    return std::move(result_);
  }

 private:
  static int turn(const std::string& word) {
    if (word == "tp" || word == "pp") return 0;
    if (word == "dp") return 1;
    if (word == "micro") return 2;
    const auto& schedules = strategies<Schedule>();
    const bool schedule = std::any_of(schedules.begin(), schedules.end(), [&](const auto* s) {
      return std::any_of(s->words.begin(), s->words.end(), [&](const Word& w) { return w.name == word; });
    });
    return schedule ? 4 : 3;  // last: what differs in its schedule alone shares the most
  }

  // Of the word at this depth, given those before it.
  std::vector<std::string> allowed(const std::string& word) const {
    std::vector<std::string> list;
    const i64 rest = devices_ / plan_.number("tp") / (word == "pp" ? 1 : plan_.number("pp"));
    for (const std::string& value : values_.at(word)) {
      if (word == "dp" && std::stoll(value) != rest) continue;
      if (word == "pp" && rest % std::stoll(value) != 0) continue;
      if (word == "micro" && settings_.batch / plan_.number("dp") % std::stoll(value) != 0) continue;
      list.push_back(value);
    }
    return list;
  }

  // Combinations below this depth, as if what does not depend on the words before it.
  i64 below(std::size_t depth) const {
    i64 n = 1;
    for (std::size_t d = depth; d < open_.size(); ++d)
      n *= turn(open_[d]) < 3 ? 1 : static_cast<i64>(values_.at(open_[d]).size());
    return n;
  }

  void descend(std::size_t depth) {
    if (depth > 0 && turn(open_[depth - 1]) > 0) {
      if (const auto refusal = refuse_anywhere(plan_, model_, settings_)) {
        const bool settled = std::none_of(
            open_.begin() + static_cast<std::ptrdiff_t>(depth), open_.end(), [&](const std::string& w) {
              return std::find(refusal->words.begin(), refusal->words.end(), w) != refusal->words.end();
            });
        if (settled) {
          result_.refused[refusal->rule] += below(depth), result_.combinations += below(depth);
          return;
        }
      } else if (depth == open_.size()) {
        return legal();
      }
    }
    const std::string& word = open_[depth];
    for (const std::string& value : allowed(word)) {
      plan_.set(word, value);
      descend(depth + 1);
    }
    plan_.set(word, fallback(word));
  }

  void legal() {
    ++result_.legal, ++result_.combinations;
    for (const std::string& word : open_) ++result_.axes[word][plan_.text(word)];
    visit_(plan_);
  }

  static const std::string& fallback(const std::string& name) {
    for (const Word& word : plan_words())
      if (word.name == name) return word.fallback;
    return name;  // not reached
  }

  const ModelConfig& model_;
  const Settings& settings_;
  const i64 devices_;
  const Values& values_;
  const std::function<void(const Plan&)>& visit_;
  std::vector<std::string> open_;
  Plan plan_ = Plan::parse("");
  Enumerated result_;
};

}  // namespace

Values plan_values(const ModelConfig& model, const Settings& settings, i64 devices, const Values& given) {
  Values values;
  for (const Word& word : plan_words()) {
    std::vector<std::string>& list = values[word.name];
    if (const auto it = given.find(word.name); it != given.end())
      list = it->second;
    else if (!word.values.empty())
      list = word.values;
    else if (word.name == "dp" || word.name == "tp" || word.name == "pp")
      list = texts(divisors(devices));
    else if (word.name == "micro")
      list = texts(divisors(settings.batch));
    else if (word.name == "virtual")
      list = texts(divisors(model.layers));
    else
      list = {word.fallback};
  }
  return values;
}

Enumerated each_legal_plan(const ModelConfig& model, const Settings& settings, i64 devices,
                           const Values& values, const std::function<void(const Plan&)>& visit) {
  return Walk(model, settings, devices, values, visit).run();
}

}  // namespace lockstep
