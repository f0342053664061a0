// Every strategy and combination against one device: one hash.
#include <gtest/gtest.h>

#include "suites/gates/gates.hpp"
#include "suites/reference.hpp"

namespace lockstep {
namespace {

struct Scene {
  ModelConfig model;
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  Whole reference;
  Scene(const std::string& name, i64 batch) : model(load_model_config("suites/models/" + name + ".json")) {
    settings.batch = batch, settings.seq = 16, settings.steps = 3;
    reference = reference_run(model, settings, data, "auto", 1);
  }
};

void passes_all_gates(const Scene& s, const char* plan) {
  const lockstep::Run run{s.model, s.settings, Plan::parse(plan), &s.data};
  const auto refusal = refuse(run.plan, run.model, run.settings);
  ASSERT_FALSE(refusal) << refusal->why;
  const Verdict v = judge(prepare(run), s.reference, {});
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.messages, "pass");
  EXPECT_EQ(v.memory, "pass");
  EXPECT_EQ(v.hash, s.reference.hash());
}

class EveryPlan : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlan, PassesAllGates) {
  static const Scene scene("gate-tiny", 16);
  passes_all_gates(scene, GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Plans, EveryPlan,
    testing::Values("dp=1", "micro=2", "micro=16", "ckpt=full", "dp=2", "dp=4 micro=2", "tp=2", "tp=4",
                    "tp=2 sp=1", "tp=4 sp=1", "pp=2", "pp=4", "pp=4 ckpt=full", "dp=2 tp=2 pp=2",
                    "dp=2 tp=2 pp=4 ckpt=full", "dp=2 tp=4 pp=2 sp=1",
                    "dp=4 tp=2 pp=2 sp=1 ckpt=full micro=2", "dp=16", "ckpt=full every=2", "ckpt=attention",
                    "ckpt=norms", "ckpt=swiglu", "ckpt=selective",
                    "dp=2 tp=4 pp=2 sp=1 ckpt=selective every=3", "tp=2 sp=1 ckpt=norms", "offload=optimizer",
                    "dp=2 tp=2 pp=2 zero=1 offload=optimizer", "zero=1", "zero=3", "dp=2 zero=1",
                    "dp=4 zero=2", "dp=2 zero=2 micro=4", "dp=4 zero=3 micro=2", "dp=2 tp=2 pp=4 zero=1",
                    "dp=2 tp=4 pp=2 zero=2 sp=1", "dp=4 tp=2 pp=2 zero=3 ckpt=full",
                    "pp=2 schedule=interleaved virtual=2", "pp=2 schedule=interleaved virtual=4 micro=2",
                    "dp=2 tp=2 pp=4 schedule=interleaved virtual=2",
                    "dp=2 tp=4 pp=2 sp=1 zero=2 schedule=interleaved virtual=2 ckpt=full",
                    "dp=4 pp=2 zero=3 schedule=interleaved virtual=2",
                    "dp=4 pp=4 zero=2 schedule=interleaved virtual=2", "dp=2 pp=8 zero=2", "dp=2 pp=8 zero=3",
                    "pp=4 schedule=gpipe", "dp=2 tp=2 pp=2 schedule=gpipe zero=2 micro=2"));

// Batches of three times a power of two: a replica's samples are a whole subtree, microbatches may not be.
class EveryPlanOf12 : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOf12, PassesAllGates) {
  static const Scene scene("gate-tiny", 12);
  passes_all_gates(scene, GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Plans, EveryPlanOf12,
    testing::Values("dp=1", "micro=4", "dp=4", "dp=4 micro=3", "dp=2 micro=2", "schedule=gpipe",
                    "pp=2 schedule=gpipe micro=2", "pp=2 schedule=gpipe micro=4", "dp=4 schedule=gpipe",
                    "dp=4 zero=1", "dp=2 zero=1 micro=2 schedule=gpipe", "dp=2 zero=2", "dp=2 zero=3",
                    "dp=4 zero=2", "dp=4 zero=3", "dp=4 zero=3 micro=3", "dp=2 zero=2 micro=3",
                    "dp=2 zero=2 micro=2", "dp=2 zero=3 micro=2 ckpt=full", "zero=2 micro=4", "zero=3",
                    "dp=2 pp=2 zero=2 schedule=gpipe", "dp=4 pp=2 zero=3 schedule=gpipe",
                    "dp=2 pp=2 zero=2 micro=2 schedule=gpipe", "dp=2 pp=4 zero=3 ckpt=full",
                    "dp=2 pp=8 zero=2", "dp=2 pp=2 zero=2 schedule=interleaved virtual=2",
                    "dp=2 tp=2 pp=2 zero=3 sp=1", "dp=4 tp=2 zero=2 offload=optimizer"));

class EveryPlanOf24 : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOf24, PassesAllGates) {
  static const Scene scene("gate-tiny", 24);
  passes_all_gates(scene, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Plans, EveryPlanOf24,
                         testing::Values("dp=2 zero=3", "dp=4 zero=2", "dp=8 zero=3", "dp=4 zero=2 micro=2",
                                         "dp=2 zero=2 micro=4", "dp=2 zero=3 micro=4 schedule=gpipe",
                                         "dp=2 zero=2 micro=6", "dp=1 zero=2 micro=8",
                                         "dp=4 pp=2 zero=3 schedule=interleaved virtual=2",
                                         "dp=2 pp=4 zero=2 schedule=interleaved virtual=2 ckpt=selective",
                                         "dp=4 tp=2 pp=2 zero=2 micro=2 schedule=gpipe",
                                         "dp=4 tp=2 pp=2 zero=1 micro=2", "dp=8 pp=2 zero=2 schedule=gpipe"));

// The same where shards are padded and begin in the middle of rows.
class EveryPlanOfOddSizes : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOfOddSizes, PassesAllGates) {
  static const Scene scene("gate-odd", 36);
  passes_all_gates(scene, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Plans, EveryPlanOfOddSizes,
                         testing::Values("dp=4 tp=2 zero=2 micro=3", "dp=2 zero=3 micro=6",
                                         "dp=4 tp=2 pp=2 zero=3 ckpt=full schedule=gpipe"));

}  // namespace
}  // namespace lockstep
