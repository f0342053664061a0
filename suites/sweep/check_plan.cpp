#include "suites/sweep/check_plan.hpp"

#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "kernels/cores.hpp"
#include "suites/gates/among.hpp"
#include "suites/here.hpp"
#include "suites/sweep/record_of.hpp"
#include "suites/timing/nominal_costs.hpp"
#include "suites/timing/stopwatch.hpp"
#include "suites/timing/timeline.hpp"

namespace lockstep {

bool is_timed(const Plan& plan, const Standard& s) {
  const int ranks = plan.ranks();
  if (s.job)
    return s.timed && (s.suite.device == "cpu" ? s.job->cores_suffice : ranks == 1 || s.job->fabrics);
  return s.timed && ranks * s.suite.threads <= cores() && (s.suite.device == "cpu" || ranks == 1);
}

PlanRecord check_plan(const Plan& plan, const Standard& s) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Run run{s.model, s.settings, plan, &s.data};
  const GateOptions gates{.isa = s.suite.isa,
                          .threads = s.suite.threads,
                          .fresh = true,
                          .scratch = s.suite.scratch,
                          .accelerator = device_here(s.suite.device),
                          .mpi = s.job ? &s.job->world : nullptr,
                          .fabrics = s.job ? s.job->fabrics : nullptr};
  std::optional<Prepared> exact;
  Verdict verdict;
  if (refuse(plan, run.model, run.settings)) {
    verdict.numbers = verdict.messages = verdict.memory = kNotPossible;
  } else {
    exact.emplace(prepare(run));
    verdict = judge(*exact, s.reference, gates, s.initial);
    if (verdict.numbers == "pass" && verdict.hash != s.reference_hash)
      verdict.numbers = fmt::format("hash {} instead of {}", verdict.hash, s.reference_hash);
  }
  run.settings.fast = true;
  const Prepared fast = prepare(run);
  const FastVerdict second = judge_fast(fast, s.reference, s.float64, gates, s.initial);
  PlanRecord p = record_of(exact ? &*exact : nullptr, verdict, fast, second, s.suite.threads);
  if (s.job) p.hosts = s.job->hosts;
  if (is_timed(plan, s) && agreed(gates.mpi, p.status == "ok")) {
    Timed timed = time_steps(fast, gates.launch(), s.initial, s.suite.repeats);
    p.timed = true;
    p.step_seconds = std::move(timed.step_seconds);
    p.tokens_per_second = static_cast<double>(p.tokens_per_step) / median(p.step_seconds);
    p.median_spread = median_spread(p.step_seconds);
    p.resident_bytes = timed.resident_bytes;
    p.measured_timeline = json_of(timed.timeline);
  }
  if (fast.deadlock.empty()) {
    const Timeline simulated = timeline_of(fast, nominal_costs());
    p.simulated_seconds = simulated.seconds;
    p.simulated = simulated.parts;
    p.timeline = json_of(simulated);
  }
  p.wall_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return p;
}

}  // namespace lockstep
