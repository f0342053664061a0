#include "suites/planner/planner.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <set>
#include <sstream>

#include "ref/error.hpp"
#include "suites/planner/pipeline.hpp"

namespace lockstep {

namespace {

const std::string kHangs = "hangs";  // the rule's name

bool before(const Weighed& a, const Weighed& b) {
  return std::pair{a.seconds, a.place} < std::pair{b.seconds, b.place};
}

// The answers so far. A plan that takes so many seconds at least may still be one of them, or not.
class Best {
 public:
  Best(const Values& values, const Wanted& wanted, Choices& out) : wanted_(wanted), out_(out) {
    for (const auto& [word, list] : values)
      if (wanted.by_value && list.size() > 1) words_.push_back(word);
  }

  bool may_be(const Plan& plan, const Weighed& at_least) const {
    const double seconds = at_least.seconds * (1 - 1e-9);
    if (top_.size() < wanted_.top || seconds < top_.rbegin()->first) return true;
    if (seconds <= top_.begin()->first * (1 + wanted_.within)) return true;
    for (const std::string& word : words_) {
      const auto best = out_.best.find(word);
      if (best == out_.best.end()) return true;
      const auto of = best->second.find(plan.text(word));
      if (of == best->second.end() || seconds < of->second.seconds) return true;
    }
    // Those that are both faster and smaller end before it.
    if (!wanted_.pareto) return false;
    const auto faster = front_.upper_bound(seconds);
    return faster == front_.begin() || std::prev(faster)->second > at_least.needs[0];
  }

  void add(const Plan& plan, const Weighed& w) {
    top_.insert(w.foretold());
    if (top_.size() > wanted_.top) top_.erase(std::prev(top_.end()));
    for (const std::string& word : words_) {
      const auto [it, fresh] = out_.best[word].try_emplace(plan.text(word), w);
      if (!fresh && before(w, it->second)) it->second = w;
    }
    out_.fit.push_back(w);
    if (!wanted_.pareto) return;
    auto at = front_.upper_bound(w.seconds);
    if (at != front_.begin() && std::prev(at)->second <= w.needs[0]) return;
    while (at != front_.end() && at->second >= w.needs[0]) at = front_.erase(at);
    front_[w.seconds] = w.needs[0];
  }

 private:
  const Wanted& wanted_;
  Choices& out_;
  std::vector<std::string> words_;   // that have several values
  std::set<Weighed::Foretold> top_;  // of the fastest
  std::map<double, double> front_;   // bytes by seconds: the more seconds, the fewer bytes
};

// Walks over the plans. Those of a mesh and microbatch share their pieces: before these change, what fits is
// simulated, the most promising first, until the rest cannot be among the answers.
class Chooser {
 public:
  Chooser(const ModelConfig& model, const Settings& settings, const Cluster& cluster, const Values& values,
          const Wanted& wanted)
      : cluster_(cluster),
        wanted_(wanted),
        composer_(model, settings, cluster),
        best_(values, wanted, out_) {}

  void look_at(const Plan& plan) {
    std::array<std::string, 4> group;
    for (std::size_t i = 0; i < group.size(); ++i) group[i] = plan.text(kGroup[i]);
    if (group != group_) settle(), group_ = group;
    const auto [needs, seconds] =
        composer_.outlook(plan, out_.misfits ? out_.least : std::numeric_limits<double>::infinity());
    Weighed w{"", seconds, needs, place_++};
    if (const double lack = lacks(w.needs, has(cluster_)); lack > 0) {
      if (++out_.misfits == 1 || lack < out_.least)
        w.plan = plan.line(), w.seconds = 0, out_.closest = w, out_.least = lack;
      out_.most = std::max(out_.most, lack);
      return;
    }
    ++out_.fitting;
    if (!best_.may_be(plan, w) || (wanted_.usable && !wanted_.usable(plan))) return;
    w.seconds = std::max(w.seconds, composer_.seconds_at_least(plan));
    if (best_.may_be(plan, w)) waiting_.emplace_back(plan, w);
  }

  Choices finish() {
    settle();
    std::sort(out_.fit.begin(), out_.fit.end(), before);
    return std::move(out_);
  }

 private:
  void settle() {
    std::sort(waiting_.begin(), waiting_.end(),
              [](const auto& a, const auto& b) { return before(a.second, b.second); });
    for (auto& [plan, w] : waiting_) {
      if (!best_.may_be(plan, w)) continue;
      try {
        w.seconds = composer_.weigh(plan).seconds;
      } catch (const Hangs& e) {
        refuse_hanging(plan, e.what());
        continue;
      }
      w.plan = plan.line();
      best_.add(plan, w);
    }
    waiting_.clear();
  }

  // It was counted as a legal one that fits: what it weighs is known before what it does.
  void refuse_hanging(const Plan& plan, const std::string& why) {
    --out_.fitting;
    ++out_.walked.refused[kHangs], out_.walked.why.try_emplace(kHangs, why);
    for (const auto& [word, value] : plan.words()) ++out_.walked.axes[word][value];
  }

  const Cluster& cluster_;
  const Wanted& wanted_;
  Composer composer_;
  Choices out_;
  Best best_;
  static constexpr const char* kGroup[] = {"dp", "tp", "pp", "micro"};  // cp follows
  std::array<std::string, 4> group_{};                                  // what is waiting is of
  i64 place_ = 0;
  std::vector<std::pair<Plan, Weighed>> waiting_;  // they fit; seconds at least
};

// What was walked over, with these of the legal plans refused after all.
Enumerated without(Enumerated walked, const Enumerated& refused) {
  for (const auto& [rule, plans] : refused.refused) walked.legal -= plans, walked.refused[rule] += plans;
  walked.why.insert(refused.why.begin(), refused.why.end());
  for (auto& [word, values] : walked.axes)
    for (auto& [value, plans] : values)
      if (const auto of = refused.axes.find(word); of != refused.axes.end() && of->second.count(value))
        plans -= of->second.at(value);
  return walked;
}

}  // namespace

Choices choose(const ModelConfig& model, const Settings& settings, const Cluster& cluster,
               const Values& given, const Wanted& wanted) {
  const auto start = std::chrono::steady_clock::now();
  const Values values = plan_values(model, settings, cluster.devices, given, cluster.per_node);
  Chooser chooser(model, settings, cluster, values, wanted);
  const Enumerated walked = each_legal_plan(
      model, settings, cluster.devices, values, [&](const Plan& plan) { chooser.look_at(plan); },
      wanted.share);
  Choices all = chooser.finish();
  all.walked = without(walked, all.walked);
  all.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return all;
}

std::vector<const Weighed*> distinct(const Choices& c) {
  std::vector<const Weighed*> list;
  std::set<Weighed::Foretold> known;
  for (const Weighed& w : c.fit)
    if (known.insert(w.foretold()).second) list.push_back(&w);
  return list;
}

Values parse_values(const std::string& text) {
  Values values;
  Plan probe = Plan::parse("");
  std::istringstream in(text);
  for (std::string item; in >> item;) {
    const std::size_t eq = item.find('=');
    if (eq == std::string::npos)
      throw UserError("words: `" + item + "` should read word=value,value, such as zero=0,1");
    const std::string word = item.substr(0, eq);
    std::istringstream list(item.substr(eq + 1));
    for (std::string value; std::getline(list, value, ',');) {
      probe.set(word, value);
      values[word].push_back(probe.text(word));
    }
    if (values[word].empty()) throw UserError("words: `" + item + "` names no value");
  }
  return values;
}

Plan fastest_here(const ModelConfig& model, const Settings& settings, const Cluster& cluster) {
  Wanted wanted;
  wanted.top = 1, wanted.by_value = false;
  wanted.usable = [&](const Plan& plan) { return !refuse(plan, model, settings); };
  Values given = parse_values("to=host activations=device,host");
  if (!settings.fast) given["cp"] = {std::to_string(settings.segments)};  // no other is usable
  const Choices c = choose(model, settings_on(cluster, settings), cluster, given, wanted);
  if (!c.fit.empty()) return Plan::parse(c.fit.front().plan);
  check_any_legal(c.walked, settings, cluster.devices,
                  plan_values(model, settings, cluster.devices, given, cluster.per_node));
  throw UserError("plan=auto: none of " + std::to_string(c.walked.legal) + " plans fits " + cluster.name);
}

double model_flops(const ModelConfig& m, const Settings& s) {
  const double D = static_cast<double>(m.hidden), L = static_cast<double>(m.layers);
  const double heads = static_cast<double>(m.heads * m.head_dim),
               kv = static_cast<double>(m.kv_heads * m.head_dim);
  const double layer = D * (2 * heads + 2 * kv) + 3 * D * static_cast<double>(m.intermediate);
  const double weights = L * layer + D * static_cast<double>(m.vocab);
  const double tokens = static_cast<double>(s.batch * s.seq);
  return tokens * (6 * weights + 6 * L * heads * static_cast<double>(s.seq));
}

}  // namespace lockstep
