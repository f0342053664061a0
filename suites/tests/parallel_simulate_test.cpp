// Simulated steps against the closed forms of the papers that describe the schedules.
#include <gtest/gtest.h>

#include "parallel/cluster.hpp"
#include "parallel/trace/simulate.hpp"
#include "suites/run/reference.hpp"

namespace lockstep {
namespace {

constexpr int kBatch = 8, kLayers = 8;

// Forward, input gradients and weight gradients of a layer and microbatch take `f`, `b` and `w` seconds: that
// of the one kernel that each has once. Weight gradients are seven matmuls; embedding and head are free.
struct Times {
  double f = 1, b = 1, w = 1, boundary = 0, replicas = 0;
};
Simulated simulated(const std::string& plan, const Times& t, bool everybody = false) {
  static const TokenFile data("datasets/excerpt-v509.tok");
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = kBatch, settings.seq = 16, settings.fast = true;
  const Prepared p = prepare({model, settings, Plan::parse(plan), &data});
  const Costs costs{[&](const Trace::Event& e) {
                      const std::string name = e.name;
                      if (name == "attention") return t.f;
                      if (name == "attention_dx") return t.b;
                      return name == "matmul_dw" && e.numbers[1] < 500 ? t.w / 7 : 0.0;
                    },
                    [&](const Message& m, const Group&) {
                      return m.axis == Axis::pp ? t.boundary : m.axis == Axis::dp ? t.replicas : 0.0;
                    }};
  std::vector<const Trace*> traces;
  std::vector<int> all;
  for (const Trace& trace : p.traces) all.push_back(static_cast<int>(all.size())), traces.push_back(&trace);
  return simulate(traces, p.mesh, everybody ? all : one_of_each_stage(p.mesh), costs);
}

// Ranks that carry their messages themselves: nothing goes on beside. Rank 0 comes after 3 s and rank 1 after
// 5; starting takes 1 s and the rest 2 s of each, so both end at 5 + 1 + 2 = 8, and rank 0 has waited for 2.
TEST(Simulate, MessagesMayBeTheRanksOwnWork) {
  Trace traces[2];
  for (int rank = 0; rank < 2; ++rank) {
    Trace::Event run{Trace::Event::run}, start{Trace::Event::start}, wait{Trace::Event::wait};
    run.name = "a kernel", run.numbers = {rank == 0 ? 3.0 : 5.0};
    start.request = wait.request = 0, start.message.axis = Axis::dp, start.message.n = 1;
    traces[rank].events = {{Trace::Event::step}, run, start, wait};
  }
  Costs costs{[](const Trace::Event& e) { return e.numbers[0]; },
              [](const Message&, const Group&) { return 2.0; }};
  costs.messages_block = true, costs.beginning = [](const Message&) { return 1.0; };
  const Simulated s = simulate({&traces[0], &traces[1]}, {2, 1, 1, 1}, {0, 1}, costs);
  EXPECT_DOUBLE_EQ(s.seconds, 8);
  EXPECT_DOUBLE_EQ(s.ranks.at(0).bubble, 2);
  EXPECT_DOUBLE_EQ(s.ranks.at(1).bubble, 0);
  for (const int rank : {0, 1}) EXPECT_DOUBLE_EQ(s.ranks.at(rank).exposed.at(Axis::dp), 3);
}

// A sum of dp's that takes 10 s stands still for 2 of the 3 s of tp's message beside it: kernels are over
// after 7, and the sum after 12. One that has arrived by then, or starts later, knows nothing of it.
TEST(Simulate, MessagesThatShareLinksDelayThoseOfReplicas) {
  const auto seconds = [](bool before, double sum) {
    Trace trace;
    Trace::Event run{Trace::Event::run}, of_dp{Trace::Event::start}, of_tp{Trace::Event::start},
        dp_wait{Trace::Event::wait}, tp_wait{Trace::Event::wait};
    run.name = "a kernel", run.numbers = {4};
    of_dp.request = dp_wait.request = 0, of_dp.message.axis = Axis::dp;
    of_tp.request = tp_wait.request = 1, of_tp.message.axis = Axis::tp;
    trace.events = {{Trace::Event::step}};
    if (before) trace.events.push_back(of_dp);
    trace.events.insert(trace.events.end(), {of_tp, tp_wait});
    if (!before) trace.events.push_back(of_dp);
    trace.events.insert(trace.events.end(), {run, dp_wait});
    Costs costs{[](const Trace::Event& e) { return e.numbers[0]; },
                [&](const Message& m, const Group&) { return m.axis == Axis::dp ? sum : 3.0; }};
    costs.delay = [](const Message& m) { return m.axis == Axis::tp ? 2.0 : 0.0; };
    const Simulated s = simulate({&trace}, {.dp = 2, .tp = 2}, {0}, costs);
    double last = 0;
    for (const Simulated::Bar& bar : s.bars) last = std::max(last, bar.to);
    EXPECT_DOUBLE_EQ(last, s.seconds);
    return s.seconds;
  };
  EXPECT_DOUBLE_EQ(seconds(true, 10), 12);
  EXPECT_DOUBLE_EQ(seconds(true, 5), 7);
  EXPECT_DOUBLE_EQ(seconds(true, 6), 8);
  EXPECT_DOUBLE_EQ(seconds(false, 10), 13);
}

TEST(Simulate, OneDeviceIsTheSumOfItsKernels) {
  EXPECT_NEAR(simulated("dp=1", {}).seconds, 3.0 * kBatch * kLayers, 1e-9);
}

// Narayanan et al. 2021, section 2.2: (m + p - 1) (F + B); idle over busy (p - 1) / m, interleaved / v.
TEST(Simulate, PipelinesIdleAsTheirPapersSay) {
  for (const int p : {2, 4, 8})
    for (const char* schedule : {"1f1b", "gpipe"}) {
      const std::string plan = "pp=" + std::to_string(p) + " schedule=" + schedule;
      const Simulated s = simulated(plan, {.f = 1, .b = 1.5, .w = 0.5});
      EXPECT_NEAR(s.seconds, (kBatch + p - 1) * 3.0 * kLayers / p, 1e-9) << plan;
      for (const auto& [rank, r] : s.ranks) EXPECT_NEAR(r.bubble, (p - 1) * 3.0 * kLayers / p, 1e-9) << plan;
    }
  for (const int p : {2, 4})
    for (const int v : {2, 4}) {
      if (p * v > kLayers) continue;
      const std::string plan =
          "pp=" + std::to_string(p) + " schedule=interleaved virtual=" + std::to_string(v);
      const double busy = kBatch * 3.0 * kLayers / p;
      EXPECT_NEAR(simulated(plan, {.f = 1, .b = 1.5, .w = 0.5}).seconds,
                  busy * (1 + (p - 1.0) / (v * kBatch)), 1e-9)
          << plan;
    }
}

// Qi et al. 2023, section 2.3: ZB-H1 idles (p - 1) (F + B - W).
TEST(Simulate, ZeroBubbleIdlesLess) {
  for (const int p : {2, 4}) {
    const double layers = static_cast<double>(kLayers) / p;
    for (const double w : {0.5, 1.0}) {
      const Simulated s = simulated("pp=" + std::to_string(p) + " schedule=zero-bubble", {.w = w});
      EXPECT_NEAR(s.seconds, (kBatch * (2 + w) + (p - 1) * (2 - w)) * layers, 1e-9) << p << " " << w;
    }
  }
}

// Units' sums follow each other beside backward, which here only layers take time for: the last one's, and
// final norm's and head's before it, are ready when it begins; the first layer's and the embedding's when it
// is over. Whatever is left then is waited for, however long a sum takes: no backward waits for one.
TEST(Simulate, SaysWhatCommunicationHides) {
  const Simulated hidden = simulated("dp=2", {.replicas = 0.5});
  EXPECT_NEAR(hidden.seconds, 3.0 * kBatch / 2 * kLayers + 1, 1e-9);
  EXPECT_NEAR(hidden.ranks.at(0).exposed.at(Axis::dp), 1, 1e-9);
  const double units = kLayers + 3, last_backward = 2.0 * kLayers;
  const Simulated slow = simulated("dp=2", {.replicas = 100});
  EXPECT_NEAR(slow.seconds, 3.0 * kBatch / 2 * kLayers - last_backward + units * 100, 1e-9);
  const Simulated bucket = simulated("dp=2 bucket=100", {.replicas = 100});
  EXPECT_NEAR(bucket.seconds, 3.0 * kBatch / 2 * kLayers + 100, 1e-9);
}

// Nor does the stage before, which has the last backward's gradients as early as if nothing were summed. Then
// the last stage has most to sum, and with ZeRO to gather: its layers, final norm and head.
TEST(Simulate, SumsHoldUpNoStageBefore) {
  const double layers = kLayers / 2.0, ends = (kBatch / 2 + 1) * 3.0 * layers,
               last_backwards = 2 * 2.0 * layers;
  const double sums = (layers + 2) * 100;
  EXPECT_NEAR(simulated("dp=2 pp=2", {.replicas = 100}).seconds, ends - last_backwards + sums, 1e-9);
  EXPECT_NEAR(simulated("dp=2 pp=2 zero=1", {.replicas = 100}).seconds, ends - last_backwards + 2 * sums,
              1e-9);
}

TEST(Simulate, OneRankStandsForItsReplicas) {
  const Times t{.f = 1, .b = 1.25, .w = 0.75, .boundary = 0.125, .replicas = 0.5};
  for (const char* plan :
       {"dp=2 tp=2 pp=2", "dp=2 tp=2 pp=2 zero=1 schedule=zero-bubble", "tp=2 pp=4 sp=1"}) {
    const Simulated one = simulated(plan, t), all = simulated(plan, t, true);
    EXPECT_DOUBLE_EQ(one.seconds, all.seconds) << plan;
    for (const auto& [rank, r] : one.ranks) EXPECT_DOUBLE_EQ(r.bubble, all.ranks.at(rank).bubble) << plan;
  }
}

// A rank's events by hand.
struct ByHand : Trace {
  ByHand() { events = {{Event::step}}; }
  void add(Event::What what, int request, Axis axis, Verb verb = Verb::all_reduce, int peer = -1) {
    Event e{what};
    e.request = request, e.message.axis = axis, e.message.verb = verb, e.message.peer = peer;
    e.message.what = "x";
    events.push_back(e);
  }
};

// Links that tp's messages take away from dp's that are under way: those alone are late by it.
TEST(Simulate, MessagesThatShareLinksDelayNoneThatHasArrived) {
  ByHand trace;
  Trace::Event run{Trace::Event::run};
  run.name = "a kernel", run.numbers = {4};
  trace.add(Trace::Event::start, 0, Axis::dp);
  trace.events.push_back(run);
  trace.add(Trace::Event::start, 1, Axis::tp), trace.add(Trace::Event::wait, 0, Axis::dp);
  trace.add(Trace::Event::start, 2, Axis::dp), trace.add(Trace::Event::wait, 2, Axis::dp);
  trace.add(Trace::Event::wait, 1, Axis::tp);
  Costs costs{[](const Trace::Event& e) { return e.numbers[0]; },
              [](const Message& m, const Group&) { return m.axis == Axis::dp ? 1.0 : 0.5; }};
  costs.delay = [](const Message& m) { return m.axis == Axis::tp ? 9.0 : 0.0; };
  EXPECT_DOUBLE_EQ(simulate({&trace}, {.dp = 2, .tp = 2}, {0}, costs).seconds, 5);
}

// A stage's two neighbours each have a link of their own to it.
TEST(Simulate, MessagesFromBothSidesGoBesideEachOther) {
  ByHand first, middle, last;
  first.add(Trace::Event::start, 0, Axis::world, Verb::send, 1),
      first.add(Trace::Event::wait, 0, Axis::world);
  last.add(Trace::Event::start, 0, Axis::world, Verb::send, 1), last.add(Trace::Event::wait, 0, Axis::world);
  middle.add(Trace::Event::start, 0, Axis::world, Verb::recv, 0);
  middle.add(Trace::Event::start, 1, Axis::world, Verb::recv, 2);
  middle.add(Trace::Event::wait, 0, Axis::world), middle.add(Trace::Event::wait, 1, Axis::world);
  const Costs costs{[](const Trace::Event&) { return 0.0; },
                    [](const Message&, const Group&) { return 1.0; }};
  EXPECT_DOUBLE_EQ(simulate({&first, &middle, &last}, {.pp = 3}, {0, 1, 2}, costs).seconds, 1);
}

}  // namespace
}  // namespace lockstep
