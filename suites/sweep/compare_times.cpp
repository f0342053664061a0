#include "suites/sweep/compare_times.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ref/error.hpp"
#include "suites/text_table.hpp"
#include "suites/timing/stopwatch.hpp"

namespace lockstep {

std::string many(std::size_t n, const std::string& what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

std::size_t rows_of(std::size_t there, bool all) { return all ? there : std::min<std::size_t>(20, there); }

std::string left_out(std::size_t rows) { return rows ? fmt::format("  and {} more: --all\n", rows) : ""; }

namespace {

bool was_timed(const PlanRecord& p) {
  if (!p.timed || p.step_seconds.empty()) return false;
  for (const double seconds : p.step_seconds)
    if (!(seconds > 0 && std::isfinite(seconds)))
      throw UserError(
          fmt::format("a run file is damaged: a step of {} took {} seconds; write it anew", p.plan, seconds));
  return true;
}

}  // namespace

std::vector<TimedTwice> timed_in_both(const std::vector<PlanTwice>& pairs) {
  std::vector<TimedTwice> timings;
  for (const PlanTwice& p : pairs) {
    if (!was_timed(*p.before) || !was_timed(*p.after)) continue;
    const Interval a = median_interval(p.before->step_seconds), b = median_interval(p.after->step_seconds);
    timings.push_back({p.before->plan, median(p.before->step_seconds), median(p.after->step_seconds),
                       a.known() && b.known(),
                       b.low > a.high   ? "slower"
                       : b.high < a.low ? "faster"
                                        : ""});
  }
  std::stable_sort(timings.begin(), timings.end(), [](const TimedTwice& a, const TimedTwice& b) {
    return std::abs(std::log(a.ratio())) > std::abs(std::log(b.ratio()));
  });
  return timings;
}

std::string mean_ratio(const std::vector<TimedTwice>& timings) {
  double sum = 0;
  for (const TimedTwice& t : timings) sum += std::log(t.ratio());
  return fmt::format("{:.3f}", std::exp(sum / static_cast<double>(timings.size())));
}

std::size_t beyond(const std::vector<TimedTwice>& timings, const std::string& word) {
  return static_cast<std::size_t>(
      std::count_if(timings.begin(), timings.end(), [&](const TimedTwice& t) { return word == t.beyond; }));
}

std::string times_table(const std::vector<TimedTwice>& timings, bool all) {
  if (timings.empty()) return {};
  const std::size_t rows = rows_of(timings.size(), all);
  TextTable table({"median step of a plan timed in both", "before, ms", "after, ms", "ratio", ""}, 1);
  for (std::size_t i = 0; i < rows; ++i) {
    const TimedTwice& t = timings[i];
    table.add({t.plan, fmt::format("{:.3f}", 1e3 * t.before), fmt::format("{:.3f}", 1e3 * t.after),
               fmt::format("{:.3f}", t.ratio()), t.beyond});
  }
  const std::size_t slower = beyond(timings, "slower"), faster = beyond(timings, "faster");
  std::string text = table.text(false) + left_out(timings.size() - rows) +
                     fmt::format("geometric mean of {}: {}; {} slower, {} faster, {} within noise\n",
                                 many(timings.size(), "ratio"), mean_ratio(timings), slower, faster,
                                 timings.size() - slower - faster);
  const auto unknown = std::count_if(timings.begin(), timings.end(), [](auto& t) { return !t.known; });
  if (unknown)
    text +=
        fmt::format("of these, {} had fewer than 6 timed steps: no 95 % interval, so nothing is beyond it\n",
                    many(static_cast<std::size_t>(unknown), "plan"));
  return text;
}

}  // namespace lockstep
