// Plans on an accelerator that is not there: its memory lies at addresses that fault when touched, and its
// kernels, which know where it really is, run here. So whatever forgets that device memory is elsewhere, or
// takes the wrong kernels for the host's, ends badly; and all plans have the reference's hash.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <deque>
#include <functional>

#include "kernels/cuda/table.hpp"
#include "parallel/engine.hpp"
#include "suites/gates/gates.hpp"
#include "suites/kernel_times.hpp"
#include "suites/reference.hpp"
#include "suites/stopwatch.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// Device memory is handed out this far from where it is: nothing lies there.
constexpr std::uintptr_t kAway = std::uintptr_t{1} << 62;

template <class A>
A real(A a) {
  if constexpr (std::is_pointer_v<A>)
    return reinterpret_cast<A>(reinterpret_cast<std::uintptr_t>(a) ^ (a ? kAway : 0));
  return a;
}
const Ops<float>& plain() {
  static const Ops<float> ops = plain_ops<float>();
  return ops;
}
// What is called while a graph is kept runs when that graph does.
struct FarLanes final : Lanes {
  FarLanes() : Lanes(1) {}
  using Graph = std::vector<std::function<void()>>;
  Graph* keeping = nullptr;
};
template <auto entry, class... A>
void set(Op<A...>& op) {
  op.on_host = op.call;
  op.call = [](Lanes& lanes, A... a) {
    const auto run = [&lanes, a...] { (plain().*entry)(lanes, real(a)...); };
    if (FarLanes::Graph* graph = static_cast<FarLanes&>(lanes).keeping)
      graph->push_back(run);
    else
      run();
  };
}

// What an engine was seen to do.
struct Seen {
  std::vector<std::string> ranges;
  int graphs = 0, graph_runs = 0;
};

class FarEngine final : public Engine {
 public:
  FarEngine(const Ops<float>& host, Seen* seen, bool repeats = true)
      : ops_(host), seen_(seen), repeats_(repeats) {
    using T = Ops<float>;
    set<&T::matmul>(ops_.matmul), set<&T::matmul_dx>(ops_.matmul_dx), set<&T::matmul_dw>(ops_.matmul_dw);
    set<&T::embed>(ops_.embed), set<&T::embed_dw>(ops_.embed_dw), set<&T::rms_norm>(ops_.rms_norm);
    set<&T::rms_norm_dx>(ops_.rms_norm_dx), set<&T::rms_norm_dw>(ops_.rms_norm_dw), set<&T::rope>(ops_.rope);
    set<&T::attention>(ops_.attention), set<&T::attention_dx>(ops_.attention_dx);
    set<&T::swiglu>(ops_.swiglu), set<&T::swiglu_dx>(ops_.swiglu_dx), set<&T::ce_max>(ops_.ce_max);
    set<&T::ce_sum>(ops_.ce_sum), set<&T::ce_loss>(ops_.ce_loss), set<&T::ce_dx>(ops_.ce_dx);
    set<&T::add>(ops_.add), set<&T::copy>(ops_.copy), set<&T::zero>(ops_.zero);
    set<&T::add_squares>(ops_.add_squares), set<&T::adamw>(ops_.adamw), set<&T::swap_axes>(ops_.swap_axes);
    set<&T::repeat_rows>(ops_.repeat_rows), set<&T::sum_rows>(ops_.sum_rows);
  }
  const Ops<float>& ops() const override { return ops_; }
  Lanes& lanes() override { return lanes_; }
  bool repeats() const override { return repeats_; }
  void* allocate(Medium medium, i64 bytes) override {
    blocks_.emplace_back(static_cast<std::size_t>(bytes / 8 + 1), std::nan(""));
    return medium == Medium::device ? real(static_cast<void*>(blocks_.back().data())) : blocks_.back().data();
  }
  bool holds(const void* at) const override { return reinterpret_cast<std::uintptr_t>(at) & kAway; }
  void upload(void* to, const void* from, i64 bytes) override {
    EXPECT_FALSE(lanes_.keeping);
    std::memcpy(real(to), from, static_cast<std::size_t>(bytes));
  }
  void download(void* to, const void* from, i64 bytes) override {
    EXPECT_FALSE(lanes_.keeping);
    std::memcpy(to, real(from), static_cast<std::size_t>(bytes));
  }
  // As late as it may be.
  void begin_copy(int slot, void* to, const void* from, i64 bytes) override {
    EXPECT_FALSE(lanes_.keeping);
    under_way_[slot] = {near(to), near(const_cast<void*>(from)), static_cast<std::size_t>(bytes)};
    std::memset(near(to), 0xff, static_cast<std::size_t>(bytes));
  }
  void end_copy(int slot) override {
    EXPECT_FALSE(lanes_.keeping);
    std::memcpy(under_way_[slot].to, under_way_[slot].from, under_way_[slot].bytes);
  }
  void begin_graph() override { lanes_.keeping = &kept_; }
  void end_graph() override {
    lanes_.keeping = nullptr;
    EXPECT_FALSE(kept_.empty());
    if (seen_) ++seen_->graphs;
    graphs_.push_back(std::move(kept_));
    kept_.clear();
  }
  void run_graph(int graph) override {
    if (seen_) ++seen_->graph_runs;
    for (const auto& kernel : graphs_.at(static_cast<std::size_t>(graph))) kernel();
  }

  void enter(const char* name) override {
    if (seen_) seen_->ranges.push_back(std::string(2 * depth_++, ' ') + name);
  }
  void leave() override {
    if (!seen_) return;
    ASSERT_GT(depth_, 0u);
    --depth_;
  }

 private:
  struct Copy {
    void *to, *from;
    std::size_t bytes;
  };
  void* near(void* at) const { return holds(at) ? real(at) : at; }
  Ops<float> ops_;
  Seen* const seen_;
  const bool repeats_;
  std::size_t depth_ = 0;
  FarLanes lanes_;
  FarLanes::Graph kept_;
  std::vector<FarLanes::Graph> graphs_;
  std::deque<std::vector<double>> blocks_;
  std::array<Copy, kCopies> under_way_;
};

class Far final : public Accelerator {
 public:
  std::string name() const override { return "far"; }
  std::unique_ptr<Engine> engine(int rank, const Ops<float>& host, bool) override {
    return std::make_unique<FarEngine>(host, rank == 0 ? &seen : nullptr, repeats);
  }
  Seen seen;  // of rank 0
  bool repeats = true;
};

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
