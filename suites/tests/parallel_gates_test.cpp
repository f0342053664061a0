// The gates themselves: what each must see, and sizes that nothing divides.
#include <gtest/gtest.h>

#include <algorithm>

#include "suites/gates/gates.hpp"
#include "suites/reference.hpp"

namespace lockstep {
namespace {

struct Scene {
  ModelConfig model;
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  explicit Scene(const std::string& name) : model(load_model_config("suites/models/" + name + ".json")) {
    settings.batch = 16, settings.seq = 16, settings.steps = 3;
  }
  Prepared prepared(const char* plan) const { return prepare({model, settings, Plan::parse(plan), &data}); }
};

TEST(Gates, EveryRankMustReportTheSameLossAndNorm) {
  const Prepared p = Scene("gate-tiny").prepared("dp=2");
  for (const StepResult& other : {StepResult{6.5, 1.25}, StepResult{6.25, 1.5}}) {
    Assembly assembly(p, 1);
    assembly.result(0, {6.25, 1.25}, 1);
    assembly.result(0, other, 0);
    EXPECT_NE(assembly.problem().find("replicas differ: step 0: loss and gradient norm: rank 0"),
              std::string::npos)
        << assembly.problem();
  }
}

TEST(Gates, EveryMessageMustBeWaitedFor) {
  const Scene scene("gate-tiny");
  Prepared p = scene.prepared("pp=2");
  EXPECT_EQ(never_waited_for(p), "");
  auto& events = p.traces[1].events;
  const auto receive = std::find_if(events.begin(), events.end(), [](const Trace::Event& e) {
    return e.what == Trace::Event::start && e.message.verb == Verb::recv;
  });
  ASSERT_NE(receive, events.end());
  std::erase_if(events, [request = receive->request](const Trace::Event& e) {
    return e.what == Trace::Event::wait && e.request == request;
  });
  const std::string wrong = "rank 1 never waits for its recv of `chunk1.x` microbatch 0 on pp";
  EXPECT_EQ(never_waited_for(p), wrong);
  EXPECT_EQ(judge(p, reference_run(scene.model, scene.settings, scene.data, "auto", 1), {}).messages, wrong);
}

TEST(Gates, EveryCopyMustBeWaitedFor) {
  Prepared p = Scene("gate-tiny").prepared("activations=host");
  EXPECT_EQ(never_waited_for(p), "");
  auto& events = p.traces[0].events;
  const auto copy = std::find_if(events.begin(), events.end(),
                                 [](const Trace::Event& e) { return e.what == Trace::Event::copy; });
  ASSERT_NE(copy, events.end());
  std::erase_if(events, [request = copy->request](const Trace::Event& e) {
    return e.what == Trace::Event::copied && e.request == request;
  });
  EXPECT_EQ(never_waited_for(p), "rank 0 never waits for its copy `activation out`");
}

TEST(Gates, DiskIsHeldToItsFormulaAndToItsLiveBytes) {
  Prepared p = Scene("gate-tiny").prepared("dp=2 offload=weights to=disk");
  EXPECT_EQ(judge_memory(p, {}), "pass");
  ArenaPlan& file = p.layouts[1][static_cast<int>(Medium::disk)];
  file.bytes = file.live * 106 / 100;
  EXPECT_TRUE(judge_memory(p, {}).starts_with("rank 1: the file has ")) << judge_memory(p, {});
  file.bytes = file.live;
  for (Trace::Event& e : p.traces[1].events)
    if (e.what == Trace::Event::take && e.kind == Kind::disk) {
      e.bytes += 4;
      break;
    }
  EXPECT_TRUE(judge_memory(p, {}).starts_with("rank 1: disk: the formula says ")) << judge_memory(p, {});
}

TEST(Gates, ArenasOfDeviceAndHostTogetherAreHeldToTheirLiveBytes) {
  Prepared p = Scene("gate-tiny").prepared("activations=host");
  ArenaPlan &device = p.layouts[0][static_cast<int>(Medium::device)],
            &host = p.layouts[0][static_cast<int>(Medium::host)];
  EXPECT_GT(host.live, 0);
  device.bytes = device.live, host.bytes = host.live + (device.live + host.live) / 20;
  EXPECT_EQ(judge_memory(p, {}), "pass");
  host.bytes += 2;
  EXPECT_TRUE(judge_memory(p, {}).starts_with("rank 0: the arenas have ")) << judge_memory(p, {});
}

// With tp=2 a layer has 3550 elements and a norm 50: over dp=4 every shard of theirs is padded, and shards
// begin in the middle of rows.
class OddSizes : public testing::TestWithParam<const char*> {};

TEST_P(OddSizes, PassesAllGates) {
  static const Scene scene("gate-odd");
  static const Whole reference = reference_run(scene.model, scene.settings, scene.data, "auto", 1);
  const Verdict v = judge(scene.prepared(GetParam()), reference, {});
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.messages, "pass");
  EXPECT_EQ(v.memory, "pass");
}

INSTANTIATE_TEST_SUITE_P(Plans, OddSizes,
                         testing::Values("dp=4 tp=2 zero=1", "dp=4 tp=2 zero=2 micro=2",
                                         "dp=4 tp=2 pp=2 zero=3 ckpt=full", "dp=8 zero=3",
                                         "dp=2 tp=2 pp=2 sp=1 micro=2", "dp=4 tp=2 zero=1 offload=optimizer",
                                         "dp=4 tp=2 zero=2 offload=weights to=disk",
                                         "dp=4 zero=1 offload=weights activations=disk ckpt=norms",
                                         "dp=8 zero=3 offload=weights to=disk"));

}  // namespace
}  // namespace lockstep
