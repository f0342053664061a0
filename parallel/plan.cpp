#include "parallel/plan.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <sstream>

#include "parallel/roles.hpp"
#include "parallel/strategy_error.hpp"
#include "parallel/word_limit.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

const std::vector<Word>& mesh_words() {
  static const std::vector<Word> words = {
      {"dp", "1", {}, "data-parallel replicas"},
      {"tp", "1", {}, "tensor-parallel ranks a layer is split across"},
      {"pp", "1", {}, "pipeline stages"},
      {"cp", "1", {}, "context-parallel ranks a sequence is split across"},
      {"micro", "1", {}, "sequences in a microbatch of one replica"},
      {"replicas", "1", {}, "groups of dp ranks; ZeRO shards within each group (hybrid sharding)"},
  };
  return words;
}

// In a function, because strategies declare words from other files' static constructors.
std::vector<Word>& all_words() {
  static std::vector<Word> words = mesh_words();
  return words;
}

[[noreturn]] void throw_unlisted(const std::string& word) {
  throw StrategyError(fmt::format("strategies: one asks for the word `{}`, and none lists it", word));
}

// Levenshtein distance: how many letters to change, insert or leave out.
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t corner = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j)
      corner = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, corner + (a[i - 1] != b[j - 1])}));
  }
  return row.back();
}

}  // namespace

std::string did_you_mean(const std::string& wrong, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  std::size_t fewest = 0;
  const std::size_t dashes = std::min(wrong.size(), wrong.find_first_not_of('-'));  // of an option
  for (const std::string& name : known) {
    const bool begins = wrong.size() > 1 && name.starts_with(wrong);
    const std::size_t letters = begins ? 0 : distance(wrong, name);
    const bool near = begins || (letters <= (wrong.size() - dashes + 1) / 2 &&
                                 letters < std::max(wrong.size(), name.size()));
    if (near && (!best || letters < fewest)) best = &name, fewest = letters;
  }
  return best ? fmt::format("; did you mean `{}`?", *best) : "";
}

void declare_word(const Word& word) {
  std::vector<Word>& all = all_words();
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(mesh_words().size());
  const auto at = std::lower_bound(first, all.end(), word.name,
                                   [](const Word& w, const std::string& name) { return w.name < name; });
  if (at == all.end() || at->name != word.name) {
    all.insert(at, word);
    return;
  }
  for (const std::string& v : word.values)
    if (std::find(at->values.begin(), at->values.end(), v) == at->values.end()) at->values.push_back(v);
  std::sort(at->values.begin(), at->values.end());
}

const std::vector<Word>& plan_words() { return all_words(); }

WordSet word_bit(const std::string& name) {
  const std::vector<Word>& words = plan_words();
  const auto at = std::find_if(words.begin(), words.end(), [&](const Word& w) { return w.name == name; });
  if (at == words.end()) throw_unlisted(name);
  return WordSet{1} << (at - words.begin());
}

void Plan::set(const std::string& name, const std::string& value) {
  const std::vector<Word>& words = plan_words();
  const auto word = std::find_if(words.begin(), words.end(), [&](const Word& w) { return w.name == name; });
  if (word == words.end()) {
    std::vector<std::string> names;
    for (const Word& w : words) names.push_back(w.name);
    throw UserError(fmt::format("plan: no word `{}`{}", name, did_you_mean(name, names)));
  }
  if (word->values.empty()) {
    const bool digits =
        !value.empty() && value.size() < 7 && std::all_of(value.begin(), value.end(), ::isdigit);
    if (!digits || std::stoi(value) < 1)
      throw UserError(
          fmt::format("plan: `{}={}`: {} is a number from 1 to {}", name, value, name, kMostOfAWord));
    words_[name] = std::to_string(std::stoi(value));
  } else {
    if (std::find(word->values.begin(), word->values.end(), value) == word->values.end())
      throw UserError(fmt::format("plan: `{}={}`: {} is one of {}{}", name, value, name,
                                  fmt::join(word->values, ", "), did_you_mean(value, word->values)));
    words_[name] = value;
  }
}

Plan Plan::parse(const std::string& line) {
  Plan plan;
  for (const Word& w : plan_words()) plan.words_[w.name] = w.fallback;
  std::istringstream in(line);
  std::set<std::string> seen;
  for (std::string item; in >> item;) {
    const std::size_t eq = item.find('=');
    if (eq == std::string::npos)
      throw UserError(fmt::format("plan: `{}` should read word=value, such as dp=2", item));
    const std::string name = item.substr(0, eq);
    plan.set(name, item.substr(eq + 1));
    if (!seen.insert(name).second) throw UserError(fmt::format("plan: `{}` is said twice", name));
  }
  return plan;
}

const std::string& Plan::text(const std::string& word) const {
  if (read_) *read_ |= word_bit(word);
  const auto said = words_.find(word);
  if (said == words_.end()) throw_unlisted(word);
  return said->second;
}
int Plan::number(const std::string& word) const { return std::stoi(text(word)); }

int Plan::product(std::initializer_list<const char*> words) const {
  i64 all = 1;
  for (const char* word : words) all = std::min<i64>(all * number(word), std::numeric_limits<int>::max());
  return static_cast<int>(all);
}

const std::map<std::string, std::string>& Plan::words() const {
  if (read_)
    for (const auto& [word, value] : words_) *read_ |= word_bit(word);
  return words_;
}

std::string Plan::line() const {
  std::string out;
  for (const Word& w : plan_words()) {
    const bool mesh = w.name == "dp" || w.name == "tp" || w.name == "pp";
    const std::string& value = text(w.name);
    if (mesh || value != w.fallback) out += (out.empty() ? "" : " ") + w.name + "=" + value;
  }
  return out;
}

Settings in_segments(Settings s, const Plan& p) {
  s.seq /= p.number("cp"), s.batch *= p.number("cp");
  return s;
}

bool matches(const Plan& p, const std::string& parts) {
  std::istringstream in(parts);
  for (std::string part; in >> part;) {
    const auto word = p.words().find(part.substr(0, part.find('=')));
    const std::size_t value = part.find('=') + 1;
    const bool is_word = word != p.words().end() && value > 0 && value < part.size();
    if (is_word ? word->second != part.substr(value) : p.line().find(part) == std::string::npos) return false;
  }
  return true;
}

namespace {

using Broken = std::optional<std::string>;
bool power_of_two(i64 n) { return (n & (n - 1)) == 0; }

const Rule rank_rule = {
    "ranks-at-most-1024", [](const Plan& p, const ModelConfig&, const Settings&) -> Broken {
      if (p.ranks() <= kMaxRanks) return {};
      return fmt::format("dp x tp x pp x cp = {} ranks, but at most {} run", p.ranks(), kMaxRanks);
    }};

const std::vector<Rule> mesh_rules = {
    {"dp-power-of-two",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Broken {
       if (s.fast || power_of_two(p.number("dp"))) return {};
       return fmt::format("exact mode needs dp to be a power of two, not {}", p.number("dp"));
     }},
    {"dp-divides-batch",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Broken {
       if (s.batch % p.number("dp") == 0) return {};
       return fmt::format("dp={} does not divide the batch of {} sequences", p.number("dp"), s.batch);
     }},
    {"micro-divides-batch",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Broken {
       const i64 share = s.batch / p.number("dp");
       if (share % p.number("micro") == 0) return {};
       return fmt::format("micro={} does not divide the {} sequences of a replica", p.number("micro"), share);
     }},
    {"replicas-share",
     [](const Plan& p, const ModelConfig&, const Settings&) -> Broken {
       const int dp = p.sharers(), cp = p.number("cp"), replicas = p.number("replicas");
       if (replicas == 1) return {};
       if (dp % replicas != 0 || replicas == dp)
         return fmt::format("replicas={} cannot cut {} into groups of two ranks or more, all of one size",
                            replicas, cp > 1 ? fmt::format("dp x cp = {}", dp) : fmt::format("dp={}", dp));
       if (replicas % cp != 0 && cp % replicas != 0)
         return fmt::format("replicas={} and cp={}: one must be a multiple of the other", replicas, cp);
       if (chosen<Store>(p).price.sharded) return {};
       return fmt::format("replicas={} are groups whose ranks share, and in this plan nothing is shared",
                          replicas);
     }},
    {"cp-divides-sequence",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Broken {
       if (s.seq % p.number("cp") == 0) return {};
       return fmt::format("cp={} does not divide the sequence of {} tokens", p.number("cp"), s.seq);
     }},
    {"cp-is-segments",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Broken {
       if (s.fast || p.number("cp") == s.segments) return {};
       return fmt::format(
           "cp={0} cuts sequences otherwise than the run's segments={1}: exact mode needs them alike "
           "(--segments {0}, or segments = {0} in a suite)",
           p.number("cp"), s.segments);
     }},
    {"pp-at-most-layers",
     [](const Plan& p, const ModelConfig& m, const Settings&) -> Broken {
       if (p.number("pp") <= m.layers) return {};
       return fmt::format("pp={} stages, but the model has {} layers", p.number("pp"), m.layers);
     }},
};

// The words that a question to the plan looks at.
template <class Ask>
std::vector<std::string> looked_at(Plan plan, const Ask& ask) {
  WordSet read = 0;
  plan.note_reads(&read);
  ask(plan);
  std::vector<std::string> words;
  for (const Word& word : plan_words())
    if (read & word_bit(word.name)) words.push_back(word.name);
  return words;
}

std::optional<Refusal> refusal_by(const Rule& rule, const Plan& p, const ModelConfig& m, const Settings& s) {
  const auto why = rule.broken(p, m, s);
  if (!why) return {};
  return Refusal{rule.name, *why, looked_at(p, [&](const Plan& asked) { rule.broken(asked, m, s); })};
}

template <class Role>
std::optional<Refusal> first_broken(const Plan& p, const ModelConfig& m, const Settings& s) {
  for (const Rule& rule : chosen<Role>(p).rules)
    if (auto why = rule.broken(p, m, s))
      return Refusal{rule.name, *why,
                     looked_at(p, [&](const Plan& asked) { chosen<Role>(asked), rule.broken(asked, m, s); })};
  return {};
}

// To the word; where a value is given, to that value of it.
template <class Role>
bool listens(const Strategy<Role>& s, const std::string& word, const std::string* value = nullptr) {
  return std::any_of(s.words.begin(), s.words.end(), [&](const Word& w) {
    return w.name == word && (!value || w.values.empty() ||
                              std::find(w.values.begin(), w.values.end(), *value) != w.values.end());
  });
}

// Whether the plan's strategy of this role listens to the word's value. A role that does not know it
// is not asked which.
template <class Role>
bool heard(const Plan& p, const std::string& word) {
  const auto& all = strategies<Role>();
  const bool known = std::any_of(all.begin(), all.end(), [&](const auto* s) { return listens(*s, word); });
  return known && listens(chosen<Role>(p), word, &p.text(word));
}

bool heard_by_any(const Plan& p, const std::string& word) {
  return heard<Seam>(p, word) || heard<Spread>(p, word) || heard<Schedule>(p, word) ||
         heard<Store>(p, word) || heard<Home>(p, word) || heard<Stash>(p, word) || heard<Shelf>(p, word);
}

// A word that nobody chosen listens to would promise something that does not happen.
std::optional<Refusal> without_effect(const Word& w, const Plan& p) {
  if (p.text(w.name) == w.fallback || heard_by_any(p, w.name)) return {};
  Plan said = p;
  said.note_reads(nullptr);  // the sentence names words that the verdict does not depend on
  return Refusal{"word-without-effect",
                 fmt::format("{}={} has no effect in `{}`: {}", w.name, p.text(w.name), said.line(), w.help),
                 looked_at(p, [&](const Plan& asked) { asked.text(w.name), heard_by_any(asked, w.name); })};
}

std::vector<Check> all_checks() {
  std::vector<Check> checks;
  for (const Rule& rule : mesh_rules)
    checks.push_back([&rule](const Plan& p, const ModelConfig& m, const Settings& s) {
      return refusal_by(rule, p, m, s);
    });
  checks.insert(checks.end(),
                {first_broken<Seam>, first_broken<Spread>, first_broken<Schedule>, first_broken<Store>,
                 first_broken<Home>, first_broken<Stash>, first_broken<Shelf>});
  for (const Word& w : plan_words()) {
    const bool mesh = std::any_of(mesh_words().begin(), mesh_words().end(),
                                  [&](const Word& m) { return m.name == w.name; });
    if (!mesh)
      checks.push_back(
          [&w](const Plan& p, const ModelConfig&, const Settings&) { return without_effect(w, p); });
  }
  checks.push_back([](const Plan& p, const ModelConfig& m, const Settings& s) -> std::optional<Refusal> {
    const char* why = scatters(p, m, s);
    if (!why) return {};
    return Refusal{
        "arena-scattered",
        std::string(why) + ": they scatter each other, and no arena within 1.05 of the live bytes is known",
        looked_at(p, [&](const Plan& asked) { scatters(asked, m, s); })};
  });
  return checks;
}

}  // namespace

std::optional<Refusal> refuse(const Plan& p, const ModelConfig& m, const Settings& s) {
  if (auto r = refusal_by(rank_rule, p, m, s)) return r;
  return refuse_anywhere(p, m, s);
}

const std::vector<Check>& checks_anywhere() {
  static const std::vector<Check> checks = all_checks();
  return checks;
}

std::optional<Refusal> refuse_anywhere(const Plan& p, const ModelConfig& m, const Settings& s) {
  for (const Check& check : checks_anywhere())
    if (auto refusal = check(p, m, s)) return refusal;
  return {};
}

}  // namespace lockstep
