// Every strategy and combination against one device: one hash.
#include <gtest/gtest.h>

#include "suites/gates/gates.hpp"
#include "suites/reference.hpp"

namespace lockstep {
namespace {

struct Scene {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  Whole reference;
  Scene() {
    settings.batch = 16, settings.seq = 16, settings.steps = 3;
    reference = reference_run(model, settings, data, "auto", 1);
  }
};

const Scene& scene() {
  static const Scene s;
  return s;
}

class EveryPlan : public testing::TestWithParam<const char*> {};

TEST_P(EveryPlan, PassesAllGates) {
  const Scene& s = scene();
  const lockstep::Run run{s.model, s.settings, Plan::parse(GetParam()), &s.data};
  const auto refusal = refuse(run.plan, run.model, run.settings);
  ASSERT_FALSE(refusal) << refusal->why;
  const Verdict v = judge(prepare(run), s.reference, {});
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.messages, "pass");
  EXPECT_EQ(v.memory, "pass");
  EXPECT_EQ(v.hash, s.reference.hash());
}

INSTANTIATE_TEST_SUITE_P(
    Plans, EveryPlan,
    testing::Values(
        "dp=1", "micro=2", "micro=16", "ckpt=full", "dp=2", "dp=4 micro=2", "tp=2", "tp=4", "tp=2 sp=1",
        "tp=4 sp=1", "pp=2", "pp=4", "pp=4 ckpt=full", "dp=2 tp=2 pp=2", "dp=2 tp=2 pp=4 ckpt=full",
        "dp=2 tp=4 pp=2 sp=1", "dp=4 tp=2 pp=2 sp=1 ckpt=full micro=2", "dp=16", "ckpt=full every=2",
        "ckpt=attention", "ckpt=norms", "ckpt=swiglu", "ckpt=selective",
        "dp=2 tp=4 pp=2 sp=1 ckpt=selective every=3", "tp=2 sp=1 ckpt=norms", "offload=optimizer",
        "dp=2 tp=2 pp=2 zero=1 offload=optimizer", "offload=optimizer to=disk",
        "dp=2 tp=2 pp=2 offload=optimizer to=disk ckpt=full", "dp=4 zero=2 offload=optimizer to=disk",
        "dp=2 tp=2 zero=3 offload=optimizer to=disk micro=2", "activations=host", "activations=disk",
        "activations=disk micro=4 ckpt=full", "activations=host ckpt=selective every=3 offload=optimizer",
        "pp=4 activations=disk ckpt=norms", "dp=2 tp=2 pp=4 activations=host ckpt=attention micro=2",
        "tp=4 sp=1 activations=disk offload=optimizer to=disk ckpt=swiglu",
        "dp=2 pp=8 activations=host zero=2", "dp=4 zero=3 activations=disk ckpt=full every=2",
        "pp=4 schedule=gpipe activations=disk", "pp=4 schedule=gpipe activations=host ckpt=full micro=2",
        "dp=2 pp=2 schedule=interleaved virtual=2 activations=disk",
        "pp=2 schedule=interleaved virtual=4 activations=host ckpt=full", "zero=1", "zero=3", "dp=2 zero=1",
        "dp=4 zero=2", "dp=4 zero=3 micro=2", "dp=2 tp=2 pp=4 zero=1", "dp=2 tp=4 pp=2 zero=2 sp=1",
        "dp=4 tp=2 pp=2 zero=3 ckpt=full", "pp=2 schedule=interleaved virtual=2",
        "pp=2 schedule=interleaved virtual=4 micro=2", "dp=2 tp=2 pp=4 schedule=interleaved virtual=2",
        "dp=2 tp=4 pp=2 sp=1 zero=2 schedule=interleaved virtual=2 ckpt=full",
        "dp=4 pp=2 zero=3 schedule=interleaved virtual=2", "dp=4 pp=4 zero=2 schedule=interleaved virtual=2",
        "dp=2 pp=8 zero=2", "dp=2 pp=8 zero=3", "pp=4 schedule=gpipe",
        "dp=2 tp=2 pp=2 schedule=gpipe zero=2 micro=2"));

}  // namespace
}  // namespace lockstep
