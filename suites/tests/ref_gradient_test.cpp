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

TEST_P(Gradient, EqualsFiniteDifferences) {
  ModelConfig config = load_model_config("suites/models/" + GetParam() + ".json");
  config.layers = 2;  // the others are alike
  const i64 seq = 12;
  const auto table = parameter_table(config, 8);
  Tensors<double> weights, grads;
  for (std::size_t p = 0; p < table.size(); ++p) {
    const Param& param = table[p];
    grads.emplace_back(static_cast<std::size_t>(param.stored()));
    weights.emplace_back(static_cast<std::size_t>(param.tied_to >= 0 ? 0 : param.stored()));
    // Weights of size 1/sqrt(K), embedding and norms of size 1: every part of the model is at work.
    const bool norm = param.row_dim == Dim::one;
    const double size = norm || p == 0 ? 0.5 : 1 / std::sqrt(static_cast<double>(param.cols));
    for (std::size_t i = 0; i < weights[p].size() && static_cast<i64>(i) < param.count(); ++i)
      weights[p][i] = (norm ? 1 : 0) + size * noise(p, i);
  }
  std::vector<i32> tokens, labels;
  for (std::size_t t = 0; t < static_cast<std::size_t>(seq); ++t) {
    tokens.push_back(static_cast<i32>(random_word(98, t) % 20));  // 20: some occur twice
    labels.push_back(t % 5 == 2 ? -100 : static_cast<i32>(random_word(99, t) % 509));
  }

  Lanes lanes;
  const Ops<double> ops = double_ops();
  const Model<double> model(config, seq, 8, table, weights, ops, lanes);
  auto loss = [&] {
    Kept<double> kept = model.forward(tokens.data());
    return model.loss(kept, labels.data());
  };
  Kept<double> kept = model.forward(tokens.data());
  model.loss(kept, labels.data());
  const double scale = 0.25;
  model.backward(kept, tokens.data(), labels.data(), scale, grads);
  if (config.tied)
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
      return loss();
    };
    const double h = 5e-3;  // a central difference of order 4: its error is of order h^4
    const double numeric =
        (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h) * scale;
    weights[p] = start;
    EXPECT_NEAR(numeric, analytic, 1e-11 * std::sqrt(size)) << table[p].name;
  }
}

}  // namespace
}  // namespace lockstep
