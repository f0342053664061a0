// Clusters on which another trainer runs: what it does otherwise than ours.
#include <gtest/gtest.h>

#include "kernels/extents.hpp"
#include "suites/planner/compose.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/planner.hpp"

namespace lockstep {
namespace {

// 1e12 operations and 1e11 bytes a second, all of them reached; two nodes of four.
Cluster two_nodes_of_four() {
  Cluster c;
  c.devices = 8, c.per_node = 4;
  c.memory = 1e9, c.flops = 1e12, c.memory_bandwidth = 1e11;
  c.node = {1e10, 2e-6, {}, {}}, c.network = {2e9, 1e-5, {}, {}};
  return c;
}

TEST(Compose, EqualsTheWholeTraceWhereATrainerIsUnlikeOurs) {
  Cluster cluster = two_nodes_of_four();
  cluster.dispatch = 2e-6, cluster.step = 1e-3;
  cluster.score = 9, cluster.score_dx = 17, cluster.score_kernels = 3, cluster.score_apart = 5;
  cluster.score_group = 4;
  cluster.hand_over_blocks = cluster.hand_over_scattered = true, cluster.hand_over = 3e-5;
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings = settings_on(cluster, {});
  settings.batch = 16, settings.seq = 32;
  std::vector<std::string> lines;
  const Values values = plan_values(
      model, settings, 8, parse_values("offload=none activations=device every=1 schedule=1f1b,interleaved"));
  each_legal_plan(model, settings, 8, values, [&](const Plan& p) { lines.push_back(p.line()); });
  Dice(3).shuffle(lines);
  Composer composer(model, settings, cluster);
  for (std::size_t i = 0; i < 60; ++i) {
    const Plan plan = Plan::parse(lines.at(i));
    const double whole = predict_by_trace({model, settings, plan}, cluster).seconds;
    EXPECT_NEAR(composer.predict(plan).seconds / whole, 1, 1e-6) << lines[i];
    EXPECT_NEAR(composer.weigh(plan).seconds / whole, 1, 1e-6) << lines[i];
  }
}

Trace::Event kernel(const char* name, std::vector<double> numbers) {
  Trace::Event e;
  e.what = Trace::Event::run, e.name = name, e.numbers = std::move(numbers);
  e.views.resize(extents_of(name, e.numbers).size());  // of float32
  return e;
}

// B T H K hd = 2 64 8 8 16: matrices of 2 * 8 * 64^2 numbers; the whole square is 4 B H T^2 hd operations.
TEST(Cost, UnfusedAttentionMovesItsMatrices) {
  Cluster c = two_nodes_of_four();
  c.score = 10, c.score_dx = 20;
  const double matrix = 2 * 8 * 64 * 64, flops = 4 * matrix * 16;
  const CostModel model(c, {});
  EXPECT_NEAR(model.kernel(kernel("attention", {2, 64, 8, 8, 16})), flops / 1e12 + 10 * matrix / 1e11, 1e-12);
  EXPECT_NEAR(model.kernel(kernel("attention_dx", {2, 64, 8, 8, 16})),
              2.5 * flops / 1e12 + 20 * matrix / 1e11, 1e-12);
  // Nothing takes less than handing it out does: 16 and 12 pairs of query heads are multiples of 4, 6 are
  // none.
  c.dispatch = 1e-3, c.score_kernels = 3, c.score_apart = 5, c.score_group = 4;
  EXPECT_DOUBLE_EQ(model.kernel(kernel("attention", {2, 64, 8, 1, 16})), 3e-3);
  EXPECT_DOUBLE_EQ(model.kernel(kernel("attention", {4, 64, 3, 3, 16})), 3e-3);
  EXPECT_DOUBLE_EQ(model.kernel(kernel("attention", {2, 64, 3, 3, 16})), 8e-3);
  EXPECT_DOUBLE_EQ(model.kernel(kernel("attention_dx", {2, 64, 3, 3, 16})), 16e-3);
}

TEST(Cost, ScatteredHandOversSendPartsAndGatherThem) {
  Cluster c = two_nodes_of_four();
  const Mesh mesh{1, 4, 2};
  Message m;
  m.verb = Verb::send, m.axis = Axis::pp, m.type = Type::bf16, m.n = 1 << 20;
  const double bytes = 2.0 * (1 << 20);
  EXPECT_NEAR(CostModel(c, mesh).message(m), 1e-5 + bytes / 2e9, 1e-12);
  // A quarter each between nodes, then a ring of four within: three steps of a quarter.
  const double scattered = 1e-5 + bytes / 4 / 2e9 + 3 * (2e-6 + bytes / 4 / 1e10);
  EXPECT_NEAR(CostModel(c, mesh, 4).message(m), scattered, 1e-12);
  // As many parts as ranks that have the same, which those of sequence parallelism have not.
  c.hand_over_scattered = true;
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const auto parts = [&](const char* plan) {
    return hand_over_shares(c, lockstep::Run{model, settings_on(c, {}), Plan::parse(plan)});
  };
  EXPECT_EQ(parts("tp=4 pp=2"), 4);
  EXPECT_EQ(parts("tp=4 pp=2 sp=1"), 1);
  c.hand_over = 1;
  EXPECT_NEAR(CostModel(c, mesh, 4).message(m), 1 + scattered, 1e-9);
  m.axis = Axis::tie, m.verb = Verb::all_reduce;  // of the same stages, and no hand-over
  EXPECT_LT(CostModel(c, mesh, 4).message(m), 1);
}

// Of each layer and microbatch the down projection and the sum that follows, here without tp: 2 T F D
// operations, and three times T D numbers through memory.
TEST(Compose, WholeLayersAreRunAgain) {
  Cluster c = two_nodes_of_four();
  const ModelConfig m = load_model_config("suites/models/gate-tiny.json");
  Settings settings = settings_on(c, {});
  settings.batch = 4, settings.seq = 64;
  const Plan plan = Plan::parse("ckpt=full"), other = Plan::parse("ckpt=attention");
  const auto seconds = [&](const Plan& p) { return Composer(m, settings, c).predict(p).seconds; };
  const double before = seconds(plan), other_before = seconds(other);
  c.recomputes_whole_layers = true;
  const double T = 64, D = static_cast<double>(m.hidden), F = static_cast<double>(m.intermediate);
  const double matmul = std::max(2 * T * F * D / 1e12, 2 * (T * F + F * D + T * D) / 1e11);
  EXPECT_NEAR(seconds(plan) - before, 4 * static_cast<double>(m.layers) * (matmul + 3 * T * D * 2 / 1e11),
              1e-9);
  EXPECT_DOUBLE_EQ(seconds(other), other_before);
}

}  // namespace
}  // namespace lockstep
