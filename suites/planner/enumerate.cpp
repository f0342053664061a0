#include "suites/planner/enumerate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "parallel/roles.hpp"
#include "ref/error.hpp"
#include "suites/planner/legality.hpp"

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
std::vector<i64> united(const std::vector<i64>& a, const std::vector<i64>& b) {
  std::vector<i64> all;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
  return all;
}

std::vector<std::string> texts(const std::vector<i64>& numbers) {
  std::vector<std::string> list;
  for (const i64 n : numbers) list.push_back(std::to_string(n));
  return list;
}

// dp follows from tp, pp and cp; words with few meanings alone come last, and last of all those of schedules:
// plans that differ in nothing else share the most.
int turn(const std::string& word) {
  if (word == "tp" || word == "pp" || word == "cp") return 0;
  if (word == "dp") return 1;
  if (word == "micro") return 2;
  const auto& schedules = strategies<Schedule>();
  const bool schedule = std::any_of(schedules.begin(), schedules.end(), [&](const auto* s) {
    return std::any_of(s->words.begin(), s->words.end(), [&](const Word& w) { return w.name == word; });
  });
  return schedule ? 4 : 3;
}

std::vector<std::string> in_turn(const Values& values) {
  std::vector<std::string> words;
  for (const Word& word : plan_words())
    if (!values.at(word.name).empty()) words.push_back(word.name);
  std::stable_sort(words.begin(), words.end(),
                   [](const auto& a, const auto& b) { return turn(a) < turn(b); });
  return words;
}

std::vector<std::vector<std::string>> of_words(const Values& values, const std::vector<std::string>& words) {
  std::vector<std::vector<std::string>> lists;
  for (const std::string& word : words) lists.push_back(values.at(word));
  return lists;
}

class Walk {
 public:
  Walk(const ModelConfig& model, const Settings& settings, i64 devices, const Values& values,
       const VisitPlan& visit, const VisitShare& share)
      : model_(model),
        settings_(settings),
        devices_(devices),
        visit_(visit),
        share_(share),
        shared_heads_(values.shared_heads),
        node_(values.node),
        words_(in_turn(values)),
        values_(of_words(values, words_)),
        legality_(model, settings, words_, values_),
        below_(words_.size() + 1, 1),
        counts_(words_.size()) {
    for (const std::string& word : words_) turns_.push_back(turn(word)), bits_.push_back(word_bit(word));
    behind_.resize(words_.size() + 1);
    for (std::size_t d = words_.size(); d-- > 0;) {
      below_[d] = below_[d + 1] * (turns_[d] < 3 ? 1 : static_cast<i64>(values_[d].size()));
      behind_[d] = behind_[d + 1] | bits_[d];
      counts_[d].resize(values_[d].size());
    }
  }

  Enumerated run() {
    result_.legal = descend(0, 0, 1);
    result_.combinations += result_.legal;
    for (std::size_t rule = 0; rule < refused_.size(); ++rule)
      if (refused_[rule]) result_.refused[legality_.rules()[rule]] = refused_[rule];
    for (std::size_t d = 0; d < words_.size(); ++d)
      for (std::size_t v = 0; v < values_[d].size(); ++v)
        if (counts_[d][v]) result_.axes[words_[d]][values_[d][v]] += counts_[d][v];
    return std::move(result_);
  }

 private:
  void explain() {
    if (const auto refusal = refuse_anywhere(legality_.plan(), model_, settings_))
      result_.why.emplace(refusal->rule, refusal->why);
  }

  i64 groups() { return legality_.plan().number("replicas"); }
  // Groups that nobody gave are of whole nodes: of one, as most have them, and from there every second number
  // of them, since those between were as good to within half a percent where tried. Pipelines, which gather
  // for each microbatch anew, were not seen to win with them.
  bool is_group(i64 replicas) {
    if (node_ == 0) return true;
    const i64 devices = mesh_["dp"] * mesh_["tp"] * mesh_["cp"], nodes = devices / node_;
    if (mesh_["pp"] > 1 || devices % node_ != 0 || nodes % replicas != 0) return false;
    const std::vector<i64> all = divisors(nodes);
    return (all.end() - std::find(all.begin(), all.end(), replicas)) % 2 == 1;
  }

  // Whether the word at this depth may have the value, given those before it.
  bool allowed(std::size_t depth, const std::string& value) {
    const std::string& word = words_[depth];
    if (word == "replicas") return value == "1" || is_group(std::stoll(value));
    if (word == "zero") return node_ == 0 || value == "3" || groups() == 1;
    if (turns_[depth] > 2) return true;
    const i64 number = std::stoll(value);
    if (word == "micro") return settings_.batch / mesh_.at("dp") % number == 0;
    const i64 rest = devices_ / mesh_["tp"] / mesh_["pp"] / mesh_["cp"];
    const bool apart = word != "cp" || number == 1 || model_.kv_heads % (mesh_["tp"] * number) == 0;
    return word == "dp" ? number == rest : rest % number == 0 && (apart || shared_heads_);
  }

  // The plans below this depth, which are the part [from, to) of all; how many are legal.
  i64 descend(std::size_t depth, double from, double to) {
    if (depth > 0 && turns_[depth - 1] > 0) {
      const Legality::Verdict verdict = legality_.verdict(depth - 1);
      if (verdict.rule >= 0) {
        if (!(verdict.blamed & behind_[depth])) {  // no word still open could help
          refused_.resize(legality_.rules().size());
          i64& refused = refused_[static_cast<std::size_t>(verdict.rule)];
          if (refused == 0) explain();
          refused += below_[depth];
          result_.combinations += below_[depth];
          return 0;
        }
      } else if (depth == words_.size()) {
        visit_(legality_.plan());
        return 1;
      }
    }
    const bool mesh = turns_[depth] < 3;
    if (mesh) mesh_[words_[depth]] = 1;
    std::vector<int> list;
    for (std::size_t v = 0; v < values_[depth].size(); ++v)
      if (allowed(depth, values_[depth][v])) list.push_back(static_cast<int>(v));
    i64 legal = 0;
    const double step = (to - from) / static_cast<double>(list.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      const int v = list[i];
      if (mesh) {
        if (share_) share_(from + static_cast<double>(i) * step);
        mesh_[words_[depth]] = std::stoll(values_[depth][static_cast<std::size_t>(v)]);
      }
      legality_.set(depth, v);
      const double at = from + static_cast<double>(i) * step;
      const i64 n = descend(depth + 1, at, at + step);
      counts_[depth][static_cast<std::size_t>(v)] += n, legal += n;
    }
    if (mesh) mesh_[words_[depth]] = 1;
    return legal;
  }

  const ModelConfig& model_;
  const Settings& settings_;
  const i64 devices_;
  const VisitPlan& visit_;
  const VisitShare& share_;
  const bool shared_heads_;
  const i64 node_;
  const std::vector<std::string> words_;
  const std::vector<std::vector<std::string>> values_;
  Legality legality_;
  std::vector<int> turns_;              // of the words
  std::vector<WordSet> bits_, behind_;  // of the words; of all from a depth on
  std::vector<i64> below_;  // combinations below a depth, as if what does not depend on the words before it
  std::map<std::string, i64> mesh_{{"dp", 1}, {"tp", 1}, {"pp", 1}, {"cp", 1}};
  std::vector<std::vector<i64>> counts_;  // legal plans, by word and value
  std::vector<i64> refused_;              // by rule
  Enumerated result_;
};

bool some_mesh(i64 devices, const Values& values) {
  for (const std::string& tp : values.at("tp"))
    for (const std::string& pp : values.at("pp"))
      for (const std::string& cp : values.at("cp"))
        for (const std::string& dp : values.at("dp"))
          if (std::stoll(tp) * std::stoll(pp) * std::stoll(cp) * std::stoll(dp) == devices) return true;
  return false;
}

}  // namespace

Values plan_values(const ModelConfig& model, const Settings& settings, i64 devices, const Values& given,
                   i64 per_node) {
  Values values;
  values.shared_heads = given.count("cp") > 0;
  const i64 nodes = per_node > 0 ? devices / per_node : 1;
  for (const Word& word : plan_words()) {
    std::vector<std::string>& list = values[word.name];
    if (const auto it = given.find(word.name); it != given.end())
      list = it->second;
    else if (!word.values.empty())
      list = word.values;
    else if (word.name == "dp" || word.name == "tp" || word.name == "pp")
      list = texts(divisors(devices));
    else if (word.name == "cp")
      list = texts(settings.batch < devices || settings.seq >= kLong
                       ? divisors(std::gcd(devices, model.kv_heads))
                       : std::vector<i64>{1});
    else if (word.name == "micro")
      list = texts(divisors(settings.batch));
    else if (word.name == "virtual")
      list = texts(united(divisors(model.layers), divisors(model.layers + 2)));
    else if (word.name == "replicas" && nodes > 1)
      list = texts(divisors(nodes)), values.node = per_node;
    else
      list = {word.fallback};
  }
  return values;
}

void Enumerated::add(const Enumerated& part) {
  legal += part.legal, combinations += part.combinations;
  for (const auto& [rule, plans] : part.refused) refused[rule] += plans;
  why.insert(part.why.begin(), part.why.end());
  for (const auto& [word, values] : part.axes)
    for (const auto& [value, plans] : values) axes[word][value] += plans;
}

std::vector<Values> parts_of(const Values& values, i64 devices) {
  std::vector<Values> parts;
  for (const std::string& tp : values.at("tp"))
    for (const std::string& pp : values.at("pp"))
      for (const std::string& cp : values.at("cp")) {
        if (devices % (std::stoll(tp) * std::stoll(cp) * std::stoll(pp)) != 0) continue;
        Values part = values;
        part["tp"] = {tp}, part["pp"] = {pp}, part["cp"] = {cp};
        parts.push_back(std::move(part));
      }
  return parts;
}

Enumerated each_legal_plan(const ModelConfig& model, const Settings& settings, i64 devices,
                           const Values& values, const VisitPlan& visit, const VisitShare& share) {
  return Walk(model, settings, devices, values, visit, share).run();
}

void check_any_legal(const Enumerated& all, const Settings& settings, i64 devices, const Values& values) {
  if (all.legal > 0) return;
  if (!some_mesh(devices, values))
    throw UserError(
        fmt::format("plan: no mesh of these words has {} device{}: dp x tp x pp x cp must be as many",
                    devices, devices == 1 ? "" : "s"));
  if (all.combinations == 0)
    throw UserError(
        fmt::format("plan: no micro of these words divides the sequences of a replica; the batch has {}",
                    settings.batch));
  const auto most = std::max_element(all.refused.begin(), all.refused.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  throw UserError(
      fmt::format("plan: none of {} combinations is legal; {} refused by {}: {}", all.combinations,
                  most->second == all.combinations ? "all are" : fmt::format("{} are", most->second),
                  most->first, all.why.at(most->first)));
}

}  // namespace lockstep
