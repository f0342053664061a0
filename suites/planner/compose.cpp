#include "suites/planner/compose.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "parallel/contract.hpp"
#include "suites/planner/outlook.hpp"

namespace lockstep {
namespace {

// Stages' actions against each other.
Prediction simulated(PlanPieces& p, int microbatches, bool whole) {
  std::vector<std::vector<Action>> actions;
  for (int stage = 0; stage < p.mesh.pp; ++stage)
    actions.push_back(actions_of(p.run.plan, *p.schedule, stage, p.mesh.pp, microbatches));
  Pipeline pipeline(p.run, p.mesh, p.model, p.chunks, microbatches, actions, p.shapes(), p.leaving(), !whole);
  pipeline.cost = [&](int chunk, const PassShape& pass) -> const PassCost& {
    return p.cost(chunk, pass, whole);
  };
  pipeline.update = [&](int stage, bool first) -> const UpdateProgram& { return p.update(stage, first); };
  return pipeline.run();
}

// Of so many groups of microbatches more, of what a, one more than a and `far` more than that take: each
// further one adds the same. Nothing: it does not.
std::optional<double> beyond(double x, double y, double z, int far, int more) {
  const double step = y - x;
  if (std::abs(z - y - far * step) > 1e-9 * step) return {};
  return z + more * step;
}

double seconds(PlanPieces& p) {
  const auto of = [&](int microbatches) { return simulated(p, microbatches, false).seconds; };
  // Schedules go through microbatches in groups of as many as there are stages at most. (Copies of
  // activations may lag further and further behind at first, and then be waited for: all are looked at.)
  // Plain ones may still take turns of as many: each further one then adds the same but one of them.
  const int group = p.schedule->chunks_per_stage() > 1 ? p.mesh.pp : 1, far = p.mesh.pp / group;
  const int some = (2 * p.mesh.pp / group + 2) * group + p.microbatches % group;
  if (!p.shelved && p.microbatches > some + (2 + far) * group)
    if (const auto s = beyond(of(some), of(some + group), of(some + (1 + far) * group), far,
                              (p.microbatches - some) / group - 1 - far))
      return *s;
  return of(p.microbatches);
}

}  // namespace

Composer::Composer(const ModelConfig& model, const Settings& settings, const Cluster& cluster)
    : pieces_(new Pieces(model, settings, cluster)) {}
Composer::~Composer() = default;

Prediction Composer::predict(const Plan& plan) {
  PlanPieces p(*pieces_, plan);
  return simulated(p, p.microbatches, true);
}

Prediction Composer::weigh(const Plan& plan) {
  PlanPieces p(*pieces_, plan);
  Prediction all;
  for (const StageTotal& stage : stage_totals(p)) all.stages.emplace_back().live = stage.live;
  const Cluster& cluster = p.model.cluster();
  if (lacks(needs(all, cluster, p.mesh), has(cluster)) <= 0) all.seconds = seconds(p);
  return all;
}

Composer::Outlook Composer::outlook(const Plan& plan, double least) {
  PlanPieces p(*pieces_, plan);
  const Cluster& cluster = p.model.cluster();
  std::array<i64, 3> most{};
  const auto count = [&](const std::array<i64, 3>& live) {
    for (std::size_t m = 0; m < most.size(); ++m) most[m] = std::max(most[m], live[m]);
  };
  for (int stage = 0; stage < p.mesh.pp; ++stage) {
    count(p.update(stage, p.microbatches == 1).kept);
    // Stages between the ends are alike, or nearly.
    if (stage == 0) stage = std::max(0, p.mesh.pp - 2);
  }
  Outlook out{needs(most, cluster, p.mesh), 0};
  if (lacks(out.needs, has(cluster)) > least) return out;
  most = {};
  for (const StageTotal& stage : stage_totals(p)) {
    count(stage.live);
    out.seconds = std::max(out.seconds, stage.seconds);
  }
  out.needs = needs(most, cluster, p.mesh);
  return out;
}

double Composer::seconds_at_least(const Plan& plan) {
  PlanPieces p(*pieces_, plan);
  return lockstep::seconds_at_least(p);
}

}  // namespace lockstep
