// What a failure says of its cause: differences planted in known places, and kernels that go wrong on one
// rank.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "ref/data_order.hpp"
#include "suites/gates/gates.hpp"
#include "suites/run/locate.hpp"
#include "suites/run/reference.hpp"
#include "suites/run/stream.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// A set of kernels in which the n-th call of one goes wrong, on ranks that say so.
bool on = false;
thread_local bool here = false;       // this thread's rank is one of them
thread_local int calls = 0;           // of the kernel that goes wrong
std::function<bool(int)> goes_wrong;  // the n-th call, from 0
bool now() { return here && goes_wrong(calls++); }

Ops<float> right;
void wrong_matmul(Lanes& l, float* y, const float* x, const float* w, i64 M, i64 N, i64 K, i64 leaves) {
  right.matmul(l, y, x, w, M, N, K, leaves);
  if (now()) y[0] += 1;
}
void wrong_dw(Lanes& l, float* dw, const float* dy, const float* x, i64 T, i64 N, i64 K, bool add) {
  right.matmul_dw(l, dw, dy, x, T, N, K, add);
  if (now())
    for (i64 i = 0; i < N * K; ++i) dw[i] += 0.125f;
}
void wrong_attention_dx(Lanes& l, float* dq, float* dk, float* dv, const float* d_o, const float* q,
                        const float* k, const float* v, const float* o, const float* lse, i64 B, i64 T, i64 H,
                        i64 K, i64 hd) {
  right.attention_dx(l, dq, dk, dv, d_o, q, k, v, o, lse, B, T, H, K, hd);
  if (now())
    for (i64 i = 0; i < B * T * H * hd; ++i) dq[i] += 0.125f;
}
void wrong_swiglu_dx(Lanes& l, float* dg, float* du, const float* da, const float* g, const float* u, i64 n) {
  right.swiglu_dx(l, dg, du, da, g, u, n);
  if (now())
    for (i64 i = 0; i < n; ++i) du[i] += 0.125f;
}
void wrong_squares(Lanes& l, i64* words, const float* x, i64 n) {
  right.add_squares(l, words, x, n);
  if (now()) right.add_squares(l, words, x, n);
}
void changed_adamw(Lanes& l, float* w, float* m, float* v, const float* g, i64 n, float clip,
                   AdamWStep<float> step) {
  right.adamw(l, w, m, v, g, n, clip, step);
  if (now())
    for (i64 i = 0; i < n; ++i) w[i] += 0.125f;
}
void adamw_changed_at_the_end(Lanes& l, float* w, float* m, float* v, const float* g, i64 n, float clip,
                              AdamWStep<float> step) {
  right.adamw(l, w, m, v, g, n, clip, step);
  if (now() && n > 0) w[n - 1] += 0.125f;
}
std::function<void(Ops<float>&)> plant;
const KernelSet planted{"test-planted", 2000, [] { return on; },
                        [](Ops<float>& ops) { right = ops, plant(ops); }};

struct LocateScene {
  ModelConfig model = load_model_config("suites/models/gate-untied.json");
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  Whole reference;
  explicit LocateScene(int segments) {
    if (segments == 1) model.kv_heads = 2;  // of 4
    settings.batch = 8, settings.seq = 16, settings.steps = 2, settings.segments = segments;
    reference = reference_run(model, settings, data, "auto", 1);
  }
};
const LocateScene& locate_scene(int segments = 1) {
  static const LocateScene whole(1), halves(2);
  return segments == 2 ? halves : whole;
}

struct Trained {
  Mesh mesh;
  std::string problem;
  Whole whole;
  std::vector<Holding> holdings;
  std::string said() const {
    const auto found = locate(locate_scene(mesh.cp).reference, whole, holdings, mesh);
    return found ? found->text() : "equal";
  }
};

Trained run(const char* plan, const std::function<bool(const Mesh&, int rank)>& wrong_here = {}) {
  const LocateScene& s = locate_scene(Plan::parse(plan).number("cp"));
  const Prepared p = prepare({s.model, s.settings, Plan::parse(plan), &s.data});
  Assembly assembly(p, s.settings.steps);
  on = static_cast<bool>(wrong_here);
  launch(p, {}, [&](RankView v) {
    here = wrong_here && wrong_here(p.mesh, v.rank), calls = 0;
    initialise(v, {});
    for (i64 k = 0; k < s.settings.steps; ++k) {
      const StepResult r = v.executor.step(
          k, [&] { assembly.gradients(k, v); }, [&] { assembly.weights(k, v); });
      assembly.result(k, r, v.rank);
    }
  });
  on = false;
  return {p.mesh, assembly.problem(), assembly.whole(), assembly.holdings()};
}

std::vector<float>& gradient(Trained& ran, const std::string& name) {
  for (std::size_t i = 0; i < ran.whole.table.size(); ++i)
    if (ran.whole.table[i].name == "model." + name + ".weight") return ran.whole.steps[1].gradient[i];
  throw std::logic_error(name);
}
void change(std::vector<float>& values, std::size_t first, std::size_t n) {
  for (std::size_t i = first; i < first + n; ++i) values.at(i) = values[i] * 1.5f + 1;
}
void change(std::vector<float>& values) { change(values, 0, values.size()); }

// ---- Planted differences --------------------------------------------------------------------------------

TEST(Locate, EqualRunsHaveNoFinding) { EXPECT_EQ(run("dp=2 tp=2").said(), "equal"); }

TEST(Locate, OneSliceFollowsItsTensorParallelRank) {
  Trained ran = run("dp=2 tp=2");
  auto& q = gradient(ran, "layers.1.self_attn.q_proj");  // tp rank 1 has the lower half of the rows
  change(q, q.size() / 2, q.size() / 2);
  EXPECT_TRUE(says(ran.said(), "step 1: gradient of model.layers.1.self_attn.q_proj.weight at [",
                   ", 0]: ", "the loss is equal, only this tensor differs",
                   "all " + std::to_string(q.size() / 2) + " differing values",
                   "tp cuts lie with its rank 1: suspect tp"));
  change(q, 0, q.size() / 2);
  EXPECT_TRUE(says(ran.said(), "it follows no axis"));
}

TEST(Locate, WhatEveryRankHoldsDoesNotHideTheAxis) {
  Trained ran = run("tp=2");
  auto& q = gradient(ran, "layers.1.self_attn.q_proj");
  change(q, q.size() / 2, q.size() / 2);
  change(gradient(ran, "layers.1.input_layernorm"));
  EXPECT_TRUE(says(ran.said(), "2 of 39 gradients differ, all in layer 1 and none below",
                   "all " + std::to_string(q.size() / 2) + " differing values",
                   "tp cuts lie with its rank 1: suspect tp"));
}

TEST(Locate, OneValueIsTooLittleForAnAxis) {
  Trained ran = run("dp=2 tp=2");
  change(gradient(ran, "layers.1.self_attn.q_proj"), 5, 1);
  EXPECT_EQ(ran.said().find("axis"), std::string::npos);
  EXPECT_EQ(ran.said().find("suspect"), std::string::npos);
}

TEST(Locate, OneShardFollowsItsReplica) {
  Trained ran = run("dp=2 zero=1");  // the embedding's unit is cut in halves
  auto& e = gradient(ran, "embed_tokens");
  change(e, e.size() / 2, 1000);
  EXPECT_TRUE(says(ran.said(), "dp cuts lie with its rank 1: suspect dp"));
}

// Shards are of dp x cp ranks, in the order segment, replica: the third quarter is the second segment's
// first.
TEST(Locate, OneShardOfSegmentsFollowsItsPlaceInThePlan) {
  Trained ran = run("dp=2 cp=2 zero=1");
  auto& e = gradient(ran, "embed_tokens");
  change(e, e.size() / 2, 1000);
  EXPECT_TRUE(says(ran.said(), "dp x cp cuts lie with its rank (dp 0, cp 1): suspect dp x cp"));
}

TEST(Locate, NormsAloneAreASumOverTensorParallelRanks) {
  Trained ran = run("tp=2 sp=1");
  change(gradient(ran, "layers.0.input_layernorm"));
  change(gradient(ran, "layers.2.post_attention_layernorm"));
  EXPECT_TRUE(says(ran.said(), "gradient of model.layers.2.post_attention_layernorm.weight at [0, 0]",
                   "only input_layernorm, post_attention_layernorm",
                   "only what ranks of tp hold alike differs (2 tensors): suspect a sum over tp"));
}

TEST(Locate, SharedKeysAloneAreASumOverTheRanksThatShareThem) {
  Trained ran = run("tp=4");  // 2 key/value heads
  change(gradient(ran, "layers.2.self_attn.k_proj"), 0, 100);
  change(gradient(ran, "layers.2.self_attn.k_proj"), 600, 100);
  change(gradient(ran, "layers.0.self_attn.k_proj"));
  EXPECT_TRUE(says(ran.said(), "only k_proj", "suspect a sum over kv"));
}

TEST(Locate, AFactorOnAllGradientsIsNoLayers) {
  Trained ran = run("dp=2");
  for (std::vector<float>& g : ran.whole.steps[1].gradient)
    for (float& x : g) x *= 2;
  EXPECT_TRUE(says(ran.said(), "step 1: gradient of lm_head.weight at [",
                   "gradients differ: the gradient of the loss, or a factor on all of them"));
}

TEST(Locate, AWholeStageIsThePipelines) {
  Trained ran = run("pp=2");
  for (std::size_t i = 0; i < ran.whole.table.size(); ++i)
    if (ran.whole.table[i].unit <= locate_scene().model.layers / 2) change(ran.whole.steps[1].gradient[i]);
  EXPECT_TRUE(says(ran.said(), "from there down: what layer 1 gets from layer 2: ",  // of 4
                   "all of stage 0 differs and nothing of the others: suspect pp"));
}

TEST(Locate, APartOfAStageIsNotThePipelines) {
  Trained ran = run("pp=2");
  change(gradient(ran, "layers.0.self_attn.q_proj"));
  change(gradient(ran, "layers.1.mlp.up_proj"));
  EXPECT_TRUE(says(ran.said(), "only q_proj, up_proj; it follows no axis"));
}

// Whoever has another segment has other sums to add.
TEST(Locate, RanksOfSegmentsThatDisagreeNameTheirAxis) {
  const Mesh mesh{.dp = 4, .tp = 2, .cp = 2};  // rank = tp + 2 * (cp + 2 * dp)
  EXPECT_EQ(which_axis_parts(mesh, {0, 1, 4, 5}, {2, 3, 6, 7}),
            "; ranks of different cp disagree: suspect cp");
  EXPECT_EQ(which_axis_parts(mesh, {0, 4}, {2, 6}), "; ranks of different cp disagree: suspect cp");
  EXPECT_EQ(which_axis_parts(mesh, {0, 2}, {4, 6}), "; ranks of different dp disagree: suspect dp");
  EXPECT_EQ(which_axis_parts(mesh, {0, 2}, {1, 3}), "; ranks of different tp disagree: suspect tp");
  EXPECT_EQ(which_axis_parts(mesh, {0, 2, 4}, {6}), "; rank 6 disagrees with ranks 0, 2, 4");
  EXPECT_EQ(which_axis_parts(mesh, {0}, {6}), "; ranks of different dp or cp disagree: suspect dp or cp");
}

TEST(Locate, RunsInSegmentsHaveNoFinding) { EXPECT_EQ(run("dp=2 cp=2 zero=2").said(), "equal"); }

TEST(Locate, ReplicasThatDisagreeNameTheirAxis) {
  const Mesh mesh{.dp = 2, .tp = 2, .pp = 2};
  EXPECT_EQ(which_axis_parts(mesh, {0, 2}, {1, 3}), "; ranks of different tp disagree: suspect tp");
  EXPECT_EQ(which_axis_parts(mesh, {0, 1}, {3, 2}), "; ranks of different dp disagree: suspect dp");
  EXPECT_EQ(which_axis_parts(mesh, {0, 1, 2}, {3}), "; rank 3 disagrees with ranks 0, 1, 2");
  EXPECT_EQ(which_axis_parts(mesh, {0}, {6}), "; ranks of different dp or pp disagree: suspect dp or pp");
}

// ---- Kernels that go wrong ------------------------------------------------------------------------------

bool everywhere(const Mesh&, int) { return true; }
bool on_tp_1(const Mesh& m, int rank) { return m.tp_of(rank) == 1; }
bool on_cp_1(const Mesh& m, int rank) { return m.cp_of(rank) == 1; }
bool on_dp_1(const Mesh& m, int rank) { return m.dp_of(rank) == 1; }
std::function<bool(int)> call(int n) {
  return [n](int i) { return i == n; };
}
bool always(int) { return true; }

// Layers are numbered from below, and backward meets the last one first.
int backward_of(int layer) { return static_cast<int>(locate_scene().model.layers) - 1 - layer; }

TEST(LocateFault, BackwardOfAttentionInOneLayer) {
  plant = [](Ops<float>& ops) { ops.attention_dx.call = wrong_attention_dx; };
  goes_wrong = call(backward_of(1));
  EXPECT_TRUE(says(run("tp=2 micro=8", everywhere).said(),
                   "step 0: gradient of model.layers.1.self_attn.q_proj.weight at", "the loss is equal",
                   "from there down: layer 1's backward of attention", "it follows no axis"));
}

TEST(LocateFault, BackwardOfSwiGluInOneLayer) {
  plant = [](Ops<float>& ops) { ops.swiglu_dx.call = wrong_swiglu_dx; };
  goes_wrong = call(backward_of(2));
  EXPECT_TRUE(says(run("dp=2 micro=4", everywhere).said(), "gradient of model.layers.2.mlp.up_proj.weight at",
                   "from there down: layer 2's backward through down_proj and SwiGLU"));
}

TEST(LocateFault, OneWeightGradientOnOneTensorParallelRank) {
  plant = [](Ops<float>& ops) { ops.matmul_dw.call = wrong_dw; };
  goes_wrong = call(8);  // a call a sequence: after the head's eight the last layer's first
  const std::string last = std::to_string(locate_scene().model.layers - 1);
  EXPECT_TRUE(says(run("tp=2 micro=8", on_tp_1).said(),
                   "gradient of model.layers." + last + ".mlp.down_proj.weight at",
                   "only this tensor differs", "tp cuts lie with its rank 1: suspect tp"));
}

TEST(LocateFault, AForwardPassHasItsLossWrong) {
  plant = [](Ops<float>& ops) { ops.matmul.call = wrong_matmul; };
  goes_wrong = call(3);
  EXPECT_TRUE(says(run("tp=2 pp=2", on_tp_1).said(), "step 0: loss: ", "; gradient of lm_head.weight at [",
                   "the loss differs before any backward"));
}

// Held to a reference whose second step begins with one weight changed, the stream is wrong from there on,
// and right before, on every rank that holds a part of it.
TEST(LocateFault, AForwardPassIsFollowedToItsPlace) {
  const auto wrong_from = [](const char* plan, const std::string& weight) {
    Whole reference = locate_scene().reference;
    for (std::size_t i = 0; i < reference.table.size(); ++i)
      if (reference.table[i].name == weight) change(reference.steps[0].weight[i]);
    const Prepared p =
        prepare({locate_scene().model, locate_scene().settings, Plan::parse(plan), &locate_scene().data});
    return follow_stream(p, {}, {}, reference, 1);
  };
  for (const char* plan : {"micro=2", "dp=2 tp=2 sp=1", "dp=2 zero=3 micro=2", "pp=2 tp=2 ckpt=full",
                           "pp=2 schedule=interleaved virtual=2"}) {
    SCOPED_TRACE(plan);
    for (const auto& [weight, place] : {std::pair{"embed_tokens", "model.embed_tokens"},
                                        {"layers.0.mlp.down_proj", "model.layers.0.mlp"},
                                        {"layers.2.self_attn.v_proj", "model.layers.2.self_attn"},
                                        {"layers.2.post_attention_layernorm", "model.layers.2.mlp"}}) {
      const std::string said = wrong_from(plan, std::string("model.") + weight + ".weight");
      EXPECT_TRUE(says(said, std::string("the residual stream is wrong from ") + place + " on (sequence "))
          << said;
      EXPECT_EQ(said.find("suspect"), std::string::npos) << said;
    }
    for (const char* weight : {"model.norm.weight", "lm_head.weight"})
      EXPECT_TRUE(says(wrong_from(plan, weight), "the residual stream is right to its end"));
  }
}

// One row of the embedding is another to the reference. Its token comes once in the batch, and in a place of
// its sequence that one rank has: what is said is that place, in the sequence and not in the rank's segment.
TEST(LocateFault, AWrongTokenOfASegmentIsNamedByItsPlaceInTheSequence) {
  const LocateScene& s = locate_scene(2);
  const i64 T = s.settings.seq, B = s.settings.batch;
  std::vector<i32> tokens(static_cast<std::size_t>(B * T)), labels(static_cast<std::size_t>(T));
  for (i64 b = 0; b < B; ++b)
    sample(s.data, s.settings, 1, b, &tokens[static_cast<std::size_t>(b * T)], labels.data());
  std::set<std::string> segments;
  for (const auto& [least, more] : {std::pair<i64, i64>{0, 0}, {3, 2}, {8, 1}, {11, 6}}) {
    // The first such token at `least` or later in its sequence, of sample `more` or a later one.
    const auto once = [&](i64 at) {
      return std::count(tokens.begin(), tokens.end(), tokens[static_cast<std::size_t>(at)]) == 1;
    };
    i64 at = more * T;
    while (at < B * T && (at % T < least || !once(at))) ++at;
    ASSERT_LT(at, B * T);
    Whole reference = s.reference;
    std::vector<float>& rows = reference.steps[0].weight[0];
    ASSERT_EQ(reference.table[0].name, "model.embed_tokens.weight");
    const i64 D = s.model.hidden;
    change(rows, static_cast<std::size_t>(tokens[static_cast<std::size_t>(at)] * D),
           static_cast<std::size_t>(D));
    const std::string where =
        "on (sequence " + std::to_string(at / T) + ", token " + std::to_string(at % T) + ", [0]: ";
    for (const char* plan : {"cp=2", "dp=2 cp=2 micro=2", "cp=2 tp=2 sp=1", "dp=2 cp=2 pp=2 zero=3"}) {
      const Prepared p = prepare({s.model, s.settings, Plan::parse(plan), &s.data});
      const std::string said = follow_stream(p, {}, {}, reference, 1);
      EXPECT_TRUE(says(said, "the residual stream is wrong from model.embed_tokens " + where))
          << plan << ": " << said;
      if (std::string(plan) == "cp=2") {
        EXPECT_TRUE(says(said, "; ranks of different cp disagree: suspect cp")) << said;
      }
    }
    segments.insert(at % T < T / 2 ? "first" : "second");
  }
  EXPECT_EQ(segments.size(), 2u) << "both segments have been asked";
}

// A layer whose attention goes wrong where the second segments are.
TEST(LocateFault, BackwardOfAttentionInOneLayerOfOneSegment) {
  plant = [](Ops<float>& ops) { ops.attention_dx.call = wrong_attention_dx; };
  goes_wrong = call(backward_of(1));
  EXPECT_TRUE(says(run("dp=2 cp=2 micro=4", on_cp_1).said(),
                   "step 0: gradient of model.layers.1.self_attn.q_proj.weight at", "the loss is equal",
                   "from there down: layer 1's backward of attention", "or a sum over samples or dp"));
}

TEST(LocateFault, AnOptimizerThatGoesWrongWhereOnePieceIs) {
  plant = [](Ops<float>& ops) { ops.adamw.call = changed_adamw; };
  goes_wrong = always;
  EXPECT_TRUE(says(run("dp=2 cp=2", on_cp_1).problem, "replicas differ: step 0: weight of ",
                   "ranks of different cp disagree: suspect cp"));
}

TEST(LocateFault, ANormThatCountsTwice) {
  plant = [](Ops<float>& ops) { ops.add_squares.call = wrong_squares; };
  goes_wrong = always;
  EXPECT_TRUE(says(run("tp=2", on_tp_1).said(),
                   "step 0: gradient norm: ", "loss and gradients are equal: the sum of squares"));
}

TEST(LocateFault, AnOptimizerThatGoesWrongOnOneShard) {
  plant = [](Ops<float>& ops) { ops.adamw.call = changed_adamw; };
  goes_wrong = always;
  const Trained ran = run("dp=2 zero=3", on_dp_1);
  EXPECT_EQ(ran.problem, "");
  EXPECT_TRUE(says(ran.said(), "step 0: weight of ", "loss, gradients and their norm are equal",
                   "clipping, the optimizer, or how weights are sent",
                   "dp cuts lie with its rank 1: suspect dp"));
}

TEST(LocateFault, AnOptimizerThatGoesWrongOnOneReplica) {
  plant = [](Ops<float>& ops) { ops.adamw.call = changed_adamw; };
  goes_wrong = always;
  EXPECT_TRUE(says(run("dp=2 tp=2", on_dp_1).problem, "replicas differ: step 0: weight of ",
                   "ranks of different dp disagree: suspect dp"));
}

// Replicas are compared run by run: the last number of one counts as the first does.
TEST(LocateFault, AnOptimizerThatGoesWrongAtTheEndOfOneReplica) {
  plant = [](Ops<float>& ops) { ops.adamw.call = adamw_changed_at_the_end; };
  goes_wrong = always;
  for (const char* plan : {"dp=2 tp=2", "dp=2"})
    EXPECT_TRUE(says(run(plan, on_dp_1).problem, "replicas differ: step 0: weight of ",
                     "ranks of different dp disagree: suspect dp"));
}

}  // namespace
}  // namespace lockstep
