#include "suites/planner/measure/check_times.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ref/error.hpp"
#include "suites/planner/measure/pace.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

// The median step. Where others took more than the twentieth part of the processors' time, once more: the
// least disturbed of three counts.
double measured(const Run& run, const CheckHow& how, const Repeats& repeats) {
  constexpr double kDisturbed = 0.05;
  const Prepared prepared = prepare(run);
  double seconds = 0, least = 1;
  for (int attempt = 0; attempt < 3 && (attempt == 0 || least > kDisturbed); ++attempt) {
    const Busy before = busy_seconds();
    const Launch launch{.isa = how.isa, .threads = how.threads, .accelerator = how.accelerator};
    const double took = median(time_steps(prepared, launch, {}, repeats).step_seconds);
    const double others = others_part(before, busy_seconds());
    if (attempt == 0 || others < least) seconds = took, least = others;
  }
  return seconds;
}

}  // namespace

Regret regret_of_first(const std::vector<std::vector<double>>& times) {
  std::size_t fastest = 0;
  for (std::size_t i = 0; i < times.size(); ++i)
    if (median(times[i]) < median(times[fastest])) fastest = i;
  return {fastest, median(times[0]) / median(times[fastest]) - 1};
}

CheckedTimes check_times(const ModelConfig& model, const Settings& settings, const Cluster& cluster,
                         const Values& given, const CheckHow& how,
                         const std::function<void(const CheckedTimes::Row&)>& say) {
  const TokenFile data(how.data);
  check_data(data, how.data, model, settings);
  Composer composer(model, settings, cluster);
  std::vector<std::string> lines;
  // Of several GPUs the messages are processes', and not this program's.
  const i64 most = how.accelerator ? 1 : cluster.devices;
  for (i64 devices = 1; devices <= most; devices *= 2)
    each_legal_plan(model, settings, devices, plan_values(model, settings, devices, given, cluster.per_node),
                    [&](const Plan& plan) { lines.push_back(plan.line()); });
  if (lines.empty())
    throw UserError(
        fmt::format("plan: no plan of these words is legal on 1, 2, 4, ... up to {} devices", most));
  Dice dice(1);
  dice.shuffle(lines);

  CheckedTimes out;
  std::vector<double> errors;
  for (const std::string& line : lines) {
    if (std::ssize(out.rows) == how.plans) break;
    const Run run{model, settings, Plan::parse(line), &data};
    const Prediction foretold = composer.predict(run.plan);
    if (lacks(needs(foretold, cluster, run.mesh()), has(cluster)) > 0) continue;
    out.rows.push_back({line, foretold.seconds, measured(run, how, how.repeats)});
    errors.push_back(std::abs(out.rows.back().predicted / out.rows.back().measured - 1));
    say(out.rows.back());
  }
  if (out.rows.empty()) throw UserError("plan: none of these plans fits");
  out.median_error = median(errors);

  // The top five of both, once more in turn, so that what else the machine does meets all of them alike.
  std::vector<std::size_t> again;
  const auto add_top = [&](double CheckedTimes::Row::*by) {
    std::vector<std::size_t> order(out.rows.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return out.rows[a].*by < out.rows[b].*by; });
    for (std::size_t i = 0; i < std::min<std::size_t>(5, order.size()); ++i)
      if (std::find(again.begin(), again.end(), order[i]) == again.end()) again.push_back(order[i]);
  };
  add_top(&CheckedTimes::Row::predicted);  // the first of all is the planner's choice
  add_top(&CheckedTimes::Row::measured);
  std::vector<std::vector<double>> times(again.size());
  for (int round = 0; round < 3; ++round)
    for (std::size_t i = 0; i < again.size(); ++i)
      times[i].push_back(
          measured({model, settings, Plan::parse(out.rows[again[i]].plan), &data}, how, how.repeats));
  const Regret regret = regret_of_first(times);
  out.first = out.rows[again[0]].plan, out.fastest = out.rows[again[regret.fastest]].plan;
  out.regret = regret.part;
  return out;
}

}  // namespace lockstep
