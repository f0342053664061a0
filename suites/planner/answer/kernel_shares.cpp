#include "suites/planner/answer/kernel_shares.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "ref/error.hpp"
#include "suites/planner/answer/plan_timeline.hpp"
#include "suites/planner/compose.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/measure/kernel_times.hpp"
#include "suites/text_table.hpp"

namespace lockstep {

std::vector<KernelShare> kernel_shares(const Plan& plan, const Question& q, int stage) {
  if (passes(plan, q) > kMostPasses)
    throw UserError(
        fmt::format("plan: --kernels traces a whole step, and `{}` has {} passes of a layer in it; at most "
                    "{} (a smaller --batch)",
                    plan.line(), passes(plan, q), kMostPasses));
  const Run run{q.model, q.settings, plan};
  const CostModel cost(q.cluster, run.mesh(), hand_over_shares(q.cluster, run));
  std::set<std::string> names;
  const Trace trace = trace_rank(run, one_of_each_stage(run.mesh())[static_cast<std::size_t>(stage)], names);
  std::map<std::pair<std::string, bool>, KernelShare> all;
  bool stepping = false;
  for (const Trace::Event& e : trace.events) {
    stepping |= e.what == Trace::Event::step;
    if (!stepping || e.what != Trace::Event::run) continue;
    const bool on_host =
        std::any_of(e.views.begin(), e.views.end(), [](const View& v) { return v.medium == Medium::host; });
    const Work work = work_of(e.name, e.numbers, 1);
    KernelShare& k = all[{e.name, on_host}];
    k.kernel = e.name, k.on_host = on_host;
    ++k.calls, k.seconds += cost.kernel(e), k.flops += work.flops,
        k.bytes += work.bytes * bytes_of_a_number(e);
  }
  std::vector<KernelShare> shares;
  for (auto& [name, share] : all) shares.push_back(std::move(share));
  std::sort(shares.begin(), shares.end(),
            [](const KernelShare& a, const KernelShare& b) { return a.seconds > b.seconds; });
  return shares;
}

std::string kernel_shares_text(const Plan& plan, const Question& q) {
  const Prediction p = Composer(q.model, q.settings, q.cluster).predict(plan);
  const auto longest = std::max_element(p.stages.begin(), p.stages.end(), [](const auto& a, const auto& b) {
    return a.compute + a.update < b.compute + b.update;
  });
  const int stage = static_cast<int>(longest - p.stages.begin());
  TextTable table({"kernel", "calls", "ms", "% of step", "TFLOP/s", "GB/s"}, 1);
  for (const KernelShare& k : kernel_shares(plan, q, stage))
    table.add({k.on_host ? k.kernel + ", host" : k.kernel, fmt::format("{}", k.calls),
               fmt::format("{:.2f}", 1e3 * k.seconds), fmt::format("{:.1f}", 100 * k.seconds / p.seconds),
               fmt::format("{:.1f}", k.flops / k.seconds / 1e12),
               fmt::format("{:.0f}", k.bytes / k.seconds / 1e9)});
  return fmt::format("kernels of a rank of stage {} of {}\n{}", stage, p.stages.size(), table.text(false));
}

}  // namespace lockstep
