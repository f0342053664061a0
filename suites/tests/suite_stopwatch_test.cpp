// The median of step times, how well it is known, and when timing may end.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "suites/timing/stopwatch.hpp"

namespace lockstep {
namespace {

std::vector<double> up_to(int n) {
  std::vector<double> values;
  for (int i = n; i >= 1; --i) values.push_back(i);
  return values;
}

TEST(Stopwatch, MedianOfOddAndEvenCounts) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 10}), 3);
  EXPECT_TRUE(std::isnan(median({})));
}

// Published, as tables of the sign test's 5 % points: the 95 % interval of a median goes from the r-th
// smallest to the r-th largest value, r = 1 of 6, 2 of 9, 3 of 12, 6 of 20, 10 of 30; 5 values have none.
TEST(Stopwatch, SpreadIsThePublishedInterval) {
  EXPECT_TRUE(std::isinf(median_spread(up_to(5))));
  const std::tuple<int, int, int> published[] = {
      {6, 1, 6}, {9, 2, 8}, {12, 3, 10}, {20, 6, 15}, {30, 10, 21}};
  for (const auto& [n, low, high] : published) {
    EXPECT_EQ(median_spread(up_to(n)), (high - low) / 2.0 / ((n + 1) / 2.0)) << n;
    EXPECT_EQ(median_interval(up_to(n)).low, low);
    EXPECT_EQ(median_interval(up_to(n)).high, high);
  }
  EXPECT_FALSE(median_interval(up_to(5)).known());
}

// By drawing: the interval holds the true median of a skewed distribution in at least 95 % of draws, and is
// not much wider than that needs.
TEST(Stopwatch, IntervalHoldsTheTrueMedian) {
  std::mt19937 random(1);
  std::exponential_distribution<double> skewed(1);
  int held = 0;
  constexpr int kDraws = 4000, n = 15;
  for (int draw = 0; draw < kDraws; ++draw) {
    std::vector<double> values;
    for (int i = 0; i < n; ++i) values.push_back(skewed(random));
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    // n = 15: ranks 4 and 12. The spread is half their distance.
    EXPECT_DOUBLE_EQ(median_spread(values), (sorted[11] - sorted[3]) / 2 / sorted[7]);
    held += sorted[3] <= std::log(2.0) && std::log(2.0) <= sorted[11];
  }
  EXPECT_GE(held, 0.95 * kDraws);
  EXPECT_LE(held, 0.985 * kDraws);
}

class Timing : public testing::Test {
 protected:
  std::size_t steps_timed(const Repeats& repeats) {
    return time_steps(prepared_, {}, initial_, repeats).step_seconds.size();
  }
  const ModelConfig model_ = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data_{"datasets/excerpt-v509.tok"};
  const Settings settings_ = [] {
    Settings s;
    s.batch = 4, s.seq = 8;
    return s;
  }();
  const Weights initial_ = fresh_weights(model_, settings_);
  const Prepared prepared_ = prepare({model_, settings_, Plan::parse("dp=2 pp=2"), &data_});
};

TEST_F(Timing, EndsAtTheLeastWhenAnySpreadWillDo) { EXPECT_EQ(steps_timed({7, 20, 1e9}), 7u); }
TEST_F(Timing, EndsAtTheMostWhenNoSpreadWillDo) { EXPECT_EQ(steps_timed({2, 11, 0}), 11u); }
TEST_F(Timing, OneStepIsEnoughToAskFor) { EXPECT_EQ(steps_timed({1, 1, 0}), 1u); }

}  // namespace
}  // namespace lockstep
