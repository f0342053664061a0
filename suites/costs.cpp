#include "suites/costs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "suites/gates/gates.hpp"

namespace lockstep {

Costs costs(const Prepared& p, const std::string& isa, int threads, const Weights& initial) {
  Costs all;
  for (int rank = 0; rank < p.mesh.size(); ++rank)
    all.ranks.push_back(
        {price(p.run.plan, p.run.model, p.run.settings, rank), peaks(p.traces[rank]), 0, p.posted[rank], {}});
  launch(p, {isa, threads, Timing::lazy, true}, [&](RankView v) {
    initialise(v, initial);
    v.executor.step(0);
    all.ranks[v.rank].posted = lasting(p, v.device.posted());
    all.ranks[v.rank].guard_peak = v.guard_peak();
  });
  return all;
}

namespace {

using Line = std::tuple<std::string, int, Axis, Verb, i64>;  // tensor, microbatch, axis, operation, elements

std::vector<Line> sorted(std::vector<Line> lines) {
  std::sort(lines.begin(), lines.end());
  return lines;
}
std::vector<Line> lines_of(const Price& price) {
  std::vector<Line> lines;
  for (const Price::Line& l : price.messages)
    lines.emplace_back(l.what, l.microbatch, l.said.axis, l.said.verb, l.said.elements);
  return sorted(lines);
}
std::vector<Line> lines_of(const std::vector<Posted>& posted) {
  std::vector<Line> lines;
  for (const Posted& m : posted) lines.emplace_back(m.what, m.microbatch, m.axis, m.verb, m.elements);
  return sorted(lines);
}

std::string disagreement(const Costs::Rank& r) {
  for (int k = 0; k < static_cast<int>(Kind::count); ++k)
    if (r.formula.peak[k] != r.traced.by_kind[k])
      return fmt::format("{}: {} bytes by formula, {} traced", kind_name(static_cast<Kind>(k)),
                         r.formula.peak[k], r.traced.by_kind[k]);
  if (r.guard_peak != r.traced.total)
    return fmt::format("{} bytes were alive in the run, {} traced", r.guard_peak, r.traced.total);
  const auto stated = lines_of(r.formula), announced = lines_of(r.announced), posted = lines_of(r.posted);
  for (const auto& [a, b, what] :
       {std::tuple{&stated, &announced, "formula and trace"}, {&announced, &posted, "trace and run"}}) {
    const auto at = std::mismatch(a->begin(), a->end(), b->begin(), b->end());
    if (at.first == a->end() && at.second == b->end()) continue;
    const Line& line = at.first == a->end() ? *at.second : *at.first;
    return fmt::format("{} differ in their messages, first in `{}`", what, std::get<0>(line));
  }
  return {};
}

}  // namespace

std::string disagreement(const Costs& all) {
  for (std::size_t rank = 0; rank < all.ranks.size(); ++rank)
    if (const std::string why = disagreement(all.ranks[rank]); !why.empty())
      return fmt::format("rank {}: {}", rank, why);
  return {};
}

}  // namespace lockstep
