// The parameter table, and initial weights as a function of (seed, name, position).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/random.hpp"
#include "ref/params.hpp"

namespace lockstep {
namespace {

ModelConfig model(bool tied) {
  ModelConfig c;
  c.vocab = 509, c.hidden = 64, c.intermediate = 172, c.layers = 2, c.heads = 8, c.kv_heads = 2,
  c.head_dim = 8;
  c.tied = tied;
  return c;
}

TEST(Params, TableHasLlamasShapesInOrder) {
  const auto table = parameter_table(model(false), 8);
  ASSERT_EQ(table.size(), 1u + 2 * 9 + 2);
  struct Expected {
    const char* name;
    i64 rows, cols, stored_rows;
    bool decayed;
    int unit;
  };
  const std::vector<Expected> expected = {
      {"model.embed_tokens.weight", 509, 64, 512, true, 0},
      {"model.layers.0.input_layernorm.weight", 1, 64, 1, false, 1},
      {"model.layers.0.self_attn.q_proj.weight", 64, 64, 64, true, 1},
      {"model.layers.0.self_attn.k_proj.weight", 16, 64, 16, true, 1},
      {"model.layers.0.self_attn.v_proj.weight", 16, 64, 16, true, 1},
      {"model.layers.0.self_attn.o_proj.weight", 64, 64, 64, true, 1},
      {"model.layers.0.post_attention_layernorm.weight", 1, 64, 1, false, 1},
      {"model.layers.0.mlp.gate_proj.weight", 172, 64, 172, true, 1},
      {"model.layers.0.mlp.up_proj.weight", 172, 64, 172, true, 1},
      {"model.layers.0.mlp.down_proj.weight", 64, 172, 64, true, 1},
      {"model.layers.1.input_layernorm.weight", 1, 64, 1, false, 2},
  };
  for (std::size_t p = 0; p < expected.size(); ++p) {
    EXPECT_EQ(table[p].name, expected[p].name);
    EXPECT_EQ(table[p].rows, expected[p].rows) << table[p].name;
    EXPECT_EQ(table[p].cols, expected[p].cols) << table[p].name;
    EXPECT_EQ(table[p].stored_rows, expected[p].stored_rows) << table[p].name;
    EXPECT_EQ(table[p].decayed, expected[p].decayed) << table[p].name;
    EXPECT_EQ(table[p].unit, expected[p].unit) << table[p].name;
  }
  EXPECT_EQ(table[static_cast<std::size_t>(param_index(1, down_proj))].name,
            "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(table[19].name, "model.norm.weight");
  EXPECT_EQ(table[20].name, "lm_head.weight");
  EXPECT_EQ(table[20].stored_rows, 512);
  EXPECT_EQ(table[20].unit, 3);
  EXPECT_EQ(table[20].tied_to, -1);
  EXPECT_EQ(parameter_table(model(true), 8)[20].tied_to, 0);
}

// Steele, Lea & Flood's generator from the seed 1234567, as published with other implementations.
TEST(Params, RandomWordsAreSplitMix64) {
  EXPECT_EQ(random_word(1234567, 0), 6457827717110365317u);
  EXPECT_EQ(random_word(1234567, 1), 3203168211198807973u);
  EXPECT_EQ(random_word(1234567, 2), 9817491932198370423u);
  EXPECT_EQ(random_word(1234567, 3), 4593380528125082431u);
  EXPECT_EQ(random_word(1234567, 4), 16408922859458223821u);
}

std::vector<double> values(const Param& param, i64 seed) {
  std::vector<float> row_values(static_cast<std::size_t>(param.cols));
  std::vector<double> all;
  for (i64 row = 0; row < param.rows; ++row) {
    initial_values(model(false), param, seed, row, 0, param.cols, row_values.data());
    for (const float x : row_values) all.push_back(static_cast<double>(x) / 0.02);
  }
  return all;
}
float initial_value(const ModelConfig& config, const Param& param, i64 seed, i64 row, i64 col) {
  float value = NAN;
  initial_values(config, param, seed, row, col, 1, &value);
  return value;
}

double mean_product(const std::vector<double>& a, const std::vector<double>& b, std::size_t lag = 0) {
  double total = 0;
  for (std::size_t i = lag; i < a.size(); ++i) total += a[i] * b[i - lag];
  return total / static_cast<double>(a.size() - lag);
}

// Bounds are 5 standard errors of n = 32576 independent normals.
TEST(Params, InitialValuesAreStandardNormal) {
  const auto table = parameter_table(model(false), 8);
  const auto x = values(table[0], 1);
  const double n = static_cast<double>(x.size());
  std::vector<double> squares(x.size()), ones(x.size(), 1.0);
  std::transform(x.begin(), x.end(), squares.begin(), [](double v) { return v * v; });
  EXPECT_LT(std::abs(mean_product(x, ones)), 5 * std::sqrt(1 / n));
  EXPECT_LT(std::abs(mean_product(x, x) - 1), 5 * std::sqrt(2 / n));
  EXPECT_LT(std::abs(mean_product(squares, x)), 5 * std::sqrt(15 / n));
  EXPECT_LT(std::abs(mean_product(squares, squares) - 3), 5 * std::sqrt(96 / n));
  for (const std::size_t lag : {1u, 2u, 64u})
    EXPECT_LT(std::abs(mean_product(x, x, lag)), 5 * std::sqrt(1 / n));

  // Kolmogorov-Smirnov: the largest gap to the normal distribution function.
  auto sorted = x;
  std::sort(sorted.begin(), sorted.end());
  double gap = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i)
    gap = std::max(
        gap, std::abs(0.5 * std::erfc(-sorted[i] / std::sqrt(2.0)) - (static_cast<double>(i) + 0.5) / n));
  EXPECT_LT(gap, 1.95 / std::sqrt(n));  // 1 in 1000 by chance
}

TEST(Params, APartOfARowHasTheRowsValues) {
  const ModelConfig config = model(false);
  const Param q = parameter_table(config, 8)[2];
  const auto all = values(q, 1);
  std::vector<float> part(7);
  initial_values(config, q, 1, 3, 5, 7, part.data());
  for (std::size_t i = 0; i < part.size(); ++i)
    EXPECT_EQ(static_cast<double>(part[i]) / 0.02, all[3 * static_cast<std::size_t>(q.cols) + 5 + i]) << i;
}

TEST(Params, SeedsAndNamesGiveIndependentValues) {
  const auto table = parameter_table(model(false), 8);
  const Param &q = table[2], &o = table[5];  // both [64, 64]
  const double bound = 5 / std::sqrt(static_cast<double>(q.count()));
  EXPECT_EQ(values(q, 1), values(q, 1));
  EXPECT_LT(std::abs(mean_product(values(q, 1), values(q, 2))), bound);
  EXPECT_LT(std::abs(mean_product(values(q, 1), values(o, 1))), bound);
}

TEST(Params, NormsAreOneAndPadsZeroAndTiedHeadsEqual) {
  const ModelConfig config = model(true);
  const auto table = parameter_table(config, 8);
  EXPECT_EQ(initial_value(config, table[1], 1, 0, 63), 1.0f);
  for (i64 row = 509; row < 512; ++row) EXPECT_EQ(initial_value(config, table[0], 1, row, 5), 0.0f);
  for (i64 row = 0; row < 512; ++row)
    EXPECT_EQ(initial_value(config, table.back(), 1, row, 5), initial_value(config, table[0], 1, row, 5));
}

}  // namespace
}  // namespace lockstep
