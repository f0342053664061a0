#include "suites/planner/prediction.hpp"

#include <algorithm>
#include <map>

#include "suites/planner/cost_model.hpp"

namespace lockstep {
namespace {

std::array<i64, 3> live_peaks(const Trace& trace) {
  std::map<int, std::pair<std::size_t, i64>> alive;
  std::array<i64, 3> now{}, most{};
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::take) {
      const auto medium = static_cast<std::size_t>(medium_of(e.kind));
      alive[e.block] = {medium, e.bytes};
      most[medium] = std::max(most[medium], now[medium] += e.bytes);
    } else if (e.what == Trace::Event::give) {
      const auto it = alive.find(e.block);
      now[it->second.first] -= it->second.second;
      alive.erase(it);
    }
  }
  return most;
}

}  // namespace

Settings settings_on(const Cluster& c, Settings s) {
  s.fast = true;
  s.weight_bytes = c.weight_bytes, s.gradient_bytes = c.gradient_bytes,
  s.activation_bytes = c.activation_bytes;
  return s;
}

WholeStep whole_step(const Run& run, const Cluster& cluster, std::set<std::string>& names) {
  const Mesh mesh = run.mesh();
  const CostModel model(cluster, mesh, hand_over_shares(cluster, run));
  const std::vector<int> ranks = one_of_each_stage(mesh);
  std::vector<Trace> traces;
  traces.reserve(ranks.size());
  std::vector<const Trace*> by_rank(static_cast<std::size_t>(mesh.size()));
  for (const int rank : ranks) by_rank[rank] = &traces.emplace_back(trace_rank(run, rank, names));
  WholeStep step{simulate(by_rank, mesh, ranks, model.costs()), {}};
  for (const Trace& trace : traces) step.live.push_back(live_peaks(trace));
  return step;
}

Prediction predict_by_trace(const Run& run, const Cluster& cluster) {
  std::set<std::string> names;
  const WholeStep step = whole_step(run, cluster, names);
  const std::vector<int> ranks = one_of_each_stage(run.mesh());
  Prediction p;
  p.seconds = step.simulated.seconds + cluster.step;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const Simulated::Rank& r = step.simulated.ranks.at(ranks[i]);
    StagePrediction stage;
    stage.live = step.live[i];
    stage.compute = r.compute, stage.update = r.update + cluster.step, stage.copies = r.copies,
    stage.bubble = r.bubble;
    for (const auto& [axis, seconds] : r.exposed)
      stage.exposed[static_cast<int>(in_one_queue(axis))] += seconds;
    p.stages.push_back(stage);
  }
  return p;
}

std::array<double, 3> needs(const Prediction& p, const Cluster& c, const Mesh& mesh) {
  std::array<i64, 3> most{};
  for (const StagePrediction& stage : p.stages)
    for (std::size_t m = 0; m < most.size(); ++m) most[m] = std::max(most[m], stage.live[m]);
  return needs(most, c, mesh);
}

std::array<double, 3> needs(const std::array<i64, 3>& live, const Cluster& c, const Mesh& mesh) {
  std::array<double, 3> need{};
  for (std::size_t m = 0; m < need.size(); ++m) need[m] = static_cast<double>(live[m]);
  need[0] += beside_the_arena(c, need[0], communicators(mesh));
  return need;
}

double lacks(const std::array<double, 3>& needs, const std::array<double, 3>& has) {
  double most = 0;
  for (std::size_t m = 0; m < needs.size(); ++m) most = std::max(most, needs[m] - has[m]);
  return most;
}

std::array<double, 3> has(const Cluster& c) { return {c.memory, c.host_memory, c.disk_bytes}; }

}  // namespace lockstep
