// What a training step promises besides its numbers: the order of its sums, pads, refusals; and that it
// learns.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/random.hpp"
#include "ref/config.hpp"
#include "ref/data_order.hpp"
#include "ref/trainer.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

ModelConfig small(bool tied) {
  ModelConfig c;
  c.vocab = 37, c.hidden = 16, c.intermediate = 20, c.layers = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = 4;
  c.init_std = 0.3;
  c.tied = tied;
  return c;
}

struct Batch {
  explicit Batch(const Settings& s) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(s.batch * s.seq); ++i) {
      tokens.push_back(static_cast<i32>(random_word(1, i) % 37));
      labels.push_back(i % 3 == 1 ? kIgnored : static_cast<i32>(random_word(2, i) % 37));
    }
  }
  std::vector<i32> tokens, labels;
};

// (g0 + (g1 + g2)) + (g3 + (g4 + g5)) is the tree over six sequences.
template <class Value>
auto tree_of_six(const std::vector<Value>& g) {
  return (g[0] + (g[1] + g[2])) + (g[3] + (g[4] + g[5]));
}

// Of one, two or four segments: the tree over segments stands above the trees over sequences.
template <class Value>
Value tree_of_segments(const std::vector<Value>& g) {
  if (g.size() == 4) return (g[0] + g[1]) + (g[2] + g[3]);
  return g.size() == 2 ? g[0] + g[1] : g.at(0);
}

TEST(Trainer, SumsOverSegmentsAndSequencesAsATree) {
  for (const auto& [tied, segments] : {std::pair{false, 1}, {true, 1}, {false, 2}, {true, 2}, {true, 4}}) {
    SCOPED_TRACE(segments);
    Settings s;
    s.batch = 6, s.seq = 12, s.segments = segments;
    const Batch batch(s);
    const ModelConfig config = small(tied);
    const Ops<float> ops = plain_ops<float>();
    Lanes lanes;
    Trainer<float> trainer(config, s, ops, lanes);
    trainer.initialise();

    // The gradient of each segment of each sequence, by itself: [segment][sequence].
    const auto& table = trainer.params();
    Tensors<float> weights;
    for (int p = 0; p < static_cast<int>(table.size()); ++p) weights.push_back(trainer.weight(p));
    const Model<float> model(config, s.seq, s.leaves, s.segments, table, weights, ops, lanes);
    const auto P = static_cast<std::size_t>(segments);
    std::vector<std::vector<Tensors<float>>> grads(P);
    std::vector<std::vector<double>> losses(P);
    for (i64 b = 0; b < 6; ++b) {
      std::vector<Tensors<float>> g(P);
      for (Tensors<float>& of_segment : g)
        for (const Param& param : table) of_segment.emplace_back(static_cast<std::size_t>(param.stored()));
      Kept<float> kept = model.forward(batch.tokens.data() + b * s.seq);
      const std::vector<double> loss = model.loss(kept, batch.labels.data() + b * s.seq);
      ASSERT_EQ(loss.size(), P);
      const float scale = static_cast<float>(1.0 / 48);  // 72 labels, of which 24 are ignored
      model.backward(kept, batch.tokens.data() + b * s.seq, batch.labels.data() + b * s.seq, scale, g);
      for (std::size_t c = 0; c < P; ++c) grads[c].push_back(g[c]), losses[c].push_back(loss[c]);
    }
    auto tree = [&](std::size_t p, std::size_t i) {
      std::vector<float> of_segments;
      for (const auto& sequences : grads) {
        std::vector<float> leaves;
        for (const Tensors<float>& g : sequences) leaves.push_back(g[p][i]);
        of_segments.push_back(tree_of_six(leaves));
      }
      return tree_of_segments(of_segments);
    };
    std::vector<double> loss_of_segments;
    for (const std::vector<double>& l : losses) loss_of_segments.push_back(tree_of_six(l));

    const auto result = trainer.step(batch.tokens.data(), batch.labels.data());
    EXPECT_EQ(result.loss, tree_of_segments(loss_of_segments) / 48);
    double squares = 0;
    for (std::size_t p = 0; p < table.size(); ++p) {
      if (table[p].tied_to >= 0) {
        EXPECT_TRUE(trainer.gradient(static_cast<int>(p)).empty());
        continue;
      }
      for (std::size_t i = 0; i < static_cast<std::size_t>(table[p].stored()); ++i) {
        const float expected = tied && p == 0 ? tree(table.size() - 1, i) + tree(0, i) : tree(p, i);
        ASSERT_EQ(trainer.gradient(static_cast<int>(p))[i], expected) << table[p].name << " " << i;
        squares += static_cast<double>(expected) * static_cast<double>(expected);
      }
    }
    EXPECT_NEAR(result.grad_norm, std::sqrt(squares), 1e-12 * std::sqrt(squares));
  }
}

// Compiled for another processor, the plain kernels in double are the same to the bit: three steps with each.
TEST(Trainer, DoubleKernelsEqualThePlainOnes) {
  for (const bool tied : {false, true}) {
    Settings s;
    s.batch = 3, s.seq = 21, s.lr = 0.01;
    const Batch batch(s);
    Lanes lanes;
    Trainer<double> plain(small(tied), s, plain_ops<double>(), lanes);
    Trainer<double> fast(small(tied), s, double_ops(), lanes);
    plain.initialise(), fast.initialise();
    for (int step = 0; step < 3; ++step) {
      const auto a = plain.step(batch.tokens.data(), batch.labels.data());
      const auto b = fast.step(batch.tokens.data(), batch.labels.data());
      EXPECT_EQ(a.loss, b.loss);
      EXPECT_EQ(a.grad_norm, b.grad_norm);
      for (int p = 0; p < static_cast<int>(plain.params().size()); ++p) {
        EXPECT_EQ(plain.gradient(p), fast.gradient(p)) << plain.params()[static_cast<std::size_t>(p)].name;
        EXPECT_EQ(plain.weight(p), fast.weight(p)) << plain.params()[static_cast<std::size_t>(p)].name;
      }
    }
  }
}

// Gradients in bf16 are float64's but for the rounding of weights and activations, 2^-9 each; what AdamW does
// is done to masters, so that steps far below a weight's last bit add up.
TEST(Trainer, Bf16IsNearDoubleAndKeepsMasters) {
  Settings s;
  s.batch = 3, s.seq = 21, s.warmup = 0, s.min_ratio = 1, s.lr = 1e-4, s.weight_decay = 0;
  const Batch batch(s);
  Lanes lanes;
  Trainer<bf16> narrow(small(false), s, plain_ops<float>(), lanes);
  Trainer<double> wide(small(false), s, plain_ops<double>(), lanes);
  narrow.initialise(), wide.initialise();
  const auto count = static_cast<int>(narrow.params().size());
  for (int p = 0; p < count; ++p)
    for (std::size_t i = 0; i < wide.weight(p).size(); ++i) wide.mutable_weight(p)[i] = narrow.weight(p)[i];
  const std::vector<bf16> before = narrow.weight(param_index(0, q_proj));
  const auto a = narrow.step(batch.tokens.data(), batch.labels.data());
  const auto b = wide.step(batch.tokens.data(), batch.labels.data());
  EXPECT_NEAR(a.loss, b.loss, 4e-3 * b.loss);
  for (int p = 0; p < count; ++p) {
    double error = 0, size = 0;
    for (std::size_t i = 0; i < wide.gradient(p).size(); ++i) {
      const double g = wide.gradient(p)[i], off = narrow.gradient(p)[i] - g;
      error += off * off, size += g * g;
    }
    EXPECT_LT(std::sqrt(error), 0.05 * std::sqrt(size)) << narrow.params()[static_cast<std::size_t>(p)].name;
  }
  for (int step = 1; step < 40; ++step) narrow.step(batch.tokens.data(), batch.labels.data());
  int moved = 0, large = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const float from = before[i], to = narrow.weight(param_index(0, q_proj))[i];
    if (std::abs(from) < 0.25f) continue;
    ++large, moved += from != to;
  }
  EXPECT_GT(large, 50);
  EXPECT_GT(moved, large / 2);  // each step is 1e-4, a tenth of what rounding would lose
}

// Weights that are loaded are what the next step begins from, in bf16 too, whose masters are then others.
TEST(Trainer, LoadedWeightsAreTrainedFrom) {
  Settings s;
  s.batch = 2, s.seq = 10, s.warmup = 0, s.lr = 1e-3;
  const Batch batch(s);
  Lanes lanes;
  Trainer<bf16> trainer(small(false), s, plain_ops<float>(), lanes);
  trainer.initialise();
  trainer.step(batch.tokens.data(), batch.labels.data());
  const std::vector<float> norm(16, 2.0f);
  trainer.load("model.norm.weight", norm.data());
  trainer.step(batch.tokens.data(), batch.labels.data());
  const auto p = trainer.params().size() - 2;
  ASSERT_EQ(trainer.params()[p].name, "model.norm.weight");
  for (const bf16 w : trainer.weight(static_cast<int>(p))) EXPECT_NEAR(static_cast<float>(w), 2, 0.02);
}

// Each to its parameter, and what is empty is left alone.
TEST(Trainer, AllWeightsAreLoadedAtOnce) {
  Settings s;
  s.batch = 2, s.seq = 10;
  Lanes lanes;
  Trainer<double> trainer(small(true), s, double_ops(), lanes);
  trainer.initialise();
  const int embedding = 0, norm = static_cast<int>(trainer.params().size()) - 2, head = norm + 1;
  ASSERT_EQ(trainer.params()[static_cast<std::size_t>(head)].tied_to, embedding);
  const std::vector<double> untouched = trainer.weight(embedding);
  std::vector<std::vector<float>> values(trainer.params().size());
  for (int p = 1; p <= norm; ++p)
    values[static_cast<std::size_t>(p)].assign(
        static_cast<std::size_t>(trainer.params()[static_cast<std::size_t>(p)].count()),
        0.5f + static_cast<float>(p));
  trainer.load(values);
  EXPECT_EQ(trainer.weight(embedding), untouched);
  for (int p = 1; p <= norm; ++p)
    for (const double w : trainer.weight(p)) ASSERT_EQ(w, 0.5 + p) << p;
}

TEST(Trainer, PadsStayZero) {
  Settings s;
  s.batch = 2, s.seq = 10;
  const Batch batch(s);
  Lanes lanes;
  Trainer<float> trainer(small(true), s, plain_ops<float>(), lanes);
  trainer.initialise();
  EXPECT_EQ(trainer.logits(batch.tokens.data(), 2).size(), 2u * 10 * 37);
  for (int step = 0; step < 3; ++step) trainer.step(batch.tokens.data(), batch.labels.data());
  EXPECT_EQ(trainer.steps_done(), 3);
  for (const std::vector<float>* x : std::initializer_list<const std::vector<float>*>{
           &trainer.weight(0), &trainer.gradient(0), &trainer.first_moment(0), &trainer.second_moment(0)}) {
    ASSERT_EQ(x->size(), 40u * 16);
    for (std::size_t i = 37 * 16; i < x->size(); ++i) EXPECT_EQ((*x)[i], 0.0f);
    EXPECT_NE((*x)[batch.tokens[0] * 16u], 0.0f);
  }
}

TEST(Trainer, WrongBatchesAndSettingsAreRefused) {
  Settings s;
  s.batch = 2, s.seq = 4;
  Lanes lanes;
  Trainer<float> trainer(small(false), s, plain_ops<float>(), lanes);
  trainer.initialise();
  auto refused = [&](std::vector<i32> tokens, std::vector<i32> labels) {
    return refusal([&] { trainer.step(tokens.data(), labels.data()); });
  };
  EXPECT_EQ(refused(std::vector<i32>(8, 36), std::vector<i32>(8, 36)), "");
  EXPECT_TRUE(says(refused(std::vector<i32>(8, 37), std::vector<i32>(8, 36)), "vocabulary, 0 to 36"));
  EXPECT_TRUE(says(refused(std::vector<i32>(8, -1), std::vector<i32>(8, 36)), "vocabulary"));
  EXPECT_TRUE(says(refused(std::vector<i32>(8, 36), std::vector<i32>(8, 37)), "vocabulary"));
  EXPECT_TRUE(says(refused(std::vector<i32>(8, 36), std::vector<i32>(8, kIgnored)), "at least one"));
  EXPECT_TRUE(says(refusal([&] { trainer.load("model.norm.bias", nullptr); }), "model.norm.bias"));

  auto refused_settings = [&](auto change) {
    Settings wrong = s;
    change(wrong);
    return refusal([&] { Trainer<float>(small(false), wrong, plain_ops<float>(), lanes); });
  };
  EXPECT_TRUE(says(refused_settings([](Settings& x) { x.batch = 0; }), "batch is 0"));
  EXPECT_TRUE(says(refused_settings([](Settings& x) { x.seq = -1; }), "seq is -1"));
  EXPECT_TRUE(says(refused_settings([](Settings& x) { x.leaves = 6; }), "power of two"));
  for (const i64 segments : {0, 3, 8})  // none; no power of two; more than there are tokens
    EXPECT_TRUE(
        says(refused_settings([&](Settings& x) { x.segments = segments; }),
             "segments is " + std::to_string(segments) + "; it must be a power of two that divides seq, 4"));
  EXPECT_TRUE(says(refused_settings([](Settings& x) { x.segments = 4, x.seq = 6; }), "divides seq, 6"));
  EXPECT_TRUE(
      says(refused_settings([](Settings& x) { x.segments = 3, x.seq = 6; }), "must be a power of two"));
  EXPECT_EQ(refused_settings([](Settings& x) { x.segments = 4; }), "");
  EXPECT_TRUE(says(refused_settings([](Settings& x) { x.clip = 0; }), "clip is 0"));
}

// A uniform guess over 509 tokens costs log 509 = 6.23; knowing how often each occurs costs less.
TEST(Trainer, LossFallsOnText) {
  const TokenFile text("datasets/excerpt-v509.tok");
  Settings s;
  s.batch = 8, s.seq = 32, s.steps = 20, s.lr = 3e-3;
  const auto config = load_model_config("suites/models/gate-tiny.json");
  Lanes lanes;
  Trainer<float> trainer(config, s, cpu_ops(), lanes);
  trainer.initialise();
  std::vector<i32> tokens(static_cast<std::size_t>(s.batch * s.seq)), labels(tokens.size());
  std::vector<double> losses;
  for (i64 step = 0; step < s.steps; ++step) {
    for (i64 index = 0; index < s.batch; ++index)
      sample(text, s, step, index, tokens.data() + index * s.seq, labels.data() + index * s.seq);
    const auto result = trainer.step(tokens.data(), labels.data());
    ASSERT_TRUE(std::isfinite(result.loss) && std::isfinite(result.grad_norm));
    losses.push_back(result.loss);
  }
  EXPECT_NEAR(losses.front(), std::log(509.0), 0.1);
  EXPECT_LT(losses.back(), losses.front() - 0.5);
}

}  // namespace
}  // namespace lockstep
