#include "suites/sweep/compare_runs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <vector>

#include "ref/error.hpp"
#include "suites/sweep/compare_times.hpp"

namespace lockstep {
namespace {

bool lost(const PlanTwice& p) { return p.before->status == "ok" && p.after->status != "ok"; }

bool other_hash(const PlanTwice& p) {
  return p.before->status == "ok" && p.after->status == "ok" && p.before->hash != p.after->hash;
}

template <class T>
std::string shown(const T& value) {
  const std::string text = fmt::format("{}", value);
  return text.empty() ? "(none)" : text;
}

template <class T>
std::string change(const T& before, const T& after) {
  return before == after ? shown(before) : shown(before) + " -> " + shown(after);
}

// In the order of the first run.
std::vector<PlanTwice> in_both(const RunRecord& before, const RunRecord& after) {
  std::map<std::string, const PlanRecord*> there;
  for (const PlanRecord& p : after.plans) there.emplace(p.plan, &p);
  std::vector<PlanTwice> pairs;
  for (const PlanRecord& p : before.plans)
    if (const auto found = there.find(p.plan); found != there.end()) pairs.push_back({&p, found->second});
  return pairs;
}

// Plans of one run that the other has not.
std::vector<std::string> missing(const RunRecord& of, const RunRecord& in) {
  std::set<std::string> there;
  for (const PlanRecord& p : in.plans) there.insert(p.plan);
  std::vector<std::string> plans;
  for (const PlanRecord& p : of.plans)
    if (!there.count(p.plan)) plans.push_back(p.plan);
  return plans;
}

// New plans are no news that anybody has to act on: their number is enough.
std::string in_one(const std::vector<std::string>& before, const std::vector<std::string>& after, bool all) {
  std::string text;
  if (!before.empty()) {
    const std::size_t rows = rows_of(before.size(), all);
    text += fmt::format("only before: {}\n", many(before.size(), "plan"));
    for (std::size_t i = 0; i < rows; ++i) text += fmt::format("  {}\n", before[i]);
    text += left_out(before.size() - rows);
  }
  if (!after.empty()) text += fmt::format("only after: {}\n", many(after.size(), "plan"));
  return text;
}

// ---- What the runs were ------------------------------------------------------------------------------

// A rank's, in every plan of a suite.
std::string threads(const RunRecord& run) {
  std::set<int> numbers;
  for (const PlanRecord& p : run.plans) numbers.insert(p.threads);
  return fmt::format("{}", fmt::join(numbers, ", "));
}

std::string circumstances(const RunRecord& a, const RunRecord& b) {
  std::string text;
  const auto row = [&](const char* name, const auto& before, const auto& after) {
    if (before != after) text += fmt::format("  {}: {}\n", name, change(before, after));
  };
  row("suite", a.suite, b.suite);
  row("model hash", a.model_hash, b.model_hash);
  row("data hash", a.data_hash, b.data_hash);
  row("batch", a.batch, b.batch);
  row("seq", a.seq, b.seq);
  row("steps", a.steps, b.steps);
  row("seed", a.seed, b.seed);
  row("dtype", a.dtype, b.dtype);
  row("revision", a.revision, b.revision);
  row("compiler", a.compiler, b.compiler);
  row("flags", a.flags, b.flags);
  row("host", a.host, b.host);
  row("cpu", a.cpu, b.cpu);
  row("cores", a.cores, b.cores);
  row("isa", a.isa, b.isa);
  row("device", a.device, b.device);
  row("threads of a rank", threads(a), threads(b));
  row("launch", a.launch, b.launch);
  row("comm", a.comm, b.comm);
  row("reference hash", a.reference_hash, b.reference_hash);
  return text.empty() ? "the runs' circumstances are equal\n" : "the runs' circumstances differ\n" + text;
}

// Names of what the runs do not share of all that a hash depends on and a run file holds.
std::vector<std::string> other_training(const RunRecord& a, const RunRecord& b) {
  std::vector<std::string> names;
  if (a.model_hash != b.model_hash) names.push_back("model hash");
  if (a.data_hash != b.data_hash) names.push_back("data hash");
  if (a.dtype != b.dtype) names.push_back("dtype");
  if (a.batch != b.batch) names.push_back("batch");
  if (a.seq != b.seq) names.push_back("seq");
  if (a.steps != b.steps) names.push_back("steps");
  if (a.seed != b.seed) names.push_back("seed");
  return names;
}

// The reference's hash is of a run's smallest batch: of the same one in both for certain if there is one
// only.
bool one_batch(const RunRecord& a, const RunRecord& b) {
  std::set<i64> tokens;
  for (const RunRecord* run : {&a, &b})
    for (const PlanRecord& p : run->plans) tokens.insert(p.tokens_per_step);
  tokens.erase(0);  // of plans that came to no verdict
  return tokens.size() == 1;
}

// ---- What else differs in them -------------------------------------------------------------------------

// "failed (numbers: step 0: ...)".
std::string status_in_full(const PlanRecord& p) {
  const std::string why = complaint(p);
  if (why.empty() || why == p.status) return p.status;
  return why.starts_with(p.status + ": ") ? why : fmt::format("{} ({})", p.status, why);
}

// Empty: nothing does. What a plan of another status did not come to is no news.
std::string difference(const PlanTwice& pair) {
  const PlanRecord &a = *pair.before, &b = *pair.after;
  if (a.status != b.status) return fmt::format("{} -> {}", status_in_full(a), status_in_full(b));
  std::vector<std::string> parts;
  if (a.hash != b.hash) parts.push_back("hash " + change(a.hash, b.hash));
  if (a.peak_bytes != b.peak_bytes) parts.push_back(change(a.peak_bytes, b.peak_bytes) + " bytes at most");
  auto axes = a.traffic;  // a run file has every axis that any of its plans sends on
  axes.insert(b.traffic.begin(), b.traffic.end());
  const auto of = [](const PlanRecord& p, const std::string& axis) {
    const auto found = p.traffic.find(axis);
    return found == p.traffic.end() ? AxisTraffic{} : found->second;
  };
  for (const auto& [axis, any] : axes) {
    const AxisTraffic x = of(a, axis), y = of(b, axis);
    if (x.messages != y.messages || x.bytes != y.bytes)
      parts.push_back(fmt::format("{}: {} messages, {} bytes", axis, change(x.messages, y.messages),
                                  change(x.bytes, y.bytes)));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string differences(const std::vector<PlanTwice>& pairs, bool all) {
  // No row that makes a fault is left out before one that makes none.
  const auto weight = [](const PlanTwice* p) { return lost(*p) ? 0 : other_hash(*p) ? 1 : 2; };
  std::vector<const PlanTwice*> order;
  for (const PlanTwice& p : pairs)
    if (!difference(p).empty()) order.push_back(&p);
  std::stable_sort(order.begin(), order.end(),
                   [&](const PlanTwice* a, const PlanTwice* b) { return weight(a) < weight(b); });
  if (order.empty()) return {};
  const std::size_t rows = rows_of(order.size(), all);
  std::string text =
      fmt::format("{} in both with another status, hash, memory or traffic\n", many(order.size(), "plan"));
  for (std::size_t i = 0; i < rows; ++i)
    text += fmt::format("  {}: {}\n", order[i]->before->plan, difference(*order[i]));
  return text + left_out(order.size() - rows);
}

}  // namespace

RunComparison compare_runs(const RunRecord& before, const RunRecord& after, const RunsAsked& asked) {
  const auto& [percent, all, allow_missing] = asked;
  const std::vector<PlanTwice> pairs = in_both(before, after);
  if (pairs.empty()) throw UserError("the two runs have no plan in common; compare two runs of one suite");
  const std::vector<TimedTwice> timings = timed_in_both(pairs);
  const std::vector<std::string> only_before = missing(before, after);
  std::string text = circumstances(before, after) + times_table(timings, all) + differences(pairs, all) +
                     in_one(only_before, missing(after, before), all);

  const std::vector<std::string> other = other_training(before, after);
  // Under weak scaling the batch is of one replica, so that a plan's line does not say how much it trains on.
  const auto same_training = [&](const PlanTwice& p) {
    return other.empty() && p.before->tokens_per_step == p.after->tokens_per_step;
  };
  const std::string equal = "model, data, dtype, batch, seq, steps and seed are equal";
  std::vector<std::string> gone, rehashed, slowed, faults;
  for (const PlanTwice& p : pairs) {
    if (lost(p)) gone.push_back(fmt::format("{}: {}", p.before->plan, p.after->status));
    if (other_hash(p) && same_training(p)) rehashed.push_back(p.before->plan);
  }
  for (const TimedTwice& t : timings)
    if (percent && t.beyond == std::string("slower") && 100 * (t.ratio() - 1) > *percent)
      slowed.push_back(fmt::format("{}: by {:.1f} %", t.plan, 100 * (t.ratio() - 1)));
  const auto add = [&](const std::vector<std::string>& plans, const std::string& what) {
    if (!plans.empty())
      faults.push_back(
          fmt::format("{} {} ({}{})", plans.size(), what, plans.size() > 1 ? "first " : "", plans.front()));
  };
  add(gone, "no longer ok");
  add(rehashed, "of another hash, though " + equal);
  if (percent) add(slowed, fmt::format("slower by more than {} %", *percent));
  if (other.empty() && one_batch(before, after) && !before.reference_hash.empty() &&
      !after.reference_hash.empty() && before.reference_hash != after.reference_hash)
    faults.push_back("the reference of another hash, though " + equal);
  const std::string both = fmt::format(
      "of {} in both{}", many(pairs.size(), "plan"),
      allow_missing && !only_before.empty() ? fmt::format(", {} no longer there", only_before.size()) : "");
  std::vector<std::string> worse;
  if (!allow_missing && !only_before.empty())
    worse.push_back(fmt::format("{} of {} no longer there (first {}), which --allow-missing allows",
                                only_before.size(), many(before.plans.size(), "plan"), only_before.front()));
  if (!faults.empty()) worse.push_back(fmt::format("{}, {}", both, fmt::join(faults, ", ")));
  if (!worse.empty()) return {false, text + fmt::format("worse: {}\n", fmt::join(worse, "; "))};
  std::string hashes = "with the same hashes";
  if (!other.empty())
    hashes = fmt::format("but hashes say nothing, for {} differ{}", fmt::join(other, ", "),
                         other.size() == 1 ? "s" : "");
  else if (std::any_of(pairs.begin(), pairs.end(), other_hash))
    hashes = "with the same hashes where their steps are of as many tokens";
  std::string speed = "none was timed in both";
  if (!timings.empty())
    speed = fmt::format("a step takes {} times as long, {} slower and {} faster of {}", mean_ratio(timings),
                        beyond(timings, "slower"), beyond(timings, "faster"), timings.size());
  if (!timings.empty() && percent) speed += fmt::format(", none slower by more than {} %", *percent);
  return {true, text + fmt::format("as right as before: {}, all that were ok still are, {}; {}\n", both,
                                   hashes, speed)};
}

}  // namespace lockstep
