// Every strategy and combination against one device: one hash.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <tuple>
#include <utility>

#include "suites/gates/fast.hpp"
#include "suites/run/reference.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

ModelConfig named(const std::string& model) { return load_model_config("suites/models/" + model + ".json"); }
Settings run_of(i64 batch, i64 seq, i64 steps) {
  Settings s;
  s.batch = batch, s.seq = seq, s.steps = steps;
  return s;
}

struct Scene {
  ModelConfig model;
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  Weights initial;
  Whole reference;
  FastReference float64;
  Scene(const std::string& name, i64 batch) : Scene(named(name), run_of(batch, 32, 3)) {}
  Scene(const ModelConfig& m, const Settings& s) : model(m), settings(s) {
    initial = fresh_weights(model, settings);
    reference = reference_run(model, settings, data, "auto", 1, initial);
    float64 = fast_reference(model, settings, data, reference, initial);
  }
};

void passes_exactly(const Scene& s, const char* plan) {
  const lockstep::Run run{s.model, s.settings, Plan::parse(plan), &s.data};
  const auto refusal = refuse(run.plan, run.model, run.settings);
  ASSERT_FALSE(refusal) << refusal->why;
  const Verdict v = judge(prepare(run), s.reference, {});
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.messages, "pass");
  EXPECT_EQ(v.memory, "pass");
  EXPECT_EQ(v.hash, s.reference.hash());
}

void passes_fast(const Scene& s, const char* plan) {
  lockstep::Run run{s.model, s.settings, Plan::parse(plan), &s.data};
  run.settings.fast = true;
  const FastVerdict v = judge_fast(prepare(run), s.reference, s.float64, {}, s.initial);
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.messages, "pass");
  EXPECT_EQ(v.memory, "pass");
}

// The formulas hold for a trace in bf16 as for float32's, whatever can be computed of it.
void costs_in_bf16_what_is_stated(const std::string& model, i64 batch, const char* plan) {
  lockstep::Run run{named(model), run_of(batch, 32, 3), Plan::parse(plan), nullptr};
  run.settings.segments = run.plan.number("cp");
  for (const auto& [fast, gradient] : {std::pair{true, 2}, {true, 4}, {false, 4}}) {
    SCOPED_TRACE(fast ? "fast" : "exact");
    run.settings.fast = fast;
    run.settings.weight_bytes = run.settings.activation_bytes = 2, run.settings.gradient_bytes = gradient;
    const Prepared p = prepare(run);
    EXPECT_EQ(judge_messages(p, p.posted), "pass");
    EXPECT_EQ(judge_memory(p, {}), "pass");
  }
}

void passes_all_gates(const Scene& s, const char* plan) {
  {
    SCOPED_TRACE("exact");
    passes_exactly(s, plan);
  }
  SCOPED_TRACE("fast");
  passes_fast(s, plan);
}

const Scene& scene() {
  static const Scene s("gate-tiny", 16);
  return s;
}

class EveryPlan : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlan, PassesAllGates) { passes_all_gates(scene(), GetParam()); }
TEST_P(EveryPlan, CostsInBf16WhatIsStated) { costs_in_bf16_what_is_stated("gate-tiny", 16, GetParam()); }

INSTANTIATE_TEST_SUITE_P(
    Plans, EveryPlan,
    testing::Values(
        "dp=1", "micro=2", "micro=16", "ckpt=full", "dp=2", "dp=4 micro=2", "dp=2 bucket=3",
        "dp=2 tp=2 pp=2 bucket=2", "dp=2 pp=2 bucket=100 schedule=zero-bubble",
        "dp=2 pp=2 schedule=interleaved virtual=2 bucket=4", "tp=2", "tp=4", "tp=2 sp=1", "tp=4 sp=1", "pp=2",
        "pp=4", "pp=4 ckpt=full", "dp=2 tp=2 pp=2", "dp=2 tp=2 pp=4 ckpt=full", "dp=2 tp=4 pp=2 sp=1",
        "dp=4 tp=2 pp=2 sp=1 ckpt=full micro=2", "dp=16", "ckpt=full every=2", "ckpt=attention", "ckpt=norms",
        "ckpt=swiglu", "ckpt=selective", "dp=2 tp=4 pp=2 sp=1 ckpt=selective every=3", "tp=2 sp=1 ckpt=norms",
        "offload=optimizer", "dp=2 tp=2 pp=2 zero=1 offload=optimizer", "zero=1", "zero=3", "dp=2 zero=1",
        "dp=4 zero=2", "dp=4 zero=3 micro=2", "dp=2 tp=2 pp=4 zero=1", "dp=2 tp=4 pp=2 zero=2 sp=1",
        "dp=4 tp=2 pp=2 zero=3 ckpt=full", "pp=2 schedule=interleaved virtual=2",
        "pp=2 schedule=interleaved virtual=4 micro=2", "dp=2 tp=2 pp=4 schedule=interleaved virtual=2",
        "dp=2 tp=4 pp=2 sp=1 zero=2 schedule=interleaved virtual=2 ckpt=full",
        "dp=4 pp=2 zero=3 schedule=interleaved virtual=2", "dp=4 pp=4 zero=2 schedule=interleaved virtual=2",
        "dp=2 pp=8 zero=2", "dp=2 pp=8 zero=3", "pp=4 schedule=gpipe", "pp=2 schedule=zero-bubble",
        "pp=4 schedule=zero-bubble", "pp=8 schedule=zero-bubble", "pp=2 schedule=zero-bubble micro=16",
        "pp=3 schedule=zero-bubble micro=4", "tp=2 pp=4 sp=1 schedule=zero-bubble ckpt=norms",
        "dp=2 tp=2 pp=2 schedule=zero-bubble ckpt=selective every=2",
        "pp=2 schedule=zero-bubble ckpt=attention offload=optimizer",
        "dp=4 pp=2 schedule=zero-bubble ckpt=swiglu zero=1", "dp=2 pp=2 schedule=zero-bubble zero=2",
        "dp=2 pp=4 schedule=zero-bubble zero=3 ckpt=full", "pp=8 micro=4 schedule=zero-bubble zero=2",
        "dp=2 tp=2 pp=2 schedule=gpipe zero=2 micro=2", "dp=2 zero=2 micro=4", "dp=4 zero=1 replicas=2",
        "dp=8 zero=2 replicas=4", "dp=4 pp=2 zero=3 replicas=2 schedule=interleaved virtual=4 ckpt=full",
        "dp=4 tp=2 pp=2 zero=1 replicas=2 schedule=zero-bubble", "dp=4 pp=4 zero=3 replicas=2 micro=2"));

// Batches of three times a power of two: a replica's samples are a whole subtree, microbatches may not be.
class EveryPlanOf12 : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOf12, PassesAllGates) {
  static const Scene scene("gate-tiny", 12);
  passes_all_gates(scene, GetParam());
}
TEST_P(EveryPlanOf12, CostsInBf16WhatIsStated) { costs_in_bf16_what_is_stated("gate-tiny", 12, GetParam()); }

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
                    "dp=2 tp=2 pp=2 zero=3 sp=1", "dp=4 tp=2 zero=2 offload=optimizer",
                    "dp=4 zero=2 replicas=2", "dp=4 zero=3 replicas=2 micro=3 offload=weights"));

class EveryPlanOf24 : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOf24, PassesAllGates) {
  static const Scene scene("gate-tiny", 24);
  passes_all_gates(scene, GetParam());
}
TEST_P(EveryPlanOf24, CostsInBf16WhatIsStated) { costs_in_bf16_what_is_stated("gate-tiny", 24, GetParam()); }

INSTANTIATE_TEST_SUITE_P(Plans, EveryPlanOf24,
                         testing::Values("dp=2 zero=3", "dp=4 zero=2", "dp=8 zero=3", "dp=4 zero=2 micro=2",
                                         "dp=2 zero=2 micro=4", "dp=2 zero=3 micro=4 schedule=gpipe",
                                         "dp=2 zero=2 micro=6", "dp=1 zero=2 micro=8",
                                         "dp=4 pp=2 zero=3 schedule=interleaved virtual=2",
                                         "dp=2 pp=4 zero=2 schedule=interleaved virtual=2 ckpt=selective",
                                         "dp=4 tp=2 pp=2 zero=2 micro=2 schedule=gpipe",
                                         "dp=4 tp=2 pp=2 zero=1 micro=2", "dp=8 pp=2 zero=2 schedule=gpipe",
                                         "dp=8 zero=2 replicas=2", "dp=4 zero=2 replicas=2 micro=2"));

// The same where shards are padded and begin in the middle of rows.
class EveryPlanOfOddSizes : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOfOddSizes, PassesAllGates) {
  static const Scene scene("gate-odd", 36);
  passes_all_gates(scene, GetParam());
}
TEST_P(EveryPlanOfOddSizes, CostsInBf16WhatIsStated) {
  costs_in_bf16_what_is_stated("gate-odd", 36, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Plans, EveryPlanOfOddSizes,
                         testing::Values("dp=4 tp=2 zero=2 micro=3", "dp=2 zero=3 micro=6",
                                         "dp=4 tp=2 pp=2 zero=3 ckpt=full schedule=gpipe",
                                         "dp=4 tp=2 zero=1 replicas=2"));

// A head of its own is the last unit, and has weights to fetch: where they rest below the device, or in
// shards.
class EveryPlanOfAnUntiedHead : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOfAnUntiedHead, PassesAllGates) {
  static const Scene scene(named("gate-untied"), run_of(8, 16, 2));
  passes_all_gates(scene, GetParam());
}
INSTANTIATE_TEST_SUITE_P(Plans, EveryPlanOfAnUntiedHead,
                         testing::Values("offload=weights", "dp=2 zero=3 offload=weights",
                                         "tp=2 pp=2 offload=weights to=disk"));

// Sequences cut over ranks: the reference sums over as many segments. Its heads of keys and values are 4.
class EveryPlanOfSegments : public testing::TestWithParam<const char*> {};
const Scene& scene_of_segments(int segments, i64 batch) {
  static std::map<std::pair<int, i64>, Scene> scenes;
  const auto key = std::pair(segments, batch);
  if (!scenes.count(key)) {
    Settings settings = run_of(batch, 32, 2);
    settings.segments = segments;
    scenes.emplace(std::piecewise_construct, std::tuple(key), std::tuple(named("gate-untied"), settings));
  }
  return scenes.at(key);
}
TEST_P(EveryPlanOfSegments, PassesAllGates) {
  passes_all_gates(scene_of_segments(Plan::parse(GetParam()).number("cp"), 8), GetParam());
}
TEST_P(EveryPlanOfSegments, CostsInBf16WhatIsStated) {
  costs_in_bf16_what_is_stated("gate-untied", 8, GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Plans, EveryPlanOfSegments,
    testing::Values("cp=2", "cp=4", "dp=2 cp=2 micro=2", "cp=2 bucket=2", "cp=2 tp=2",
                    "cp=2 tp=2 sp=1 ckpt=norms", "dp=2 cp=2 tp=2 pp=2", "cp=4 pp=2 ckpt=full micro=2",
                    "cp=2 ckpt=attention", "cp=2 ckpt=swiglu", "cp=2 ckpt=selective every=2 micro=8",
                    "dp=2 cp=2 zero=1", "dp=2 cp=2 zero=2 micro=2", "cp=4 zero=3",
                    "cp=2 tp=2 sp=1 zero=3 ckpt=full", "dp=2 cp=2 pp=2 zero=3 micro=2",
                    "dp=2 cp=2 zero=3 replicas=2", "dp=4 cp=2 zero=2 replicas=2",
                    "dp=4 cp=2 zero=3 replicas=4", "dp=2 cp=4 zero=2 replicas=2 micro=2",
                    "dp=2 cp=4 zero=1 replicas=4", "cp=2 pp=2 schedule=interleaved virtual=2 zero=2",
                    "cp=2 pp=2 schedule=gpipe zero=3", "cp=2 pp=4 schedule=zero-bubble ckpt=attention",
                    "dp=2 cp=2 pp=2 schedule=zero-bubble ckpt=selective zero=2",
                    "cp=2 tp=2 pp=2 schedule=zero-bubble sp=1", "cp=2 offload=optimizer to=disk",
                    "dp=2 cp=2 zero=3 offload=weights", "cp=4 zero=2 offload=optimizer",
                    "cp=2 activations=host micro=2", "cp=2 pp=2 activations=disk ckpt=selective",
                    "cp=2 pp=2 schedule=zero-bubble activations=host ckpt=attention"));

// Microbatches of no power of two, of which owners of shards sum what lies far apart in the tree; shards that
// begin in the middle of rows; a tied head.
class EveryPlanOfSegmentsOf12 : public testing::TestWithParam<const char*> {};
TEST_P(EveryPlanOfSegmentsOf12, PassesAllGates) { passes_all_gates(scene_of_segments(2, 12), GetParam()); }
INSTANTIATE_TEST_SUITE_P(Plans, EveryPlanOfSegmentsOf12,
                         testing::Values("dp=4 cp=2 zero=3", "dp=2 cp=2 zero=2 micro=3",
                                         "cp=2 zero=3 micro=4",
                                         "dp=2 cp=2 pp=2 zero=3 micro=2 schedule=gpipe",
                                         "dp=4 cp=2 zero=2 replicas=2", "dp=4 cp=2 zero=2 replicas=4"));

TEST(Plans, OfSegmentsOfOddSizesPassAllGates) {
  Settings settings = run_of(12, 22, 2);
  settings.segments = 2;
  const Scene scene(named("gate-odd"), settings);
  for (const char* plan : {"cp=2 pp=2", "dp=4 cp=2 zero=3 ckpt=full", "dp=2 cp=2 zero=1 micro=3"})
    passes_all_gates(scene, plan);
}

// Fewer key/value heads than ranks of cp, on a rank of tp: each goes to several, and the parts of its
// gradient are added up. Of 2 heads for 4 ranks, 1 for 4, and 1 that tp shares too.
TEST(Plans, OfSegmentsThatShareHeadsPassAllGates) {
  for (const char* dtype : {"float32", "bf16"})
    for (const int segments : {2, 4}) {
      Settings settings = run_of(4, 16, 2);
      settings.segments = segments;
      set_dtype(settings, dtype);
      const Scene scene(named("gate-tiny"), settings);
      const std::vector<const char*> plans =
          segments == 2
              ? std::vector{"cp=2 tp=2 sp=1 micro=2", "cp=2 tp=4 sp=1 ckpt=full", "cp=2 tp=4 zero=3"}
              : std::vector{"cp=4", "cp=4 tp=2 sp=1 ckpt=attention", "cp=4 ckpt=full micro=2",
                            "dp=2 cp=4 zero=2 activations=host",
                            "cp=4 pp=2 schedule=zero-bubble ckpt=selective"};
      for (const char* plan : plans) passes_all_gates(scene, plan);
    }
}

// A narrow MLP, beside which attention's way back is where most memory is, not on the stage with the head:
// there the sums of shared heads' gradients, and what has gone before them, are seen.
TEST(Plans, OfNarrowMlpsPassAllGates) {
  ModelConfig narrow = named("gate-tiny");
  narrow.intermediate = 8;
  for (const int segments : {2, 4}) {
    Settings settings = run_of(4, 16, 2);
    settings.segments = segments;
    const Scene scene(narrow, settings);
    const std::vector<const char*> plans =
        segments == 2 ? std::vector{"tp=4 pp=2 cp=2 ckpt=selective sp=1", "tp=2 pp=2 cp=2 sp=1",
                                    "tp=4 pp=2 cp=2 ckpt=selective schedule=zero-bubble"}
                      : std::vector{"tp=2 pp=2 cp=4 ckpt=selective schedule=zero-bubble"};
    for (const char* plan : plans) passes_all_gates(scene, plan);
  }
}

// What is exchanged is stored as bf16, and rounded where one device rounds it.
TEST(Plans, OfSegmentsInBf16PassAllGates) {
  Settings settings = run_of(4, 16, 2);
  set_dtype(settings, "bf16");
  settings.segments = 2;
  const Scene scene(named("gate-untied"), settings);
  for (const char* plan : {"cp=2", "cp=2 tp=2 sp=1 micro=2 ckpt=attention", "dp=2 cp=2 pp=2 zero=3"})
    passes_all_gates(scene, plan);
}

// An embedding of more elements than offload copies at once (parallel/strategies/offload.cpp: kBlock): a
// whole block and a part of one.
ModelConfig of_two_blocks() {
  ModelConfig m = named("gate-tiny");
  m.layers = 2, m.vocab = 1100;
  return m;
}
TEST(Offload, TakesAPieceInSeveralBlocks) {
  const Scene scene(of_two_blocks(), run_of(4, 16, 2));
  for (const char* plan : {"offload=optimizer", "offload=weights", "offload=weights to=disk"})
    passes_all_gates(scene, plan);
}
TEST(Offload, TakesAPieceInSeveralBlocksBesideMasters) {
  Settings settings = run_of(4, 16, 2);
  set_dtype(settings, "bf16");
  const Scene scene(of_two_blocks(), settings);
  for (const char* plan : {"offload=optimizer", "offload=weights", "offload=optimizer to=disk"})
    passes_all_gates(scene, plan);
}

// In a file, layers of two sizes that come and go by chunks leave gaps.
TEST(Plans, UnlikeChunksDoNotGoToDisk) {
  const auto rule = [](const std::string& plan) {
    const auto refusal = refuse(Plan::parse("pp=2 schedule=interleaved virtual=2 ckpt=attention " + plan),
                                named("gate-tiny"), run_of(12, 16, 1));
    return refusal ? refusal->rule : "";
  };
  EXPECT_EQ(rule("every=3 activations=disk"), "arena-scattered");
  EXPECT_EQ(rule("every=3 activations=host"), "");
  EXPECT_EQ(rule("every=2 activations=disk"), "");  // each chunk has one of each
  EXPECT_EQ(rule("activations=disk"), "");
}

// The model's first and last chunk have a layer less than the others, or chunks keep unlike activations.
TEST(Plans, OfUnevenChunksPassAllGates) {
  ModelConfig model = named("gate-tiny");
  for (const auto& [layers, plans] : std::map<int, std::vector<const char*>>{
           {6,
            {"pp=4", "pp=2 schedule=interleaved virtual=2 micro=1",
             "pp=2 schedule=interleaved virtual=2 ckpt=full dp=2"}},
           {10,
            {"pp=2 schedule=interleaved virtual=3 ckpt=full every=2 micro=1",
             "pp=2 schedule=interleaved virtual=3 micro=4 dp=2 zero=3",
             "pp=2 schedule=interleaved virtual=2 activations=host dp=2 zero=2",
             "pp=2 schedule=interleaved virtual=2 dp=4 zero=1 bucket=1 micro=2",
             "pp=2 schedule=interleaved virtual=3 activations=disk ckpt=attention tp=2 dp=2",
             "pp=2 schedule=interleaved virtual=3 dp=2 bucket=3 offload=weights"}},
           {8,
            {"pp=2 schedule=interleaved virtual=4 ckpt=full every=2",
             "pp=2 schedule=interleaved virtual=4 ckpt=full every=3 activations=host",
             "pp=4 schedule=interleaved virtual=2 ckpt=norms every=3 micro=2"}}}) {
    model.layers = layers;
    const Scene scene(model, run_of(16, 16, 2));
    for (const char* plan : plans) passes_all_gates(scene, plan);
  }
}

// Sums of other leaves than the eight that all else has.
TEST(Plans, OfFourLeavesPassAllGates) {
  Settings settings = run_of(8, 16, 2);
  settings.leaves = 4;
  const Scene scene(named("gate-tiny"), settings);
  for (const char* plan : {"dp=1", "tp=2", "tp=2 sp=1 pp=2"}) passes_all_gates(scene, plan);
}

// One key/value head, which all four ranks hold.
TEST(Plans, OfOneKeyValueHeadPassAllGates) {
  ModelConfig model = named("gate-tiny");
  model.kv_heads = 1;
  passes_all_gates(Scene(model, run_of(8, 16, 2)), "tp=4");
}

// More than 2^31 gradients in one message. Traced, not run.
TEST(Plans, GradientsOfALargeModelInOneMessageCostWhatIsStated) {
  const Prepared p = prepare({named("llama-3-8b"), run_of(2, 8, 1), Plan::parse("dp=2 bucket=100"), nullptr});
  EXPECT_EQ(judge_messages(p, p.posted), "pass");
  EXPECT_EQ(judge_memory(p, {}), "pass");
}

// A relative error of a hundred-thousandth in one gradient is beyond the bound; so is an optimizer's last
// bit.
TEST(FastGate, NamesWhatDiffers) {
  const Scene& s = scene();
  lockstep::Run run{s.model, s.settings, Plan::parse("dp=2 pp=2"), &s.data};
  run.settings.fast = true;
  const Prepared p = prepare(run);
  FastReference other = s.float64;
  for (double& g : other.steps[1].gradient[5]) g *= 1 + 1e-5;
  const FastVerdict gradient = judge_fast(p, s.reference, other, {}, s.initial);
  EXPECT_TRUE(gradient.numbers.starts_with("step 1: gradient of " + s.reference.table[5].name))
      << gradient.numbers;
  other = s.float64;
  other.steps[2].loss *= 1 + 1e-5;
  const FastVerdict loss = judge_fast(p, s.reference, other, {}, s.initial);
  EXPECT_TRUE(loss.numbers.starts_with("step 2: loss")) << loss.numbers;
  other.steps[2].loss = NAN;
  const FastVerdict none = judge_fast(p, s.reference, other, {}, s.initial);
  EXPECT_TRUE(none.numbers.starts_with("step 2: loss: inf times")) << none.numbers;
}

// The bound grows with the reference's own error, so that has one of its own.
TEST(FastGate, TheReferenceMustBeNearFloat64) {
  const Scene& s = scene();
  EXPECT_EQ(strays(s.float64, s.settings), "");
  const auto said = [&](const auto& change) {
    Whole wrong = s.reference;
    change(wrong.steps[1]);
    return strays(fast_reference(s.model, s.settings, s.data, wrong, s.initial), s.settings);
  };
  const std::string& name = s.reference.table[5].name;
  const auto scaled = [&](float by) {
    return said([&](Whole::Step& step) {
      for (float& g : step.gradient[5]) g *= by;
    });
  };
  EXPECT_EQ(scaled(1.0005f), "");
  EXPECT_TRUE(scaled(1.002f).starts_with("step 1: gradient of " + name));
  EXPECT_TRUE(scaled(NAN).starts_with("step 1: gradient of " + name));
  EXPECT_TRUE(said([](Whole::Step& step) { step.loss *= 1.01; }).starts_with("step 1: loss"));
}

// Fast mode cuts sequences as it likes, whatever the reference sums over.
TEST(FastGate, TakesThreeSegments) {
  const Scene scene(named("gate-thirds"), run_of(4, 24, 2));
  for (const char* plan : {"cp=3", "dp=2 cp=3 zero=2 micro=2", "cp=3 pp=2 ckpt=full"}) {
    SCOPED_TRACE(plan);
    EXPECT_TRUE(refuse(Plan::parse(plan), scene.model, scene.settings));
    passes_fast(scene, plan);
  }
}

// What exact mode cannot sum in its tree, fast mode can.
TEST(FastGate, TakesThreeReplicas) {
  const Scene& s = scene();
  Settings settings = s.settings;
  settings.batch = 12;
  const Whole reference = reference_run(s.model, settings, s.data, "auto", 1, s.initial);
  const FastReference float64 = fast_reference(s.model, settings, s.data, reference, s.initial);
  lockstep::Run run{s.model, settings, Plan::parse("dp=3 tp=2 micro=2"), &s.data};
  EXPECT_TRUE(refuse(run.plan, run.model, run.settings));
  run.settings.fast = true;
  EXPECT_FALSE(refuse(run.plan, run.model, run.settings));
  const FastVerdict v = judge_fast(prepare(run), reference, float64, {}, s.initial);
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.messages, "pass");
  EXPECT_EQ(v.memory, "pass");
}

INSTANTIATE_TEST_SUITE_P(
    Offload, EveryPlan,
    testing::Values(
        "offload=optimizer to=disk", "dp=2 tp=2 pp=2 offload=optimizer to=disk ckpt=full",
        "dp=4 zero=2 offload=optimizer to=disk", "dp=2 tp=2 zero=3 offload=optimizer to=disk micro=2",
        "offload=weights", "offload=weights to=disk", "dp=2 pp=2 offload=weights to=disk ckpt=full",
        "dp=2 tp=2 pp=4 offload=weights bucket=2", "dp=4 zero=1 offload=weights to=disk",
        "dp=2 tp=2 zero=2 offload=weights micro=2", "dp=4 zero=3 offload=weights to=disk",
        "dp=2 tp=2 pp=2 zero=3 offload=weights to=disk activations=disk ckpt=selective",
        "dp=2 pp=8 zero=3 offload=weights", "pp=2 offload=weights schedule=interleaved virtual=2 zero=3",
        "pp=4 offload=optimizer to=disk schedule=zero-bubble", "activations=host", "activations=disk",
        "activations=disk micro=4 ckpt=full", "activations=host ckpt=selective every=3 offload=optimizer",
        "pp=4 activations=disk ckpt=norms", "dp=2 tp=2 pp=4 activations=host ckpt=attention micro=2",
        "tp=4 sp=1 activations=disk offload=optimizer to=disk ckpt=swiglu",
        "dp=2 pp=8 activations=host zero=2", "dp=4 zero=3 activations=disk ckpt=full every=2",
        "pp=4 schedule=gpipe activations=disk", "pp=4 schedule=gpipe activations=host ckpt=full micro=2",
        "dp=2 pp=2 schedule=interleaved virtual=2 activations=disk",
        "pp=2 schedule=interleaved virtual=4 activations=host ckpt=full",
        "pp=4 schedule=zero-bubble activations=disk", "pp=2 schedule=zero-bubble activations=host ckpt=full",
        "dp=2 tp=2 pp=4 schedule=zero-bubble activations=host ckpt=selective every=2 micro=2"));

}  // namespace
}  // namespace lockstep
