#include "suites/planner/answer/plan_timeline.hpp"

#include <algorithm>

namespace lockstep {
namespace {

// Most bars of any one stage's between two times.
std::size_t most_bars_of(const Timeline& t, double from, double to) {
  std::map<int, std::size_t> bars;
  for (const Timeline::Stream& stream : t.streams)
    bars[stream.rank] += static_cast<std::size_t>(
        std::count_if(stream.bars.begin(), stream.bars.end(),
                      [&](const Timeline::Bar& bar) { return bar.to > from && bar.from < to; }));
  std::size_t most = 0;
  for (const auto& [rank, n] : bars) most = std::max(most, n);
  return most;
}

}  // namespace

i64 passes(const Plan& plan, const Question& q) {
  return q.settings.batch / plan.number("dp") / plan.number("micro") * q.model.layers;
}

std::vector<Timeline> timelines_on(const Plan& plan, const Question& q, std::size_t most_bars) {
  if (passes(plan, q) > kMostPasses) return {};
  std::set<std::string> names;
  const Timeline whole = timeline_of(whole_step({q.model, q.settings, plan}, q.cluster, names).simulated);
  if (most_bars_of(whole, 0, whole.seconds) <= most_bars) return {whole};
  double part = 0.5;
  const auto end = [&] { return whole.seconds * (1 - part); };
  while (part > 1e-3 && std::max(most_bars_of(whole, 0, whole.seconds * part),
                                 most_bars_of(whole, end(), whole.seconds)) > most_bars)
    part *= 0.8;
  return {cut(whole, 0, whole.seconds * part), cut(whole, end(), whole.seconds)};
}

}  // namespace lockstep
