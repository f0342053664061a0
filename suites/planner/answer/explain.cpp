#include "suites/planner/answer/explain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "suites/bytes.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/text_table.hpp"

namespace lockstep {
namespace {

std::string gib(double bytes) {
  return bytes >= 1000 * kGiB ? fmt::format("{:.1f} TiB", bytes / kGiB / 1024)
                              : fmt::format("{:.{}f} GiB", bytes / kGiB, bytes < 0.1 * kGiB ? 3 : 1);
}
std::string grouped(i64 n) {
  std::string text = std::to_string(n);
  for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}
std::string time_text(double seconds) {
  return seconds >= 1 ? fmt::format("{:.2f} s", seconds) : fmt::format("{:.2f} ms", seconds * 1e3);
}

std::string memory_text(const Held& held, const Prediction& p, const Question& q) {
  std::string out = fmt::format("  memory of a rank of stage {} of {}, each kind at its own peak\n",
                                held.stage, p.stages.size());
  for (std::size_t k = 0; k < held.kinds.size(); ++k)
    if (held.kinds[k])
      out += fmt::format("    {:<13}{:>12}\n", kind_name(static_cast<Kind>(k)),
                         gib(static_cast<double>(held.kinds[k])));
  const std::array<double, 3>&need = held.needs, have = has(q.cluster);
  out +=
      fmt::format("    {:<13}{:>12}   at once\n    {:<13}{:>12}   context, communicators, workspace, gaps\n",
                  "together", gib(held.together), "beside it", gib(held.beside));
  for (std::size_t m = 0; m < need.size(); ++m)
    if (need[m] > 0)
      out += fmt::format("    {} of {}: {} needed, {}\n", kMedia[m], gib(have[m]), gib(need[m]),
                         need[m] > have[m] ? "too much by " + gib(need[m] - have[m])
                                           : fmt::format("{:.0f} %", 100 * need[m] / have[m]));
  return out;
}

}  // namespace

double tokens_per_second(const Question& q, double seconds) {
  return static_cast<double>(q.settings.batch * q.settings.seq) / seconds;
}

double of_peak(const Question& q, double seconds) {
  return model_flops(q.model, q.settings) / seconds /
         (static_cast<double>(q.cluster.devices) * q.cluster.flops);
}

Prediction predicted(const std::string& plan, const Question& q) {
  return Composer(q.model, q.settings, q.cluster).predict(Plan::parse(plan));
}

Held held_by(const std::string& line, const Prediction& p, const Question& q) {
  const Plan plan = Plan::parse(line);
  const Mesh mesh = Run{q.model, q.settings, plan}.mesh();
  Held held;
  for (std::size_t s = 0; s < p.stages.size(); ++s)
    if (p.stages[s].live[0] > p.stages[held.stage].live[0]) held.stage = static_cast<int>(s);
  held.kinds = peak_bytes(plan, q.model, q.settings, mesh.rank_of(0, 0, held.stage));
  held.needs = needs(p, q.cluster, mesh);
  held.together = static_cast<double>(p.stages[held.stage].live[0]);
  held.beside = held.needs[0] - held.together;
  return held;
}

std::vector<std::pair<std::string, double>> time_by_kind(const Prediction& p) {
  std::map<std::string, double> sums;
  for (const StagePrediction& s : p.stages) {
    sums["compute"] += s.compute, sums["optimizer"] += s.update, sums["bubble"] += s.bubble;
    sums["offload copies"] += s.copies;
    for (std::size_t a = 0; a < s.exposed.size(); ++a)
      sums[fmt::format("exposed {}", axis_name(static_cast<Axis>(a)))] += s.exposed[a];
  }
  std::vector<std::pair<std::string, double>> list;
  for (const auto& [kind, seconds] : sums)
    if (seconds > 0) list.emplace_back(kind, seconds / static_cast<double>(p.stages.size()));
  std::stable_sort(list.begin(), list.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return list;
}

std::string counts_text(const Choices& c) {
  std::string out = fmt::format("weighed {} legal plans of {} combinations in {:.1f} s\n",
                                grouped(c.walked.legal), grouped(c.walked.combinations), c.seconds);
  std::vector<std::pair<i64, std::string>> rules;
  for (const auto& [rule, n] : c.walked.refused) rules.emplace_back(n, rule);
  std::sort(rules.rbegin(), rules.rend());
  for (const auto& [n, rule] : rules) out += fmt::format("  {:>14} refused by {}\n", grouped(n), rule);
  if (c.misfits)
    out += fmt::format("  {:>14} do not fit, by {} to at least {}; the closest is `{}`\n", grouped(c.misfits),
                       gib(c.least), gib(c.most), c.closest->plan);
  out += fmt::format("  {:>14} fit\n", grouped(c.fitting));
  out += "legal plans by value\n";
  for (const auto& [word, values] : c.walked.axes) {
    if (values.size() < 2) continue;
    std::vector<std::pair<std::string, i64>> list(values.begin(), values.end());
    const auto number = [](const std::string& s) { return std::isdigit(s[0]) ? std::stoll(s) : -1; };
    std::stable_sort(list.begin(), list.end(),
                     [&](const auto& a, const auto& b) { return number(a.first) < number(b.first); });
    out += fmt::format("  {:<12}", word);
    for (const auto& [value, n] : list) out += fmt::format(" {}: {} ", value, grouped(n));
    out += "\n";
  }
  const auto varies = [&](const char* word) {
    const auto values = c.walked.axes.find(word);
    return values == c.walked.axes.end() || values->second.size() > 1 || values->second.begin()->first != "1";
  };
  std::string alone;
  for (const char* word : {"cp", "replicas", "bucket", "every"}) {
    const bool of_several = word == std::string("cp") || word == std::string("replicas");
    if (!varies(word) && (varies("dp") || !of_several)) alone += fmt::format(" {}=1", word);
  }
  if (!alone.empty()) out += fmt::format("  not varied:{} (--words names other values)\n", alone);
  return out;
}

std::string ranking_text(const Choices& c, const Question& q, std::size_t top) {
  TextTable table({"", "tokens/s", "of peak", "step", "device", "host", "plan"}, 0);
  const std::vector<const Weighed*> plans = distinct(c);
  for (std::size_t i = 0; i < std::min(top, plans.size()); ++i) {
    const Weighed& w = *plans[i];
    table.add({std::to_string(i + 1), fmt::format("{:.0f}", tokens_per_second(q, w.seconds)),
               fmt::format("{:.1f} %", 100 * of_peak(q, w.seconds)), time_text(w.seconds), gib(w.needs[0]),
               w.needs[1] > 0 ? gib(w.needs[1]) : "-", w.plan});
  }
  return table.text(false);
}

std::vector<const Weighed*> alike(const Choices& c) {
  std::vector<const Weighed*> list;
  for (const Weighed* w : distinct(c))
    if (w->seconds <= c.fit.front().seconds * (1 + kAlike)) list.push_back(w);
  return list;
}

std::string alike_text(const Choices& c) {
  const std::vector<const Weighed*> plans = alike(c);
  const std::size_t others = plans.size() - 1;
  std::string out = fmt::format("{} within {:.0f} % of the first",
                                others == 0   ? "no other plan is"
                                : others == 1 ? "one other plan is"
                                              : std::to_string(others) + " other plans are",
                                100 * kAlike);
  if (!others) return out + "\n";
  const auto least = [&](const auto& of) {
    return *std::min_element(plans.begin(), plans.end(), [&](auto* a, auto* b) { return of(*a) < of(*b); });
  };
  const Weighed* smallest = least([](const Weighed& w) { return w.needs[0]; });
  const Weighed* plainest =
      least([](const Weighed& w) { return std::count(w.plan.begin(), w.plan.end(), ' '); });
  out += ", no worse as far as can be predicted\n";
  const auto add = [&](const char* what, const Weighed* w) {
    out += w == plans[0]
               ? fmt::format("  the {}: the first\n", what)
               : fmt::format("  the {}: `{}`, {}{}, {:.1f} % slower\n", what, w->plan, gib(w->needs[0]),
                             w->needs[1] > 0 ? " and " + gib(w->needs[1]) + " of the host" : "",
                             100 * (w->seconds / plans[0]->seconds - 1));
  };
  add("smallest", smallest), add("plainest", plainest);
  return out;
}

std::vector<const Weighed*> front(const Choices& c) {
  std::vector<const Weighed*> list;
  for (const Weighed& w : c.fit)  // from the fastest on: whatever needs less than all before
    if (list.empty() || w.needs[0] < list.back()->needs[0]) list.push_back(&w);
  return list;
}

std::string no_host_text(const Cluster& c) {
  return c.host_memory > 0 || c.disk_bytes > 0 ? ""
                                               : " (no [host] in this cluster: nothing can be offloaded)";
}

std::string pareto_text(const Choices& c, const Question& q) {
  TextTable table({"device", "tokens/s", "of the best", "plan"}, 0);
  for (const Weighed* w : front(c))
    table.add({gib(w->needs[0]), fmt::format("{:.0f}", tokens_per_second(q, w->seconds)),
               fmt::format("{:.1f} %", 100 * c.fit.front().seconds / w->seconds), w->plan});
  return table.text(false);
}

std::string plan_text(const std::string& line, const Question& q) {
  const Prediction p = predicted(line, q);
  std::string out = line + "\n";
  const Held held = held_by(line, p, q);
  const std::array<double, 3>&need = held.needs, have = has(q.cluster);
  for (std::size_t m = 0; m < need.size(); ++m)
    if (need[m] > have[m])
      out += fmt::format("  does not fit the {}: {} needed, {} there; if it did:\n", kMedia[m], gib(need[m]),
                         gib(have[m]));
  out += fmt::format("  {:.0f} tokens/s, {:.1f} % of peak; a step of {}, the mean over stages\n",
                     tokens_per_second(q, p.seconds), 100 * of_peak(q, p.seconds), time_text(p.seconds));
  for (const auto& [kind, seconds] : time_by_kind(p))
    if (seconds > 5e-5 * p.seconds)
      out += fmt::format("    {:<15}{:>12}{:>7.1f} %\n", kind, time_text(seconds), 100 * seconds / p.seconds);
  const auto [least, most] = std::minmax_element(
      p.stages.begin(), p.stages.end(), [](const auto& a, const auto& b) { return a.compute < b.compute; });
  if (p.stages.size() > 1)
    out += fmt::format("    stages compute {} (stage {}) to {} (stage {})\n", time_text(least->compute),
                       least - p.stages.begin(), time_text(most->compute), most - p.stages.begin());
  return out + memory_text(held, p, q);
}

// The kinds of time that grow most.
std::string losses(const Prediction& winner, const Prediction& other) {
  std::map<std::string, double> more;
  for (const auto& [kind, seconds] : time_by_kind(other)) more[kind] += seconds;
  for (const auto& [kind, seconds] : time_by_kind(winner)) more[kind] -= seconds;
  std::vector<std::pair<double, std::string>> sorted;
  for (const auto& [kind, seconds] : more) sorted.emplace_back(seconds / winner.seconds, kind);
  std::sort(sorted.rbegin(), sorted.rend());
  std::string out;
  const auto list = [&](const auto& from, const auto& to, double sign, const char* word) {
    std::string parts;
    int n = 0;
    for (auto it = from; it != to && n < 2; ++it, ++n)
      if (sign * it->first > 0.002)
        parts += fmt::format("{}{} {:.1f} %", parts.empty() ? "" : ", ", it->second, 100 * sign * it->first);
    if (!parts.empty()) out += fmt::format("{}{} {}", out.empty() ? "" : "; ", word, parts);
  };
  list(sorted.begin(), sorted.end(), 1, "loses on");
  list(sorted.rbegin(), sorted.rend(), -1, "gains on");
  return out.empty() ? "much the same everywhere" : out;
}

std::string why_text(const Choices& c, const Question& q) {
  const Weighed& first = c.fit.front();
  const Plan winner = Plan::parse(first.plan);
  Composer composer(q.model, q.settings, q.cluster);
  const Prediction won = composer.predict(winner);
  const auto against = [&](const Weighed& w) {
    if (w.foretold() == first.foretold()) return fmt::format("the same, `{}`\n", w.plan);
    return fmt::format("{:.1f} % slower, `{}`: {}\n", 100 * (w.seconds / first.seconds - 1), w.plan,
                       losses(won, composer.predict(Plan::parse(w.plan))));
  };
  std::string out = "why it wins (parts of its step)\n";
  const std::vector<const Weighed*> plans = distinct(c);
  if (plans.size() > 1) out += "  the next one: " + against(*plans[1]);
  // Words that are one choice have one plan without them: it is said once.
  std::vector<std::pair<const Weighed*, std::string>> without;
  for (const auto& [word, values] : c.best) {
    const Weighed* best = nullptr;
    for (const auto& [value, w] : values)
      if (value != winner.text(word) && (!best || w.seconds < best->seconds)) best = &w;
    if (word == "dp") continue;  // follows from tp, pp and cp
    if (best ? plans.size() > 1 && best->plan == plans[1]->plan : c.walked.axes.at(word).size() < 2) continue;
    const auto same = std::find_if(without.begin(), without.end(), [&](const auto& other) {
      return best && other.first && other.first->plan == best->plan;
    });
    const std::string said = word + "=" + winner.text(word);
    if (same == without.end())
      without.emplace_back(best, said);
    else
      same->second += ", " + said;
  }
  for (const auto& [best, words] : without)
    out += fmt::format("  without {}: {}", words,
                       best ? against(*best) : "nothing else fits" + no_host_text(q.cluster) + "\n");
  return out;
}

}  // namespace lockstep
