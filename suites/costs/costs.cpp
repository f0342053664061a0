#include "suites/costs/costs.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace lockstep {
namespace {

PlanCosts::Messages messages(const std::vector<Price::Line>& lines) {
  PlanCosts::Messages list;
  for (const Price::Line& l : lines)
    list.push_back({l.what, l.microbatch, l.said.axis, l.said.verb, l.said.elements});
  std::sort(list.begin(), list.end());
  return list;
}
PlanCosts::Messages messages(const std::vector<Posted>& posted) {
  PlanCosts::Messages list;
  for (const Posted& m : posted) list.push_back({m.what, m.microbatch, m.axis, m.verb, m.elements});
  std::sort(list.begin(), list.end());
  return list;
}

}  // namespace

PlanCosts costs(const Prepared& p, const std::string& isa, int threads, const Weights& initial) {
  PlanCosts all;
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    const Price formula = price(p.run.plan, p.run.model, p.run.settings, rank);
    const Peaks traced = peaks(p.traces[rank]);
    all.ranks.push_back({formula.peak,
                         traced.by_kind,
                         traced.total,
                         0,
                         messages(formula.messages),
                         messages(p.posted[rank]),
                         {}});
  }
  launch(p, {isa, threads, Timing::lazy, true}, [&](RankView v) {
    initialise(v, initial);
    v.executor.step(0);
    all.ranks[v.rank].by_run = messages(v.device.posted());
    all.ranks[v.rank].run_together = v.guard_peak();
  });
  return all;
}

namespace {

// Two sorted lists; the first message that one has and the other has not.
std::string difference(const PlanCosts::Messages& a, const PlanCosts::Messages& b, const char* which) {
  const auto [in_a, in_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (in_a == a.end() && in_b == b.end()) return {};
  const bool a_has = in_b == b.end() || (in_a != a.end() && *in_a < *in_b);
  const PlanCosts::Message& m = a_has ? *in_a : *in_b;
  return fmt::format("{} differ: {} of `{}`{} on {}, {} elements", which, verb_name(m.verb), m.what,
                     m.microbatch < 0 ? "" : fmt::format(" microbatch {}", m.microbatch), axis_name(m.axis),
                     m.elements);
}

std::string disagreement(const PlanCosts::Rank& r) {
  for (std::size_t k = 0; k < r.formula.size(); ++k)
    if (r.formula[k] != r.traced[k])
      return fmt::format("{}: {} bytes by formula, {} traced", kind_name(static_cast<Kind>(k)), r.formula[k],
                         r.traced[k]);
  if (r.run_together != r.traced_together)
    return fmt::format("{} bytes were alive in the run, {} traced", r.run_together, r.traced_together);
  if (auto why = difference(r.by_formula, r.by_trace, "messages of formula and trace"); !why.empty())
    return why;
  return difference(r.by_trace, r.by_run, "messages of trace and run");
}

}  // namespace

std::string disagreement(const PlanCosts& all) {
  for (std::size_t rank = 0; rank < all.ranks.size(); ++rank)
    if (const std::string why = disagreement(all.ranks[rank]); !why.empty())
      return fmt::format("rank {}: {}", rank, why);
  return {};
}

}  // namespace lockstep
