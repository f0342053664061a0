// The gates themselves: what each must see, and sizes that nothing divides.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <set>

#include "suites/gates/fast.hpp"
#include "suites/run/reference.hpp"
#include "suites/sweep/check_plan.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

struct GateScene {
  ModelConfig model;
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  explicit GateScene(const std::string& name) : model(load_model_config("suites/models/" + name + ".json")) {
    settings.batch = 16, settings.seq = 16, settings.steps = 3;
  }
  Prepared prepared(const char* plan) const { return prepare({model, settings, Plan::parse(plan), &data}); }
};

TEST(Gates, EveryRankMustReportTheSameLossAndNorm) {
  const Prepared p = GateScene("gate-tiny").prepared("dp=2");
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
  const GateScene scene("gate-tiny");
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
  Prepared p = GateScene("gate-tiny").prepared("activations=host");
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
  Prepared p = GateScene("gate-tiny").prepared("dp=2 offload=weights to=disk");
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
  Prepared p = GateScene("gate-tiny").prepared("activations=host");
  ArenaPlan &device = p.layouts[0][static_cast<int>(Medium::device)],
            &host = p.layouts[0][static_cast<int>(Medium::host)];
  EXPECT_GT(host.live, 0);
  device.bytes = device.live, host.bytes = host.live + (device.live + host.live) / 20;
  EXPECT_EQ(judge_memory(p, {}), "pass");
  host.bytes += 2;
  EXPECT_TRUE(judge_memory(p, {}).starts_with("rank 0: the arenas have ")) << judge_memory(p, {});
}

// Beside the peak a longer buffer raises no kind's bytes: what is done in it says that it is too long.
TEST(Gates, EveryBufferOfAStepIsUsedToItsEnd) {
  Prepared p = GateScene("gate-tiny").prepared("dp=2 tp=2 sp=1 ckpt=full zero=3 offload=optimizer");
  EXPECT_EQ(judge_extents(p), "pass");
  auto& events = p.traces[3].events;
  const auto begin = std::find_if(events.begin(), events.end(),
                                  [](const Trace::Event& e) { return e.what == Trace::Event::step; });
  int tried = 0;
  for (auto e = begin; e != events.end(); ++e) {
    if (e->what != Trace::Event::take || e->kind == Kind::reducing || ++tried % 20 != 0) continue;
    e->bytes += 4;
    const std::string wrong = judge_memory(p, {});
    EXPECT_TRUE(wrong.starts_with("rank 3: ")) << e->name << ": " << wrong;
    EXPECT_EQ(judge_extents(p),
              fmt::format("rank 3: buffer `{}` has {} bytes, of which the first {} are used", e->name,
                          e->bytes, e->bytes - 4));
    e->bytes -= 4;
  }
  EXPECT_GT(tried, 200);
}

// The step after it would begin with that, and hold more than this one.
TEST(Gates, ABufferOfAStepDoesNotOutliveIt) {
  Prepared p = GateScene("gate-tiny").prepared("dp=2 pp=2");
  auto& events = p.traces[1].events;
  const auto last = std::find_if(events.rbegin(), events.rend(),
                                 [](const Trace::Event& e) { return e.what == Trace::Event::give; });
  const auto taken = std::find_if(events.begin(), events.end(), [&](const Trace::Event& e) {
    return e.what == Trace::Event::take && e.block == last->block;
  });
  const std::string wrong =
      fmt::format("rank 1: buffer `{}` of {} bytes outlives the step", taken->name, taken->bytes);
  events.erase(std::next(last).base());
  EXPECT_EQ(judge_extents(p), wrong);
}

TEST(Gates, EveryKindOfMemoryIsHeldToItsFormula) {
  std::set<std::string> named, used;
  for (const char* line : {"dp=2 zero=3 pp=2 schedule=zero-bubble", "dp=2 offload=optimizer to=disk"}) {
    const Prepared right = GateScene("gate-tiny").prepared(line);
    for (int k = 0; k < static_cast<int>(Kind::count); ++k) {
      if (peaks(right.traces[1]).by_kind[k] == 0) continue;
      const std::string kind = kind_name(static_cast<Kind>(k));
      used.insert(kind);
      Prepared p = GateScene("gate-tiny").prepared(line);
      std::set<int> blocks;  // that are of this kind at any time
      for (const Trace::Event& e : p.traces[1].events)
        if ((e.what == Trace::Event::take || e.what == Trace::Event::relabel) &&
            e.kind == static_cast<Kind>(k))
          blocks.insert(e.block);
      for (Trace::Event& e : p.traces[1].events)
        if (e.what == Trace::Event::take && blocks.count(e.block)) e.bytes += 4;
      const std::string wrong = judge_memory(p, {});
      EXPECT_TRUE(says(wrong, "rank 1: ", ": the formula says ")) << line << " " << kind;
      named.insert(wrong.substr(8, wrong.find(':', 8) - 8));
    }
  }
  EXPECT_GE(used.size(), 11u);
  EXPECT_GE(named.size() + 2, used.size());  // what changes its label is named by the first
  EXPECT_EQ(named.count("weights"), 1u);
}

// The n-th event of a kind in a rank's step.
std::vector<Trace::Event>::iterator nth(Trace& trace, Trace::Event::What what, const std::string& name,
                                        int n) {
  bool in_step = false;
  return std::find_if(trace.events.begin(), trace.events.end(), [&](const Trace::Event& e) {
    in_step |= e.what == Trace::Event::step;
    const std::string of = what == Trace::Event::start ? e.message.what : e.name;
    return in_step && e.what == what && of == name && n-- == 0;
  });
}

TEST(Gates, WorkIsHeldToItsFormula) {
  const GateScene scene("gate-tiny");
  {
    Prepared p = scene.prepared("dp=2 pp=2 ckpt=full");  // 8 layers, forward and again, 8 microbatches
    EXPECT_EQ(judge_work(p), "pass");
    auto& events = p.traces[2].events;
    const auto attention = nth(p.traces[2], Trace::Event::run, "attention", 3);
    events.insert(attention, Trace::Event(*attention));
    // 2 x half of T x T x 8 heads of 8, twice (q k' and p v), of a sequence of 16 tokens
    const i64 work = 2 * 16 * 16 * 64;
    const std::string wrong = fmt::format(
        "rank 2: work: kernel attention: the formula says 64 x (work {}), the trace 65 x (work {})",
        64 * work, 65 * work);
    EXPECT_EQ(judge_work(p), wrong);
    EXPECT_EQ(judge_messages(p, p.posted), wrong);
  }
  {
    Prepared p = scene.prepared("dp=2");
    auto& events = p.traces[1].events;
    const auto zero = std::find_if(events.begin(), events.end(),
                                   [](const Trace::Event& e) { return e.what == Trace::Event::run; });
    events.erase(zero);  // of the moments
    EXPECT_TRUE(judge_work(p).starts_with("rank 1: work: kernel zero in set-up: the formula says 2 x "))
        << judge_work(p);
  }
  {
    Prepared p = scene.prepared("activations=host");  // one layer's 14 parts at a time
    auto& events = p.traces[0].events;
    events.erase(nth(p.traces[0], Trace::Event::copy, "activation out", 5));
    EXPECT_TRUE(judge_work(p).starts_with("rank 0: work: copy `activation out`: the formula says 1792 x, "))
        << judge_work(p);
  }
}

// A kernel that does too much at once, as often as it should: numbers that nobody looks at, a rank's time.
TEST(Gates, HowMuchEachKernelDoesIsHeldToItsFormula) {
  GateScene scene("gate-tiny");
  scene.model.kv_heads = 4, scene.settings.fast = true, scene.settings.batch = 6;
  Prepared p = scene.prepared("dp=3 cp=2 tp=2 zero=2 ckpt=full");
  ASSERT_EQ(judge_work(p), "pass");
  // By kernel, which of its numbers are sizes of what it does, in the order of kernels/ops.hpp.
  const std::map<std::string, std::vector<int>> sizes{{"matmul", {0, 1, 2}},
                                                      {"matmul_dx", {1, 3, 5, 6, 7}},
                                                      {"matmul_dw", {0, 1, 2}},
                                                      {"embed", {0, 1}},
                                                      {"embed_dw", {0, 1, 3}},
                                                      {"rms_norm", {0, 1}},
                                                      {"rms_norm_dx", {0, 1}},
                                                      {"rms_norm_dw", {0, 1}},
                                                      {"rope", {0, 2, 3}},
                                                      {"attention", {0, 1, 2}},
                                                      {"attention_dx", {0, 1, 2}},
                                                      {"swiglu", {0}},
                                                      {"swiglu_dx", {0}},
                                                      {"ce_max", {0, 1}},
                                                      {"ce_sum", {0, 1}},
                                                      {"ce_loss", {0, 1}},
                                                      {"ce_dx", {0, 1}},
                                                      {"add", {0}},
                                                      {"copy", {0}},
                                                      {"swap_axes", {0, 1, 2, 3}},
                                                      {"zero", {0}},
                                                      {"add_squares", {0}},
                                                      {"adamw", {0}}};
  for (const auto& [kernel, numbers] : sizes) {
    const auto run = nth(p.traces[0], Trace::Event::run, kernel, 0);
    ASSERT_NE(run, p.traces[0].events.end()) << kernel;
    for (const int i : numbers) {
      run->numbers[i] += 1;
      EXPECT_TRUE(judge_work(p).starts_with(fmt::format("rank 0: work: kernel {}: ", kernel)))
          << kernel << ", number " << i << ": " << judge_work(p);
      run->numbers[i] -= 1;
    }
  }
}

// Narayanan et al. 2021 (Megatron-LM), appendix: a parameter of a matrix is 2 operations a token forward, 4
// backward, and 2 again where its layer is computed anew.
TEST(Price, OperationsAreThoseOfTheParameters) {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = 16, settings.seq = 16;
  const i64 kv = model.kv_heads * model.head_dim, D = model.hidden, F = model.intermediate;
  const i64 before_down = 2 * D * D + 2 * D * kv + 2 * D * F, layers = model.layers * (before_down + D * F);
  const i64 head = 512 * D;  // 509 rows, in 8 equal leaves
  const i64 tokens = settings.batch * settings.seq;
  const auto operations = [&](const char* line) {
    const Plan plan = Plan::parse(line);
    i64 sum = 0;
    for (int rank = 0; rank < plan.number("dp") * plan.number("tp") * plan.number("pp"); ++rank)
      for (const auto& [kernel, runs] : step_work(plan, model, settings, rank).kernels)
        if (kernel.starts_with("matmul")) sum += runs.work;
    return sum;
  };
  for (const char* plan :
       {"dp=1", "dp=4 zero=3", "tp=2", "dp=2 tp=2 pp=2 sp=1 zero=1", "pp=4 schedule=zero-bubble"})
    EXPECT_EQ(operations(plan), 6 * tokens * (layers + head)) << plan;
  for (const char* plan : {"ckpt=full", "dp=2 tp=2 pp=2 ckpt=full"})
    EXPECT_EQ(operations(plan), tokens * (6 * (layers + head) + 2 * model.layers * before_down)) << plan;
}

// Of each layer and microbatch q, k, v and the output go over cp forward, and the gradients of the four back:
// half of each tensor, where two ranks have a sequence. A rank's microbatch is 2 x 8 tokens of 8 heads of 8,
// of which keys and values have 4; what is computed anew is exchanged anew.
TEST(Price, ExchangesOfHeadsForTokensByHand) {
  GateScene scene("gate-untied");
  scene.settings.batch = 8, scene.settings.segments = 2;
  const i64 layers = 4, microbatches = 2, queries = 2 * 8 * 8 * 8 / 2, keys = 2 * 8 * 4 * 8 / 2;
  ASSERT_EQ(scene.model.layers, layers);
  struct Again {
    int qkv, o;
  };
  for (const auto& [ckpt, again] :
       {std::pair{"none", Again{1, 1}}, {"full", {2, 2}}, {"attention", {1, 2}}, {"swiglu", {1, 1}}}) {
    const Prepared p = scene.prepared(fmt::format("dp=2 cp=2 micro=2 ckpt={}", ckpt).c_str());
    EXPECT_EQ(judge_messages(p, p.posted), "pass") << ckpt;
    for (int rank = 0; rank < 4; ++rank) {
      std::map<std::string, int> times;
      std::map<std::string, i64> elements;
      for (const Posted& m : p.posted[rank]) {
        if (m.axis != Axis::cp) continue;
        EXPECT_EQ(m.verb, Verb::all_to_all);
        EXPECT_EQ(m.type, Type::f32);
        const std::string what = m.what, of = what.substr(what.find("attn."));
        ++times[of], elements[of] += m.elements;
      }
      const std::map<std::string, int> right{
          {"attn.q", again.qkv}, {"attn.k", again.qkv}, {"attn.v", again.qkv}, {"attn.o", again.o},
          {"attn.do", 1},        {"attn.dq", 1},        {"attn.dk", 1},        {"attn.dv", 1}};
      ASSERT_EQ(times.size(), right.size()) << ckpt;
      for (const auto& [of, each] : right) {
        EXPECT_EQ(times[of], layers * microbatches * each) << ckpt << " " << of;
        const bool wide = of.ends_with("q") || of.ends_with("o");
        EXPECT_EQ(elements[of], layers * microbatches * each * (wide ? queries : keys)) << ckpt << " " << of;
      }
    }
  }
}

// A rank that has half of each sequence keeps what one of half as long ones keeps, and attention's output
// once more, which it has as heads and as tokens: 2 x 8 tokens x 8 heads of 8 in each of 4 layers.
TEST(Price, ASegmentKeepsAttentionsOutputTwice) {
  GateScene cut("gate-untied"), whole("gate-untied");
  cut.settings.batch = whole.settings.batch = 8;
  cut.settings.segments = 2, whole.settings.seq = 8;
  const auto activations = [](const GateScene& s, const std::string& plan) {
    const Prepared p = s.prepared(plan.c_str());
    EXPECT_EQ(judge_memory(p, {}), "pass") << plan;
    return peaks(p.traces[0]).by_kind[static_cast<int>(Kind::activations)];
  };
  const i64 once = 4 * 2 * 8 * 8 * 8;
  for (const auto& [ckpt, layers] : {std::pair{"none", 4}, {"norms", 4}, {"attention", 0}, {"full", 0}}) {
    const std::string more = std::string(" micro=2 ckpt=") + ckpt;
    EXPECT_EQ(activations(cut, "cp=2" + more), activations(whole, "dp=1" + more) + layers * once) << ckpt;
  }
}

// Attention is the one thing that costs more where sequences are longer: its half square of T x T.
TEST(Price, ASegmentsOperationsAreThoseOfItsTokens) {
  const ModelConfig model = load_model_config("suites/models/gate-untied.json");
  Settings cut, whole;
  cut.batch = whole.batch = 8, cut.seq = 32, cut.segments = 2, whole.seq = 16;
  const auto of = [&](const char* plan, const Settings& s) {
    return step_work(Plan::parse(plan), model, s, 0).kernels;
  };
  auto segment = of("cp=2 micro=2", cut), alone = of("dp=1 micro=2", whole);
  for (const char* kernel : {"matmul", "matmul_dx", "matmul_dw", "swiglu", "swiglu_dx", "rope", "rms_norm"}) {
    EXPECT_EQ(segment[kernel].times, alone[kernel].times) << kernel;
    EXPECT_EQ(segment[kernel].work, alone[kernel].work) << kernel;
  }
  for (const char* kernel : {"attention", "attention_dx"}) {
    EXPECT_EQ(segment[kernel].times, alone[kernel].times) << kernel;
    EXPECT_EQ(segment[kernel].work, 2 * alone[kernel].work) << kernel;
  }
  EXPECT_EQ(alone.count("swap_axes"), 0u);
  // 4 layers, 4 microbatches of 2 x 16 tokens: q, o, do and dq of 8 heads of 8; k, v, dk and dv of 4.
  EXPECT_EQ(segment["swap_axes"].times, 4 * 4 * 8);
  EXPECT_EQ(segment["swap_axes"].work, 4 * 4 * 2 * 16 * 8 * 2 * (4 * 8 + 4 * 4));
}

TEST(Gates, TalkThatAStrategyHidesMustBeHidden) {
  Prepared p = GateScene("gate-tiny").prepared("dp=2");
  auto& events = p.traces[1].events;
  const auto start = nth(p.traces[1], Trace::Event::start, "unit4.gradient", 0);
  const auto wait = std::find_if(start, events.end(), [&](const Trace::Event& e) {
    return e.what == Trace::Event::wait && e.request == start->request;
  });
  std::rotate(start + 1, wait, wait + 1);
  EXPECT_EQ(judge_work(p),
            "rank 1: work: `unit4.gradient` under way beside kernels: the formula says 1 x, the trace 0 x");
}

TEST(Gates, WhatRanIsWhatWasTraced) {
  const Prepared p = GateScene("gate-tiny").prepared("dp=2 offload=optimizer");
  std::vector<Ran> ran(2);
  for (int rank = 0; rank < 2; ++rank)
    for (const Trace::Event& e : p.traces[rank].events) {
      if (e.what == Trace::Event::step) ran[rank] = {};
      ran[rank].kernels += e.what == Trace::Event::run, ran[rank].copies += e.what == Trace::Event::copy;
    }
  // 8 sequences of 16 tokens and their labels; both ways 16 losses and 25 words of squares
  for (int rank = 0; rank < 2; ++rank)
    ran[rank].host_bytes = 2 * 8 * 16 * 4 + 2 * (16 + 25) * 8, ran[rank].fingerprint = p.fingerprints[rank];
  EXPECT_EQ(judge_work(p, ran), "pass");
  ran[1].host_bytes += 4;
  EXPECT_EQ(judge_work(p, ran),
            "rank 1: work: the program brings and takes 1684 bytes in a step, and 1680 is stated");
  ran[1].host_bytes -= 4, ++ran[1].fingerprint;
  EXPECT_TRUE(says(judge_work(p, ran), "rank 1: work: the step that ran ", "another order"));
  --ran[1].fingerprint, ++ran[1].kernels;
  EXPECT_TRUE(judge_work(p, ran).starts_with("rank 1: work: ")) << judge_work(p, ran);
  --ran[1].kernels, --ran[0].copies;
  EXPECT_TRUE(judge_work(p, ran).starts_with("rank 0: work: ")) << judge_work(p, ran);
}

// Axis, tensor and size may be right, and the message wrong all the same.
TEST(Gates, MessagesAreComparedByPeerTypeAndReduction) {
  const GateScene scene("gate-tiny");
  Prepared p = scene.prepared("tp=2 pp=4 ckpt=full");
  EXPECT_EQ(judge_messages(p, p.posted), "pass");
  const auto change = [&](auto&& alter) {
    Prepared other = scene.prepared("tp=2 pp=4 ckpt=full");
    alter(other.posted[2]);
    return judge_messages(other, other.posted);
  };
  const auto first = [](std::vector<Posted>& posted, Verb verb) -> Posted& {
    return *std::find_if(posted.begin(), posted.end(), [&](const Posted& m) { return m.verb == verb; });
  };
  const std::string sends = "rank 2: the formula says 1 x send of `chunk2.x` microbatch 0 on pp to 2, ";
  EXPECT_TRUE(change([&](auto& posted) { first(posted, Verb::send).peer = 3; }).starts_with(sends));
  EXPECT_TRUE(change([&](auto& posted) { first(posted, Verb::send).type = Type::i32; }).starts_with(sends));
  EXPECT_NE(change([&](auto& posted) { first(posted, Verb::all_reduce).reduce = Reduce::max; }), "pass");
}

TEST(Gates, AMessageWaitedForTwiceIsNamed) {
  const GateScene scene("gate-tiny");
  Prepared p = scene.prepared("tp=2");
  auto& events = p.traces[1].events;
  const auto wait = std::find_if(events.begin(), events.end(),
                                 [](const Trace::Event& e) { return e.what == Trace::Event::wait; });
  events.insert(wait, Trace::Event(*wait));
  const std::string stuck = find_deadlock(p.traces, p.mesh);
  EXPECT_NE(
      stuck.find("rank 1 (dp 0, tp 1, pp 0) waits for a message that it did not start, or a second time"),
      std::string::npos)
      << stuck;
}

// ---- Differences in one place only ----------------------------------------------------------------------

TEST(Gates, WeightsAreJudgedWhereGradientsAreEqual) {
  const GateScene s("gate-tiny");
  const Prepared p = s.prepared("dp=2 pp=2");
  Whole other = reference_run(s.model, s.settings, s.data, "auto", 1);
  other.steps[2].weight[3][5] += 1;
  const std::string wrong = "step 2: weight of " + other.table[3].name + " at [0, 5]";
  const Verdict v = judge(p, other, {});
  EXPECT_TRUE(v.numbers.starts_with(wrong)) << v.numbers;
}

// A rank that hands in all of its first step, and of the next only weights, or only gradients.
TEST(Gates, WhatNoRankHoldsIsNamedInEveryStep) {
  const GateScene scene("gate-tiny");
  const Prepared p = scene.prepared("tp=2");
  for (const bool only_weights : {false, true}) {
    Assembly assembly(p, 2);
    launch(p, {}, [&](RankView v) {
      v.executor.initialise({});
      for (i64 k = 0; k < 2; ++k) {
        const bool all = k == 0 || v.rank == 0;
        v.executor.step(
            k,
            [&] {
              if (all || !only_weights) assembly.gradients(k, v);
            },
            [&] {
              if (all || only_weights) assembly.weights(k, v);
            });
      }
    });
    EXPECT_TRUE(assembly.problem().starts_with("no rank holds model.")) << assembly.problem();
  }
}

// Kernels of which the optimizer's is wrong, by a bit that no bound would see.
bool wrong_adamw_runs = false;
std::atomic<int> adamw_calls = 0;
int right_adamw_calls = 0;  // the first so many are right
decltype(Ops<float>::adamw.call) right_adamw;
const KernelSet wrong_adamw{"test-wrong-adamw", 2001, [] { return wrong_adamw_runs; },
                            [](Ops<float>& ops) {
                              right_adamw = ops.adamw.call;
                              ops.adamw.call = [](Lanes& lanes, float* w, float* m, float* v, const float* g,
                                                  i64 n, float clip, AdamWStep<float> step) {
                                right_adamw(lanes, w, m, v, g, n, clip, step);
                                if (adamw_calls++ < right_adamw_calls) return;
                                w[0] = std::nextafter(w[0], 1.f);
                              };
                            }};

TEST(Gates, FastModeHoldsTheOptimizerToItsBits) {
  GateScene s("gate-tiny");
  s.settings.steps = 2;
  const Weights initial = fresh_weights(s.model, s.settings);
  const Whole reference = reference_run(s.model, s.settings, s.data, "auto", 1, initial);
  const FastReference exact = fast_reference(s.model, s.settings, s.data, reference, initial);
  s.settings.fast = true;
  const Prepared p = s.prepared("dp=2");
  EXPECT_EQ(judge_fast(p, reference, exact, {}, initial).numbers, "pass");
  wrong_adamw_runs = true, right_adamw_calls = 1 << 30, adamw_calls = 0;
  EXPECT_EQ(judge_fast(p, reference, exact, {}, initial).numbers, "pass");
  const int of_a_step = adamw_calls / 2;
  for (const int step : {0, 1}) {
    right_adamw_calls = step * of_a_step, adamw_calls = 0;
    const std::string wrong = judge_fast(p, reference, exact, {}, initial).numbers;
    EXPECT_TRUE(wrong.starts_with(fmt::format("step {}: optimizer: weight of ", step))) << wrong;
  }
  wrong_adamw_runs = false, right_adamw_calls = 0;
}

// A plan is run twice, and the second time with guarded buffers: what goes wrong then alone is as wrong.
TEST(Gates, TheGuardedRunIsHeldToTheReferenceToo) {
  GateScene s("gate-tiny");
  s.settings.steps = 1;
  const Weights initial = fresh_weights(s.model, s.settings);
  const Whole reference = reference_run(s.model, s.settings, s.data, "auto", 1, initial);
  const Prepared p = s.prepared("dp=2");
  wrong_adamw_runs = true, right_adamw_calls = 1 << 30, adamw_calls = 0;
  EXPECT_EQ(judge(p, reference, {}, initial).numbers, "pass");
  right_adamw_calls = adamw_calls / 2, adamw_calls = 0;
  const std::string wrong = judge(p, reference, {}, initial).numbers;
  wrong_adamw_runs = false, right_adamw_calls = 0;
  EXPECT_TRUE(says(wrong, "guarded, lazy: ", "weight")) << wrong;
}

// A sweep times nothing that was not found right.
TEST(Gates, AWrongPlanIsNotTimed) {
  GateScene s("gate-tiny");
  s.settings.steps = 1;
  Suite suite;
  suite.repeats = {1, 1, 0};
  Standard standard{suite, s.settings, s.model, s.data, true};
  make(standard, "", false);
  for (const bool wrong : {false, true}) {
    wrong_adamw_runs = wrong;
    const PlanRecord record = check_plan(Plan::parse("dp=1"), standard);
    wrong_adamw_runs = false;
    EXPECT_EQ(record.status, wrong ? "failed" : "ok") << record.numbers << record.fast;
    EXPECT_EQ(record.timed, !wrong);
    EXPECT_EQ(record.step_seconds.size(), wrong ? 0u : 1u);
    EXPECT_EQ(record.tokens_per_second > 0, !wrong);
  }
}

TEST(Gates, EveryRanksMessagesAreHeldToItsTrace) {
  const Prepared p = GateScene("gate-tiny").prepared("dp=2 tp=2");
  auto posted = p.posted;
  posted[3].pop_back();
  EXPECT_TRUE(judge_messages(p, posted).starts_with("rank 3: the trace says ")) << judge_messages(p, posted);
  posted = p.posted;
  posted[3].push_back(posted[3].back());
  posted[3].back().what = "x";
  EXPECT_TRUE(judge_messages(p, posted).starts_with("rank 3: the trace knows no all_reduce of `x` "))
      << judge_messages(p, posted);
}

TEST(Gates, EveryRanksGuardedPeakIsHeldToItsTrace) {
  const Prepared p = GateScene("gate-tiny").prepared("dp=2 pp=2");
  std::vector<i64> alive;
  for (const Trace& trace : p.traces) alive.push_back(peaks(trace).total);
  EXPECT_EQ(judge_memory(p, alive), "pass");
  for (const i64 more : {4, -8}) {
    alive.back() += more;
    EXPECT_TRUE(judge_memory(p, alive).starts_with(fmt::format("rank 3: {} bytes were alive", alive.back())))
        << judge_memory(p, alive);
  }
}

// With tp=2 a layer has 3550 elements and a norm 50: over dp=4 every shard of theirs is padded, and shards
// begin in the middle of rows.
class OddSizes : public testing::TestWithParam<const char*> {};

TEST_P(OddSizes, PassesAllGates) {
  static const GateScene scene("gate-odd");
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
