// The composed prediction of a plan against its whole trace.
#include <gtest/gtest.h>

#include <cstdlib>

#include "suites/planner/compose.hpp"
#include "suites/planner/enumerate.hpp"

namespace lockstep {
namespace {

// Two nodes of four slow devices, so that everything shows: kernels, messages and copies take similar times.
Cluster small_cluster() {
  Cluster c;
  c.devices = 8, c.per_node = 4;
  c.memory = 1e9, c.flops = 1e12, c.memory_bandwidth = 1e11, c.launch = 1e-7;
  c.efficiency["matmul"] = Curve({{1e4, 0.1}, {1e8, 0.7}});
  c.node = {1e10, 2e-6, {}, {}}, c.network = {2e9, 1e-5, Curve({{1e3, 0.3}, {1e7, 0.9}}), {}};
  c.host = {3e9, 3e-6, {}, {}}, c.host_memory = 1e10, c.host_bandwidth = 2e10;
  c.disk = {1e9, 1e-5, {}, {}}, c.disk_bytes = 1e12;
  return c;
}

struct Setting {
  const char* model;
  i64 batch;
  i64 devices;
  i64 layers = 0;  // 0: the model's
};

const std::vector<Setting> six_settings = {{"gate-tiny", 48, 8},   {"gate-tiny", 12, 4},
                                           {"gate-untied", 16, 8}, {"gate-odd", 8, 4},
                                           {"gate-tiny", 8, 1},    {"gate-tiny", 16, 4, 10}};

// Of each setting the same number of plans, `wanted` in all; `more`: values of further words.
void expect_the_whole_trace_on_random_plans(const Cluster& cluster, int wanted,
                                            const std::vector<Setting>& list = six_settings,
                                            const Values& more = {}) {
  Dice dice(7);
  const int each = wanted / static_cast<int>(list.size());
  int done = 0;
  for (const Setting& s : list) {
    ModelConfig model = load_model_config("suites/models/" + std::string(s.model) + ".json");
    if (s.layers > 0) model.layers = s.layers;
    Settings settings = settings_on(cluster, {});
    settings.batch = s.batch, settings.seq = 32;
    std::vector<std::string> lines;
    Values given = {{"every", {"1", "2", "3"}}, {"replicas", {"1", "2"}}, {"bucket", {"1", "2", "3", "100"}}};
    for (const auto& [word, list_of_it] : more) given[word] = list_of_it;
    const Values values = plan_values(model, settings, s.devices, given);
    each_legal_plan(model, settings, s.devices, values, [&](const Plan& p) { lines.push_back(p.line()); });
    ASSERT_GT(lines.size(), 100u);
    dice.shuffle(lines);
    Composer composer(model, settings, cluster);
    for (int i = 0; i < each; ++i, ++done) {
      const Plan plan = Plan::parse(lines[static_cast<std::size_t>(i)]);
      const Prediction whole = predict_by_trace({model, settings, plan}, cluster);
      const Prediction composed = composer.predict(plan);
      const std::string which = std::string(s.model) + " " + plan.line();
      EXPECT_NEAR(composed.seconds / whole.seconds, 1, 1e-6) << which;
      ASSERT_EQ(composed.stages.size(), whole.stages.size());
      for (std::size_t p = 0; p < whole.stages.size(); ++p) {
        const StagePrediction &a = composed.stages[p], &b = whole.stages[p];
        EXPECT_EQ(a.live, b.live) << which << ", stage " << p;
        const double near = 1e-6 * whole.seconds;
        EXPECT_NEAR(a.compute, b.compute, near) << which << ", stage " << p;
        EXPECT_NEAR(a.update, b.update, near) << which << ", stage " << p;
        EXPECT_NEAR(a.copies, b.copies, near) << which << ", stage " << p;
        EXPECT_NEAR(a.bubble, b.bubble, near) << which << ", stage " << p;
        for (std::size_t x = 0; x < a.exposed.size(); ++x)
          EXPECT_NEAR(a.exposed[x], b.exposed[x], near)
              << which << ", stage " << p << ", " << axis_name(static_cast<Axis>(x));
      }
      const Prediction weighed = composer.weigh(plan);
      EXPECT_NEAR(weighed.seconds / whole.seconds, 1, 1e-6) << which;
      for (std::size_t p = 0; p < whole.stages.size(); ++p)
        EXPECT_EQ(weighed.stages[p].live, whole.stages[p].live) << which << ", stage " << p;
      if (testing::Test::HasFailure()) return;
    }
  }
  EXPECT_GE(done, each * static_cast<int>(list.size()));
}

TEST(Compose, EqualsTheWholeTraceOnRandomPlans) {
  const char* asked = std::getenv("LOCKSTEP_PLANS");
  expect_the_whole_trace_on_random_plans(small_cluster(), asked ? std::atoi(asked) : 600);
}

// Where tp's groups leave their nodes, and take links from dp's.
TEST(Compose, EqualsTheWholeTraceWhereMessagesShareTheNetwork) {
  Cluster c = small_cluster();
  c.per_node = 1;
  expect_the_whole_trace_on_random_plans(c, 200);
}

// On a machine whose ranks are threads, that move messages and copies themselves.
Cluster of_threads() {
  Cluster c = small_cluster();
  c.per_node = 8, c.copies_block = c.messages_block = true;
  for (const char* verb : {"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"})
    c.carried[verb] = {Curve({{8, 1e7}, {1e5, 3e9}}), Curve({{8, 5e6}, {1e5, 1e9}})};
  c.carried["send"] = {Curve({{1e3, 1e9}, {1e5, 2e9}}), Curve({{1e3, 1e10}})};
  c.carried["recv"] = {Curve({{1e3, 2e10}}), Curve({{1e3, 5e8}, {1e5, 1e9}})};
  return c;
}

TEST(Compose, EqualsTheWholeTraceWhereRanksCarryTheirMessages) {
  expect_the_whole_trace_on_random_plans(of_threads(), 100);
}

// Where sequences are cut: with every other word, in groups of replicas as many as segments, fewer and more,
// and with exchanges that leave their nodes.
const std::vector<Setting> cut_settings = {
    {"gate-tiny", 24, 8}, {"gate-untied", 16, 8}, {"gate-odd", 8, 4}, {"gate-tiny", 8, 2, 10}};
const Values cut = {{"cp", {"2", "4"}}, {"replicas", {"1", "2", "4"}}};

TEST(Compose, EqualsTheWholeTraceWhereSequencesAreCut) {
  expect_the_whole_trace_on_random_plans(small_cluster(), 240, cut_settings, cut);
}

TEST(Compose, EqualsTheWholeTraceWhereExchangesShareTheNetwork) {
  Cluster c = small_cluster();
  c.per_node = 1;
  expect_the_whole_trace_on_random_plans(c, 120, cut_settings, cut);
}

TEST(Compose, EqualsTheWholeTraceWhereRanksCarryTheirExchanges) {
  expect_the_whole_trace_on_random_plans(of_threads(), 60, cut_settings, cut);
}

// Of a model of 100 M parameters.
void expect_the_whole_trace(const std::vector<std::string>& lines) {
  Cluster cluster = small_cluster();
  cluster.memory = 1e11, cluster.host_memory = 1e12;
  const ModelConfig model = load_model_config("suites/models/smol-100m.json");
  Settings settings = settings_on(cluster, {});
  settings.batch = 4, settings.seq = 32;
  Composer composer(model, settings, cluster);
  for (const std::string& line : lines) {
    const Plan plan = Plan::parse(line);
    const Prediction whole = predict_by_trace({model, settings, plan}, cluster);
    for (const Prediction& p : {composer.predict(plan), composer.weigh(plan)}) {
      EXPECT_NEAR(p.seconds / whole.seconds, 1, 1e-6) << line;
      ASSERT_EQ(p.stages.size(), whole.stages.size()) << line;
      for (std::size_t s = 0; s < p.stages.size(); ++s)
        EXPECT_EQ(p.stages[s].live, whole.stages[s].live) << line << ", stage " << s;
    }
  }
}

// And of a deep one, whose buckets do not come out even.
TEST(Compose, EqualsTheWholeTraceWhereManyLayersAreReducedTogether) {
  expect_the_whole_trace({"dp=2 bucket=3", "dp=2 pp=2 bucket=5 micro=1", "dp=4 bucket=100",
                          "dp=2 pp=2 schedule=interleaved virtual=3 bucket=3 micro=1",
                          "cp=2 dp=2 pp=2 bucket=5 micro=1"});
}

// Of a deep model one layer's calls of the shelf stand for many layers'.
TEST(Compose, EqualsTheWholeTraceWhereManyLayersLeaveTheirActivations) {
  expect_the_whole_trace({"activations=host", "activations=disk ckpt=attention", "pp=2 activations=host",
                          "dp=2 zero=3 offload=weights activations=host", "cp=2 pp=2 activations=host"});
}

// The host's optimizer takes a large model's pieces block by block; the composition looks at few of them.
TEST(Compose, EqualsTheWholeTraceWhereTheOptimizerWorksInManyBlocks) {
  expect_the_whole_trace({"offload=optimizer", "offload=weights", "offload=optimizer to=disk",
                          "tp=2 dp=2 zero=2 offload=optimizer", "dp=4 zero=3 offload=weights",
                          "cp=2 dp=2 zero=1 offload=optimizer", "cp=4 zero=3 offload=weights"});
}

}  // namespace
}  // namespace lockstep
