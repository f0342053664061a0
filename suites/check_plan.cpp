#include "suites/check_plan.hpp"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "suites/gates/gates.hpp"
#include "suites/record_of.hpp"
#include "suites/stopwatch.hpp"

namespace lockstep {

PlanRecord check_plan(const Plan& plan, const Standard& s) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const Prepared prepared = prepare({s.model, s.suite.settings, plan, &s.data});
  Verdict verdict = judge(prepared, s.reference,
                          {.isa = s.suite.isa, .threads = s.suite.threads, .fresh = true}, s.initial);
  if (verdict.numbers == "pass" && verdict.hash != s.reference_hash)
    verdict.numbers = fmt::format("hash {} instead of {}", verdict.hash, s.reference_hash);
  PlanRecord p = record_of(prepared, verdict, s.suite.threads);
  // Ranks that share a core would time the operating system.
  if (verdict.pass() && p.ranks * p.threads <= static_cast<int>(std::thread::hardware_concurrency())) {
    Timed timed = time_steps(prepared, {s.suite.isa, s.suite.threads}, s.initial, s.suite.repeats);
    p.timed = true;
    p.step_seconds = std::move(timed.step_seconds);
    p.tokens_per_second = static_cast<double>(p.tokens_per_step) / median(p.step_seconds);
    p.median_spread = median_spread(p.step_seconds);
    p.resident_bytes = timed.resident_bytes;
  }
  p.wall_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return p;
}

}  // namespace lockstep
