// What rounding may do to a step, in float32 and in bf16, and what can still be said where it may do all.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>

#include "ref/trainer.hpp"
#include "suites/certify/rounding.hpp"

namespace lockstep {
namespace {

struct Step {
  ModelConfig model;
  Settings settings;
  std::vector<Param> table;
  std::vector<std::vector<float>> weights;
  std::vector<i32> tokens, labels;

  // Weights of so large a range, in numbers of so many bytes.
  Step(float range, int bytes) {
    model.vocab = 25, model.hidden = 32, model.intermediate = 48, model.layers = 3, model.heads = 4;
    model.kv_heads = 2, model.head_dim = 8, model.tied = false;
    settings.batch = 2, settings.seq = 12, settings.activation_bytes = bytes;
    table = parameter_table(model, settings.leaves);
    std::mt19937 random(4);
    for (const Param& p : table) {
      weights.emplace_back();
      for (i64 i = 0; i < p.count(); ++i)
        weights.back().push_back(p.rows == 1 ? 1 : range * (static_cast<float>(random() % 2001) / 1000 - 1));
    }
    for (int i = 0; i < 24; ++i)
      tokens.push_back(static_cast<i32>(random() % 25)), labels.push_back(static_cast<i32>(random() % 25));
  }

  // As the reference has them in bf16.
  std::vector<std::vector<float>> gradients() const {
    Lanes lanes(1);
    Trainer<bf16> trainer(model, settings, plain_ops<float>(), lanes);
    trainer.load(weights);
    trainer.step(tokens.data(), labels.data());
    std::vector<std::vector<float>> all;
    for (std::size_t i = 0; i < table.size(); ++i) all.push_back(trainer.gradient(static_cast<int>(i)));
    return all;
  }
};

double length_of(const std::vector<double>& x) {
  double square = 0;
  for (const double v : x) square += v * v;
  return std::sqrt(square);
}

TEST(Rounding, IsAMillionthInFloat32AndAHundredthInBf16) {
  for (const auto& [bytes, least, most] : {std::tuple{4, 1e-7, 1e-4}, {2, 2e-3, 0.3}}) {
    const Step s(0.3f, bytes);
    Rounding rounding(s.model, s.settings);
    const FastReference::Step& exact = rounding.step(0, s.weights, s.tokens, s.labels);
    for (std::size_t i = 0; i < s.table.size(); ++i) {
      SCOPED_TRACE(s.table[i].name);
      EXPECT_FALSE(rounding.drowned(i));
      EXPECT_GT(rounding.part_allowed(i), least);
      EXPECT_LT(rounding.part_allowed(i), most);
      const double length = length_of(exact.gradient[i]);
      EXPECT_DOUBLE_EQ(rounding.allowed(i), rounding.part_allowed(i) * length);
      const auto [shortest, longest] = rounding.lengths(i);
      EXPECT_NEAR(shortest, length / 4, 0.05 * length / 4);
      EXPECT_NEAR(longest, length * 4, 0.05 * length * 4);
    }
  }
}

// Where a step is badly conditioned, though the weights are bf16's own and rounding them does nothing.
TEST(Rounding, IsSeenByWeightsThatDifferInTheirLastBits) {
  Step s(0.3f, 2);
  for (auto& tensor : s.weights)
    for (float& w : tensor) w = bf16(w);
  Rounding rounding(s.model, s.settings);
  rounding.step(0, s.weights, s.tokens, s.labels);
  Float64 float64(s.model, s.settings);
  Whole::Step own;
  own.gradient = s.gradients();
  const FastReference::Step exact = float64.step(s.weights, s.tokens.data(), s.labels.data(), own);
  int wider = 0;
  for (std::size_t i = 0; i < s.table.size(); ++i) wider += rounding.allowed(i) > 1.2 * exact.allowed[i];
  EXPECT_GT(wider, static_cast<int>(s.table.size()) / 2);
}

// Of many roundings few go along the gradient, and of all gradients together fewer.
TEST(Rounding, ChangesAScaleLessThanADistance) {
  const Step s(0.3f, 2);
  Rounding rounding(s.model, s.settings);
  const FastReference::Step& exact = rounding.step(0, s.weights, s.tokens, s.labels);
  double widest = 0, widest_scale = 0;
  for (std::size_t i = 0; i < s.table.size(); ++i) {
    widest = std::max(widest, rounding.part_allowed(i));
    widest_scale = std::max(widest_scale, rounding.scale_allowed(i));
  }
  EXPECT_LT(widest_scale, 0.6 * widest);
  EXPECT_LT(rounding.common_scale_allowed(), 0.6 * widest_scale);
  EXPECT_GE(rounding.common_scale_allowed(), 0x1p-10);
  // The reference's own gradients are as its rounding is.
  const std::vector<std::vector<float>> own = s.gradients();
  Along all;
  for (std::size_t i = 0; i < s.table.size(); ++i) {
    const Along along(s.table[i], own[i], exact.gradient[i]);
    EXPECT_LE(4 * std::abs(along.scale() - 1), rounding.scale_allowed(i)) << s.table[i].name;
    all += along;
  }
  EXPECT_LE(4 * std::abs(all.scale() - 1), rounding.common_scale_allowed());
  EXPECT_GT(std::abs(all.scale() - 1), 0);
}

TEST(Rounding, AScaleIsWhatIsAlongFloat64s) {
  const Param p = parameter_table(Step(0.3f, 2).model, 8)[0];
  std::vector<float> gradient(static_cast<std::size_t>(p.count()));
  std::vector<double> exact(gradient.size());
  exact[0] = 3, exact[1] = 4, gradient[0] = 6, gradient[1] = 8;
  gradient[2] = 100;  // across
  EXPECT_EQ(Along(p, gradient, exact).scale(), 2);
  Along all(p, gradient, exact);
  gradient[0] = 0, gradient[1] = 0;
  EXPECT_EQ((all += Along(p, gradient, exact)).scale(), 1);  // 50 + 0 of 25 + 25
}

TEST(Rounding, LeavesALengthWhereItMakesAnotherGradient) {
  const Step s(1.2f, 2);
  Rounding rounding(s.model, s.settings);
  const FastReference::Step& exact = rounding.step(0, s.weights, s.tokens, s.labels);
  int drowned = 0, told = 0;
  for (std::size_t i = 0; i < s.table.size(); ++i) {
    if (!rounding.drowned(i)) continue;
    ++drowned;
    const auto [least, most] = rounding.lengths(i);
    EXPECT_LT(least, length_of(exact.gradient[i])) << s.table[i].name;
    EXPECT_GT(most, length_of(exact.gradient[i])) << s.table[i].name;
    told += least > 0;
  }
  EXPECT_GT(drowned, 0);
  EXPECT_GT(told, 0);
  // Of the others, whose distance is an eighth of them at most, a scale is no further off.
  for (std::size_t i = 0; i < s.table.size(); ++i)
    EXPECT_LE(rounding.scale_allowed(i), 4 * 0x1p-3 + 0x1p-10) << s.table[i].name;
}

}  // namespace
}  // namespace lockstep
