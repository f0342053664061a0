// The learning rate, clipping and AdamW's scalars against their formulas.
#include <gtest/gtest.h>

#include <cmath>

#include "ref/optimizer.hpp"

namespace lockstep {
namespace {

Settings settings() {
  Settings s;
  s.lr = 0.008, s.min_ratio = 0.25, s.warmup = 4, s.total = 12;
  return s;
}

TEST(Schedule, WarmsUpThenFollowsACosine) {
  const Settings s = settings();
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.002);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1), 0.004);
  EXPECT_DOUBLE_EQ(learning_rate(s, 3), 0.008);
  EXPECT_DOUBLE_EQ(learning_rate(s, 4), 0.008);
  EXPECT_DOUBLE_EQ(learning_rate(s, 6), 0.002 + 0.006 * (1 + std::sqrt(0.5)) / 2);
  EXPECT_DOUBLE_EQ(learning_rate(s, 8), 0.005);
  EXPECT_DOUBLE_EQ(learning_rate(s, 12), 0.002);
  EXPECT_DOUBLE_EQ(learning_rate(s, 100), 0.002);
}

TEST(Schedule, IsAsLongAsTheRunUnlessSaid) {
  Settings s = settings();
  s.total = 0, s.steps = 20;
  EXPECT_DOUBLE_EQ(learning_rate(s, 12), 0.005);
  s.warmup = 0;
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.008);
  EXPECT_DOUBLE_EQ(learning_rate(s, 10), 0.005);
}

TEST(Schedule, ClippingOnlyShrinks) {
  Settings s;
  s.clip = 0.5;
  EXPECT_EQ(clip_scale(s, 0.1), 1.0);
  EXPECT_DOUBLE_EQ(clip_scale(s, 2.0), 0.5 / 2.000001);
  EXPECT_EQ(clip_scale(s, 0.0), 1.0);
}

TEST(Schedule, AdamWScalarsFollowThePaper) {
  Settings s = settings();
  s.beta1 = 0.9, s.beta2 = 0.95, s.eps = 1e-8, s.weight_decay = 0.1;
  for (const i64 step : {0, 1, 6, 1000}) {
    const double lr = learning_rate(s, step), t = static_cast<double>(step + 1);
    const auto a = adamw_step<double>(s, step, true);
    EXPECT_DOUBLE_EQ(a.keep, 1 - lr * 0.1);
    EXPECT_DOUBLE_EQ(a.b1, 0.9);
    EXPECT_DOUBLE_EQ(a.c1, 1 - 0.9);
    EXPECT_DOUBLE_EQ(a.b2, 0.95);
    EXPECT_DOUBLE_EQ(a.c2, 1 - 0.95);
    EXPECT_DOUBLE_EQ(a.eps, 1e-8);
    EXPECT_NEAR(a.root_bias2, std::sqrt(1 - std::pow(0.95, t)), 1e-14);
    EXPECT_NEAR(a.rate, lr / (1 - std::pow(0.9, t)), 1e-14);
    EXPECT_EQ(adamw_step<double>(s, step, false).keep, 1.0);
    EXPECT_EQ(adamw_step<float>(s, step, true).rate, static_cast<float>(a.rate));
  }
}

}  // namespace
}  // namespace lockstep
