#include "suites/planner/answer/in_sight.hpp"

#include <fmt/format.h>

#include "suites/progress.hpp"

namespace lockstep {

Choices choose_in_sight(const Question& q, const Values& given, Wanted wanted) {
  const i64 n = q.cluster.devices;
  PartProgress progress(fmt::format("weighing plans of {} device{}", n, n == 1 ? "" : "s"));
  wanted.share = [&](double part) { progress.at(part); };
  return choose(q.model, q.settings, q.cluster, given, wanted);
}

void check_any_legal(const Choices& c, const Question& q, const Values& given) {
  const i64 n = q.cluster.devices;
  check_any_legal(c.walked, q.settings, n, plan_values(q.model, q.settings, n, given, q.cluster.per_node));
}

}  // namespace lockstep
