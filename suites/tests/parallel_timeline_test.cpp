// Simulated steps as the page shows them: nominal rates against sums by hand, timelines against their own
// step.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "suites/run/reference.hpp"
#include "suites/timing/nominal_costs.hpp"
#include "suites/timing/step_recorder.hpp"
#include "suites/timing/timeline.hpp"

namespace lockstep {
namespace {

Prepared traced(const std::string& plan) {
  static const TokenFile data("datasets/excerpt-v509.tok");
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = 8, settings.seq = 16, settings.fast = true;
  return prepare({model, settings, Plan::parse(plan), &data});
}

const char* const kPlans[] = {"dp=1",
                              "dp=2 tp=2 pp=2",
                              "pp=4 schedule=zero-bubble",
                              "pp=2 schedule=interleaved virtual=2",
                              "dp=4 zero=3 ckpt=full",
                              "dp=2 cp=2 pp=2 micro=2",
                              "dp=2 offload=optimizer to=disk activations=disk"};

TEST(NominalCosts, AKernelTakesItsWorkOverOneRate) {
  const Costs costs = nominal_costs({.flops = 100, .memory = 10, .link = 1, .host = 1, .disk = 1});
  Trace::Event e{Trace::Event::run};
  e.name = "matmul", e.numbers = {2, 3, 5, 8};
  EXPECT_DOUBLE_EQ(costs.kernel(e), 60.0 / 100);
  e.name = "add", e.numbers = {50}, e.views.resize(3);
  EXPECT_DOUBLE_EQ(costs.kernel(e), 600.0 / 10);  // two read, one written, of 4 bytes
  for (View& v : e.views) v.type = Type::bf16;
  EXPECT_DOUBLE_EQ(costs.kernel(e), 300.0 / 10);
}

// What crosses a link of a ring of 4: an all_reduce of V bytes 2 * 3/4 V, its halves 3/4 V each.
TEST(NominalCosts, ACollectiveIsARing) {
  const Costs costs = nominal_costs({.link = 2});
  const Group four{Axis::dp, {0, 1, 2, 3}, 0};
  Message m;
  m.verb = Verb::all_reduce, m.n = 100;
  EXPECT_DOUBLE_EQ(costs.message(m, four), 1.5 * 400 / 2);
  m.n = 25;  // a member's part of 100
  for (const Verb verb : {Verb::reduce_scatter, Verb::all_gather}) {
    m.verb = verb;
    EXPECT_DOUBLE_EQ(costs.message(m, four), 0.75 * 400 / 2);
  }
  m.verb = Verb::send, m.n = 100;
  EXPECT_DOUBLE_EQ(costs.message(m, four), 200);
  m.verb = Verb::all_reduce;
  EXPECT_DOUBLE_EQ(costs.message(m, {Axis::dp, {2}, 0}), 0);
}

TEST(NominalCosts, ACopyGoesThroughTheSlowerOfItsEnds) {
  const Costs costs = nominal_costs({.host = 4, .disk = 2});
  Trace::Event e{Trace::Event::copy};
  e.views.resize(2), e.numbers = {10};
  e.views[0].medium = Medium::host;
  EXPECT_DOUBLE_EQ(costs.copy(e), 10);
  e.views[1].medium = Medium::disk;
  EXPECT_DOUBLE_EQ(costs.copy(e), 20);
  for (View& v : e.views) v.type = Type::bf16;
  EXPECT_DOUBLE_EQ(costs.copy(e), 10);
}

TEST(Timeline, PartsAddUpToTheStep) {
  for (const char* plan : kPlans) {
    const Timeline t = timeline_of(traced(plan), nominal_costs());
    double sum = 0;
    for (const auto& [part, seconds] : t.parts) sum += seconds;
    EXPECT_NEAR(sum, t.seconds, 1e-9 * t.seconds) << plan;
    EXPECT_GT(t.parts.at("update"), 0) << plan;
  }
}

// A rank computes one thing at a time, within the step, and as long as its parts say.
TEST(Timeline, BarsOfAComputingRankFollowEachOther) {
  for (const char* plan : kPlans) {
    const Timeline t = timeline_of(traced(plan), nominal_costs());
    double computing = 0, stages = 0;
    for (const Timeline::Stream& stream : t.streams) {
      if (stream.name != "compute") continue;
      double now = 0;
      for (const Timeline::Bar& bar : stream.bars) {
        EXPECT_GE(bar.from, now - 1e-12) << plan;
        EXPECT_GT(bar.to, bar.from) << plan;
        now = bar.to, computing += bar.to - bar.from;
      }
      EXPECT_LE(now, t.seconds * (1 + 1e-12)) << plan;
      ++stages;
    }
    EXPECT_EQ(stages, Plan::parse(plan).number("pp")) << plan;
    // Closed gaps may add a little.
    EXPECT_NEAR(computing / stages, t.parts.at("compute") + t.parts.at("update"), 0.03 * t.seconds) << plan;
  }
}

// 8 microbatches: each goes forward and backward once on every stage of GPipe, all forwards first.
TEST(Timeline, SaysWhichPassOfWhichMicrobatch) {
  const Timeline t = timeline_of(traced("pp=2 schedule=gpipe"), nominal_costs());
  for (const Timeline::Stream& stream : t.streams) {
    if (stream.name != "compute") continue;
    std::vector<std::pair<std::string, int>> said;
    for (const Timeline::Bar& bar : stream.bars)
      if (bar.pass == "forward" || bar.pass == "backward")
        if (said.empty() || said.back() != std::pair{bar.pass, bar.microbatch})
          said.emplace_back(bar.pass, bar.microbatch);
    ASSERT_EQ(said.size(), 16u);
    for (int j = 0; j < 8; ++j) {
      EXPECT_EQ(said[j], std::pair(std::string("forward"), j));
      EXPECT_EQ(said[8 + j].first, "backward");
    }
    EXPECT_EQ(stream.bars.back().pass, "update");
  }
}

TEST(Timeline, OffloadHasAStreamOfCopiesAndOthersHaveNone) {
  for (const char* plan : kPlans) {
    double copies = 0;
    for (const Timeline::Stream& stream : timeline_of(traced(plan), nominal_costs()).streams)
      copies += stream.name == "copies";
    EXPECT_EQ(copies > 0, std::string(plan).find("offload") != std::string::npos) << plan;
  }
}

// One rank computes 4 s forward, waits 2 s for dp, goes on for 1 s and updates for 3 s; the other computes 10
// s.
TEST(Timeline, PartsThatWereMeasuredAreAMeanOverRanks) {
  const StepRecorder::Clock::time_point begin{};
  const Timeline t =
      timeline_of({StepRecorder::of("0 0 0 0 forward\n4000000000 1 -1 -1 dp\n6000000000 2 -1 -1 \n"
                                    "7000000000 0 -1 -1 update\n10000000000 3 -1 -1 \n",
                                    begin),
                   StepRecorder::of("0 0 0 0 forward\n10000000000 3 -1 -1 \n", begin)},
                  Mesh{.dp = 2});
  EXPECT_DOUBLE_EQ(t.seconds, 10);
  const std::map<std::string, double> parts = {{"compute", (4 + 1 + 10) / 2.0}, {"dp", 1}, {"update", 1.5}};
  EXPECT_EQ(t.parts, parts);
}

// As the program says of its letters: digits are forward, small letters backward, capitals weight gradients.
TEST(Timeline, EachPassHasALetterOfItsOwn) {
  Timeline t;
  t.seconds = 4;
  t.streams = {{0,
                "compute",
                {{0, 1, "forward", 0, 3},
                 {1, 2, "backward", 0, 1},
                 {2, 3, "weight gradients", 0, 2},
                 {3, 4, "update", -1, -1}}}};
  EXPECT_EQ(text_of(t, 4), "rank 0   compute  3bCU\n");
}

// From 2 s to 6 s of 10: what began before is cut off, what lies outside is gone, and time begins there.
TEST(Timeline, APartOfItBeginsAtNothing) {
  Timeline whole;
  whole.seconds = 10, whole.parts = {{"compute", 5}};
  whole.streams = {
      {0, "compute", {{0, 1, "a", 0, 0}, {1, 3, "b", 0, 0}, {4, 5, "c", 0, 1}, {5, 9, "d", 0, 1}}}};
  const Timeline part = cut(whole, 2, 6);
  EXPECT_EQ(part.seconds, 4);
  EXPECT_EQ(part.from, 2);
  EXPECT_EQ(part.step, 10);
  EXPECT_EQ(part.parts.at("compute"), 2);
  ASSERT_EQ(part.streams[0].bars.size(), 3u);
  const std::tuple<double, double, std::string> bars[] = {{0, 1, "b"}, {2, 3, "c"}, {3, 4, "d"}};
  for (std::size_t i = 0; i < 3; ++i) {
    const Timeline::Bar& bar = part.streams[0].bars[i];
    EXPECT_EQ(std::tuple(bar.from, bar.to, bar.pass), bars[i]);
  }
}

TEST(Timeline, ItsJsonHoldsWhatItDraws) {
  const Timeline t = timeline_of(traced("dp=2 tp=2 pp=2"), nominal_costs());
  const nlohmann::json json = nlohmann::json::parse(json_of(t));
  EXPECT_DOUBLE_EQ(json["seconds"], t.seconds);
  ASSERT_EQ(json["streams"].size(), t.streams.size());
  for (std::size_t i = 0; i < t.streams.size(); ++i) {
    const auto& [rank, name, bars] = t.streams[i];
    const nlohmann::json& numbers = json["streams"][i][2];
    EXPECT_EQ(json["streams"][i][0], rank);
    EXPECT_EQ(json["streams"][i][1], name);
    ASSERT_EQ(numbers.size(), 5 * bars.size());
    for (std::size_t b = 0; b < bars.size(); ++b) {
      EXPECT_NEAR(numbers[5 * b].get<double>() / 10000 * t.seconds, bars[b].from, t.seconds / 10000);
      EXPECT_EQ(json["passes"][numbers[5 * b + 2].get<int>()], bars[b].pass);
      EXPECT_EQ(numbers[5 * b + 4], bars[b].microbatch);
    }
  }
}

}  // namespace
}  // namespace lockstep
