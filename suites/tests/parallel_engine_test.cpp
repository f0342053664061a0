// Plans on an accelerator that is not there. Whatever forgets that device memory is elsewhere, or takes the
// wrong kernels for the host's, ends badly; and all plans have the reference's hash.
#include <gtest/gtest.h>

#include "parallel/device/staging.hpp"
#include "suites/gates/gates.hpp"
#include "suites/planner/measure/kernel_times.hpp"
#include "suites/run/reference.hpp"
#include "suites/tests/far_accelerator.hpp"
#include "suites/tests/user_error.hpp"
#include "suites/timing/stopwatch.hpp"

namespace lockstep {
namespace {

using far::Far, far::FarEngine;

struct EngineScene {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  EngineScene() { settings.batch = 8, settings.seq = 16, settings.steps = 2; }
  Prepared prepared(const char* line) const { return prepare({model, settings, Plan::parse(line), &data}); }
};

TEST(Engine, PlansOnAnAcceleratorPassTheGates) {
  const EngineScene s;
  const Whole reference = reference_run(s.model, s.settings, s.data, "auto", 1);
  Far far;
  for (const char* line :
       {"dp=1 micro=2", "dp=2 tp=2 pp=2 zero=1 ckpt=full", "tp=4 sp=1 pp=2", "dp=4 zero=3 micro=2",
        "dp=2 zero=2 pp=2 schedule=zero-bubble", "dp=2 offload=optimizer", "dp=2 offload=optimizer to=disk",
        "dp=2 zero=3 offload=weights activations=host", "pp=2 activations=disk",
        "dp=2 zero=3 offload=weights to=disk activations=host", "pp=2 schedule=interleaved virtual=2 dp=2"}) {
    const Verdict v = judge(s.prepared(line), reference, {.accelerator = &far});
    EXPECT_EQ(v.numbers, "pass") << line;
    EXPECT_EQ(v.messages, "pass") << line;
    EXPECT_EQ(v.memory, "pass") << line;
    EXPECT_EQ(v.hash, reference.hash()) << line;
  }
}

TEST(Engine, SegmentsOfSequencesOnAnAcceleratorPassTheGates) {
  EngineScene s;
  s.settings.segments = 2;
  const Whole reference = reference_run(s.model, s.settings, s.data, "auto", 1);
  Far far;
  for (const char* line :
       {"cp=2 micro=2", "dp=2 cp=2 pp=2 zero=2 ckpt=attention", "cp=2 zero=3 activations=host"}) {
    const Verdict v = judge(s.prepared(line), reference, {.accelerator = &far});
    EXPECT_EQ(v.numbers, "pass") << line;
    EXPECT_EQ(v.messages, "pass") << line;
    EXPECT_EQ(v.memory, "pass") << line;
    EXPECT_EQ(v.hash, reference.hash()) << line;
  }
}

// The host has room for each message that is under way at once, not for the largest as often: all units'
// gradients, of which the head's comes first, the embedding's last.
TEST(Engine, MessagesUnderWayHaveRoomForThemselves) {
  const EngineScene s;
  const ModelConfig& m = s.model;
  const i64 rows = (m.vocab + s.settings.leaves - 1) / s.settings.leaves * s.settings.leaves;
  const i64 table = rows * m.hidden, heads = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim;
  const i64 layer = m.hidden * (2 * heads + 2 * kv + 3 * m.intermediate + 2);
  std::vector<i64> all{4 * table, 4 * m.hidden};
  all.insert(all.end(), static_cast<std::size_t>(m.layers), 4 * layer);
  all.push_back(4 * table);
  EXPECT_EQ(s.prepared("dp=2").needs.in_flight, all);
}

// Gives one more than it was given, or than 6, at its wait.
class PlusOne final : public Comm {
 public:
  int start(const Message& m) override {
    started.push_back(m);
    return static_cast<int>(started.size()) + 100;
  }
  void wait(int request) override {
    const Message& m = started[static_cast<std::size_t>(request - 101)];
    const auto* in = static_cast<const float*>(m.in);
    for (i64 i = 0; i < m.n; ++i) static_cast<float*>(m.out)[i] = (in ? in[i] : 6) + 1;
  }
  std::vector<Message> started;
};

// A message's ends are each in the accelerator's memory or in the host's, and a slot holds the larger of
// them.
TEST(Engine, StagingBringsWhatIsOnTheDeviceAndNothingElse) {
  FarEngine engine(cpu_ops(), nullptr);
  PlusOne comm;
  Staging staging(comm, engine, Mesh{.dp = 2}, 0, {.in_flight = {16, 8}});
  float host[4] = {1, 2, 3, 4}, got[4] = {};
  auto* const device = static_cast<float*>(engine.allocate(Medium::device, 16));
  auto* const other = static_cast<float*>(engine.allocate(Medium::device, 16));
  engine.upload(device, host, 16);
  const auto message = [](Verb verb, const void* in, void* out, i64 n) {
    Message m;
    m.verb = verb, m.axis = Axis::dp, m.reduce = Reduce::sum, m.in = in, m.out = out, m.n = n, m.peer = 1;
    return m;
  };
  const auto all_reduce = [&](const void* in, void* out, i64 n) {
    return staging.start(message(Verb::all_reduce, in, out, n));
  };
  // From device to device, which ends where its wait does.
  int request = all_reduce(device, other, 4);
  engine.download(got, other, 16);
  EXPECT_TRUE(std::isnan(got[1]));
  staging.wait(request);
  engine.download(got, other, 16);
  EXPECT_EQ(got[1], 3);
  EXPECT_EQ(comm.started[0].n, 4);
  // From the host, and to it: as they are. What was brought to the device before is not brought again.
  engine.upload(other, host, 16);
  staging.wait(all_reduce(host, host, 4));
  engine.download(got, other, 16);
  EXPECT_EQ(got[1], 2);
  EXPECT_EQ(comm.started[1].in, host);
  EXPECT_EQ(comm.started[1].out, host);
  // What is received has no input.
  staging.wait(staging.start(message(Verb::recv, nullptr, device, 4)));
  engine.download(got, device, 16);
  EXPECT_EQ(got[3], 7);

  const auto said = [](const auto& act) { return refusal<std::logic_error>(act); };
  request = all_reduce(device, other, 4);
  EXPECT_EQ(said([&] { all_reduce(device, other, 4); }), "a larger message than was traced");
  EXPECT_EQ(said([&] { staging.start(message(Verb::all_gather, device, other, 2)); }),
            "a larger message than was traced")
      << "of 8 bytes, twice as many come";
  const int small = all_reduce(device, other, 2);
  EXPECT_EQ(said([&] { all_reduce(device, other, 1); }), "more messages under way than were traced");
  staging.wait(request), staging.wait(small);
  EXPECT_EQ(said([&] { staging.wait(small); }), "waits for a message that it did not start");
}

// Between its memory and the disk, a unit's weights go through the host's in parts of 4 MiB.
TEST(Engine, AUnitGoesToTheDiskInSeveralParts) {
  EngineScene s;
  s.model.vocab = 20000, s.model.layers = 1;  // an embedding of 5.1 MB
  s.settings.batch = 2, s.settings.seq = 8;
  const Whole reference = reference_run(s.model, s.settings, s.data, "auto", 1);
  Far far;
  const Verdict v = judge(s.prepared("offload=weights to=disk"), reference, {.accelerator = &far});
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.hash, reference.hash());
}

// From the third step on a rank's passes are run from graphs, and nobody can tell by the numbers: labels that
// do not count make the loss's scale another one in every step.
TEST(Engine, PlansRunFromGraphs) {
  EngineScene s;
  s.settings.steps = 4;
  const Whole reference = reference_run(s.model, s.settings, s.data, "auto", 1);
  Far far;
  for (const char* line :
       {"dp=1 micro=2 ckpt=full", "dp=2 tp=2 pp=2 zero=1", "dp=2 zero=3 offload=weights activations=host",
        "dp=2 zero=2 pp=2 schedule=zero-bubble", "dp=2 tp=4 sp=1 offload=optimizer"}) {
    const Prepared p = s.prepared(line);
    far.seen = {};
    const Verdict v = judge(p, reference, {.accelerator = &far, .graphs = true});
    EXPECT_EQ(v.numbers, "pass") << line;
    EXPECT_EQ(v.messages, "pass") << line;
    EXPECT_EQ(v.hash, reference.hash()) << line;
    // Steps 1, 2 and 3 ran from graphs.
    EXPECT_GT(far.seen.graphs, 0) << line;
    // Of a rank that sends nothing: cut by the loss of each of its microbatches.
    if (p.mesh.size() == 1) {
      EXPECT_EQ(far.seen.graphs, s.settings.batch / p.run.plan.number("micro") + 1) << line;
    }
    EXPECT_EQ(far.seen.graph_runs, 3 * far.seen.graphs) << line;
  }
}

// The second step makes the graphs and is not timed; behind the timed ones one more is looked at.
TEST(Engine, TimedStepsRunFromGraphsThatAreThere) {
  const EngineScene s;
  const Prepared p = s.prepared("dp=1 micro=2");
  Far far;
  const Timed timed = time_steps(p, {.accelerator = &far, .graphs = true}, fresh_weights(s.model, s.settings),
                                 {.least = 3, .most = 3});
  EXPECT_EQ(timed.step_seconds.size(), 3u);
  EXPECT_GT(far.seen.graphs, 0);
  EXPECT_EQ(far.seen.graph_runs, (1 + 3 + 1) * far.seen.graphs);
}

TEST(Engine, ACallThatIsNotInItsGraphIsAnError) {
  FarEngine engine(cpu_ops(), nullptr);
  Graphs graphs(engine);
  auto* const place = static_cast<float*>(engine.allocate(Medium::device, 64));
  const auto step = [&](const char* kernel, i64 n, int kernels) {
    graphs.begin();
    for (int i = 0; i < kernels; ++i)
      if (graphs.calls(kernel, 0, n)) engine.ops().zero(engine.lanes(), place, 4);
    graphs.end();
  };
  for (int i = 0; i < 3; ++i) step("zero", 8, 2);
  EXPECT_THROW(step("zero", 9, 2), std::logic_error);
  EXPECT_THROW(step("copy", 8, 2), std::logic_error);
  EXPECT_THROW(step("zero", 8, 1), std::logic_error);
  EXPECT_THROW(step("zero", 8, 0), std::logic_error);
  EXPECT_NO_THROW(step("zero", 8, 2));
}

// gate-tiny has two key/value heads. With tp=4 two ranks hold each, and each makes its weights' gradient.
TEST(Engine, RanksThatDoTheSameMustGetTheSameBits) {
  const EngineScene s;
  Far far;
  far.repeats = false;
  const auto run = [&](const char* line) {
    return refusal([&] { launch(s.prepared(line), {.accelerator = &far}, [](RankView) {}); });
  };
  EXPECT_EQ(run("dp=2 tp=2"), "");
  EXPECT_TRUE(says(run("tp=4"), "tp=4", "2 key/value heads", "LOCKSTEP_MATMUL=first"));
  far.repeats = true;
  EXPECT_EQ(run("tp=4"), "");
}

// A profiler's timeline has the names of `lockstep show`, step after step.
TEST(Engine, RangesAreNamedLikeTheTrace) {
  const EngineScene s;
  const Prepared p = s.prepared("dp=2 tp=2 pp=2 offload=optimizer");
  Far far;
  launch(p, {.accelerator = &far}, [&](RankView v) {
    for (int i = 0; i < 2; ++i) v.executor.step(i);
  });

  std::vector<std::string> before, step;  // of the set-up, of one step
  bool in_step = false, in_action = false;
  for (const Trace::Event& e : p.traces[0].events) {
    using Event = Trace::Event;
    in_step |= e.what == Event::step;
    in_action |= e.what == Event::action;
    const std::string within = in_action && e.what != Event::action ? "  " : "";
    auto& into = in_step ? step : before;
    if (e.what == Event::wait)
      into.push_back(within + "wait for a message");
    else if (e.what == Event::copied)
      into.push_back(within + "wait for a copy");
    else if (e.what == Event::action || e.what == Event::run || e.what == Event::start ||
             e.what == Event::copy)
      into.push_back(within + e.title());
  }
  ASSERT_GT(step.size(), 100u);
  std::vector<std::string> expected = before;
  for (int i = 0; i < 2; ++i) expected.insert(expected.end(), step.begin(), step.end());
  EXPECT_EQ(far.seen.ranges, expected);
}

// As of `lockstep time --kernels`: operands in the device's memory, and nothing of a step left out but what
// the host does.
TEST(Engine, KernelsAreTimedInItsMemory) {
  const EngineScene s;
  const Prepared p = s.prepared("dp=2 cp=2 offload=optimizer");
  FarEngine engine(cpu_ops(), nullptr);
  const KernelTimes times = kernel_times(p, &engine, "auto", 1);
  int calls = times.on_host, swaps = 0, expected = 0;
  bool in_step = false;
  for (const Trace::Event& e : p.traces[0].events) {
    in_step |= e.what == Trace::Event::step;
    expected += in_step && e.what == Trace::Event::run;
  }
  for (const KernelTime& t : times.kernels) {
    calls += t.calls;
    if (t.kernel == "swap_axes") swaps += t.calls;
    EXPECT_GT(t.seconds, 0) << t.kernel;
    EXPECT_NE(t.kernel, "adamw");
  }
  EXPECT_GT(times.on_host, 0);
  EXPECT_EQ(calls, expected);
  EXPECT_EQ(swaps, 8 * 4 * 8);  // layers, microbatches; q, k, v, the output and their gradients
}

TEST(Engine, ADeviceThatIsNotThereIsExplained) {
  EXPECT_EQ(why_no_device("cpu"), "");
  EXPECT_NE(why_no_device("tpu").find("there is no device 'tpu'; it can be cpu or cuda"), std::string::npos);
}

}  // namespace
}  // namespace lockstep
