// The whole model's gradient against finite differences of its loss, parameter by parameter.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/random.hpp"
#include "ref/config.hpp"
#include "ref/model.hpp"

namespace lockstep {
namespace {

struct Gradient : testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Models, Gradient, testing::Values("gate-tiny", "gate-untied"),
                         [](const auto& model) { return model.param.substr(5); });

// uniform in [-1, 1)
double noise(std::uint64_t key, std::size_t position) {
  return 2 * unit_interval(random_word(key, position)) - 1;
}

struct GradientScene {
  ModelConfig config;
  static constexpr i64 seq = 12;
  std::vector<Param> table;
  Tensors<double> weights;
  std::vector<i32> tokens, labels;
  Lanes lanes;
  const Ops<double> ops = double_ops();

  explicit GradientScene(const std::string& name)
      : config(load_model_config("suites/models/" + name + ".json")) {
    config.layers = 2;  // the others are alike
    table = parameter_table(config, 8);
    for (std::size_t p = 0; p < table.size(); ++p) {
      const Param& param = table[p];
      weights.emplace_back(static_cast<std::size_t>(param.tied_to >= 0 ? 0 : param.stored()));
      // Weights of size 1/sqrt(K), embedding and norms of size 1: every part of the model is at work.
      const bool norm = param.row_dim == Dim::one;
      const double size = norm || p == 0 ? 0.5 : 1 / std::sqrt(static_cast<double>(param.cols));
      for (std::size_t i = 0; i < weights[p].size() && static_cast<i64>(i) < param.count(); ++i)
        weights[p][i] = (norm ? 1 : 0) + size * noise(p, i);
    }
    for (std::size_t t = 0; t < static_cast<std::size_t>(seq); ++t) {
      tokens.push_back(static_cast<i32>(random_word(98, t) % 20));  // 20: some occur twice
      labels.push_back(t % 5 == 2 ? -100 : static_cast<i32>(random_word(99, t) % 509));
    }
  }

  static constexpr double scale = 0.25;
  double loss() {
    const Model<double> model(config, seq, 8, 1, table, weights, ops, lanes);
    Kept<double> kept = model.forward(tokens.data());
    return model.loss(kept, labels.data()).at(0);
  }
  // By segment. Nothing is taken for zero that was not written.
  std::vector<Tensors<double>> gradients(i64 segments) {
    std::vector<Tensors<double>> grads(static_cast<std::size_t>(segments));
    for (Tensors<double>& of_segment : grads)
      for (const Param& param : table) of_segment.emplace_back(static_cast<std::size_t>(param.stored()), 7.0);
    const Model<double> model(config, seq, 8, segments, table, weights, ops, lanes);
    Kept<double> kept = model.forward(tokens.data());
    losses = model.loss(kept, labels.data());
    model.backward(kept, tokens.data(), labels.data(), scale, grads);
    return grads;
  }
  std::vector<double> losses;  // of those
};

double length_of(const Tensor<double>& x) {
  double squares = 0;
  for (const double y : x) squares += y * y;
  return std::sqrt(squares);
}
double distance_of(const Tensor<double>& x, const Tensor<double>& y) {
  double squares = 0;
  for (std::size_t i = 0; i < x.size(); ++i) squares += (x[i] - y[i]) * (x[i] - y[i]);
  return std::sqrt(squares);
}

TEST_P(Gradient, EqualsFiniteDifferences) {
  GradientScene s(GetParam());
  const auto& table = s.table;
  Tensors<double>& weights = s.weights;
  // The sum over two segments is the gradient too.
  Tensors<double> grads;
  for (const Tensors<double>& of_segment : s.gradients(2))
    for (std::size_t p = 0; p < table.size(); ++p)
      if (grads.size() <= p)
        grads.push_back(of_segment[p]);
      else
        for (std::size_t i = 0; i < grads[p].size(); ++i) grads[p][i] += of_segment[p][i];
  if (s.config.tied)
    for (std::size_t i = 0; i < grads[0].size(); ++i) grads[0][i] += grads.back()[i];

  for (std::size_t p = 0; p < table.size(); ++p) {
    if (table[p].tied_to >= 0) continue;
    const Tensor<double> start = weights[p];
    const std::size_t n = static_cast<std::size_t>(table[p].count());
    double length = 0, size = 0, analytic = 0;  // of the direction, of the gradient, along the direction
    Tensor<double> direction(n);
    for (std::size_t i = 0; i < n; ++i) {
      direction[i] = noise(1000 + p, i);
      length += direction[i] * direction[i];
      size += grads[p][i] * grads[p][i];
    }
    for (std::size_t i = 0; i < n; ++i) {
      direction[i] /= std::sqrt(length);
      analytic += grads[p][i] * direction[i];
    }
    auto loss_at = [&](double h) {
      for (std::size_t i = 0; i < n; ++i) weights[p][i] = start[i] + h * direction[i];
      return s.loss();
    };
    const double h = 5e-3;  // a central difference of order 4: its error is of order h^4
    const double numeric =
        (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h) * s.scale;
    weights[p] = start;
    EXPECT_NEAR(numeric, analytic, 1e-11 * std::sqrt(size)) << table[p].name;
  }
}

// Where a sequence is cut changes where sums are, not what they are of.
TEST_P(Gradient, OfAllSegmentsIsTheWholeSequences) {
  GradientScene s(GetParam());
  const Tensors<double> whole = s.gradients(1).at(0);
  const double loss = s.losses.at(0);
  for (const i64 segments : {2, 4}) {
    const auto grads = s.gradients(segments);
    ASSERT_EQ(s.losses.size(), static_cast<std::size_t>(segments));
    double sum = 0;
    for (const double l : s.losses) sum += l;
    EXPECT_NEAR(sum, loss, 1e-13 * loss);
    for (std::size_t p = 0; p < s.table.size(); ++p) {
      Tensor<double> all(whole[p].size());
      for (const auto& of_segment : grads)
        for (std::size_t i = 0; i < all.size(); ++i) all[i] += of_segment[p][i];
      EXPECT_LE(distance_of(all, whole[p]), 1e-12 * length_of(whole[p])) << s.table[p].name;
      EXPECT_GT(distance_of(grads[0][p], whole[p]), 0.01 * length_of(whole[p])) << s.table[p].name;
    }
  }
}

// Tokens do not meet in the final norm and the head: a segment's gradient is what only its labels give. Below
// they meet, and later ones see earlier ones, not the other way round.
TEST_P(Gradient, OfASegmentIsOfItsTokens) {
  GradientScene s(GetParam());
  const i64 segments = 2, segment = s.seq / segments;
  const auto grads = s.gradients(segments);
  const std::vector<double> losses = s.losses;
  const std::vector<i32> labels = s.labels;
  const std::size_t head = s.table.size() - 1, norm = head - 1;
  for (i64 c = 0; c < segments; ++c) {
    for (i64 t = 0; t < s.seq; ++t)
      s.labels[static_cast<std::size_t>(t)] = t / segment == c ? labels[static_cast<std::size_t>(t)] : -100;
    const Tensors<double> only = s.gradients(1).at(0);
    EXPECT_NEAR(s.losses.at(0), losses[static_cast<std::size_t>(c)], 1e-13 * losses[0]);
    for (const std::size_t p : {norm, head})
      EXPECT_LE(distance_of(grads[static_cast<std::size_t>(c)][p], only[p]), 1e-12 * length_of(only[p]))
          << s.table[p].name;
    const auto by_segment = s.gradients(segments);
    for (std::size_t p = 0; p < s.table.size(); ++p) {
      const bool none = c == 0;  // of the first segment's loss the second segment's tokens have no part
      if (none) {
        EXPECT_EQ(length_of(by_segment[1][p]), 0) << s.table[p].name;
      }
      EXPECT_GT(length_of(by_segment[static_cast<std::size_t>(c)][p]), 0) << s.table[p].name;
    }
    if (c == 1) {  // earlier tokens are keys and values for the second segment's, in every layer
      EXPECT_GT(length_of(by_segment[0][param_index(1, k_proj)]), 0);
      EXPECT_GT(length_of(by_segment[0][param_index(1, v_proj)]), 0);
      EXPECT_GT(length_of(by_segment[0][param_index(0, down_proj)]), 0);
      for (const int p : {q_proj, o_proj, gate_proj, up_proj, down_proj})  // but in the last only that
        EXPECT_EQ(length_of(by_segment[0][param_index(1, p)]), 0) << p;
    }
  }
}

// Where segments have no token in common, an embedding's row has its gradient in the segment that has its
// token.
TEST_P(Gradient, OfTheEmbeddingLiesWithTheTokensOfTheSegment) {
  GradientScene s(GetParam());
  const i64 segments = 4, segment = s.seq / segments;
  for (i64 t = 0; t < s.seq; ++t)
    s.tokens[static_cast<std::size_t>(t)] =
        static_cast<i32>(10 * (t / segment) + t % segment % 2);  // one twice
  const Tensor<double> whole = s.gradients(1).at(0)[0];
  const auto grads = s.gradients(segments);
  const i64 D = s.config.hidden;
  for (i64 row = 0; row < s.table[0].stored_rows; ++row)
    for (i64 c = 0; c < segments; ++c) {
      const bool here = row / 10 == c && row % 10 < 2;
      for (i64 d = 0; d < D; ++d) {
        const auto i = static_cast<std::size_t>(row * D + d);
        const double got = grads[static_cast<std::size_t>(c)][0][i];
        ASSERT_EQ(got, here ? whole[i] : 0) << "segment " << c << ", row " << row;
        if (here) {
          ASSERT_NE(got, 0);
        }
      }
    }
}

}  // namespace
}  // namespace lockstep
