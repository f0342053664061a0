#include <algorithm>

#include "kernels/exact_math.hpp"
#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Distance in units of the last place of the rounded truth; below the least normal number, of that place.
double ulps(float got, double want) {
  const float rounded = std::fabs(static_cast<float>(want));
  const double ulp = static_cast<double>(std::nextafterf(rounded, kInfinity)) - static_cast<double>(rounded);
  return std::fabs(static_cast<double>(got) - want) / ulp;
}

long double relative(long double got, long double want) { return std::fabs((got - want) / want); }

TEST(ExactMath, FloatExpIsWithinOneUlpEverywhere) {
  double worst = 0;
  // Every 1009th of the floats whose exp is finite and not 0.
  for (std::uint64_t bits = 0; bits < (1ull << 32); bits += 1009) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (!(x > -104.0f && x < 88.72f)) continue;
    worst = std::max(worst, ulps(exact_exp(x), std::exp(static_cast<double>(x))));
  }
  EXPECT_LT(worst, 1.0);
}

TEST(ExactMath, FloatExpAtTheEnds) {
  EXPECT_EQ(exact_exp(0.0f), 1.0f);
  EXPECT_EQ(exact_exp(-0.0f), 1.0f);
  EXPECT_EQ(exact_exp(-kInfinity), 0.0f);
  EXPECT_EQ(exact_exp(-1e30f), 0.0f);
  EXPECT_EQ(exact_exp(kInfinity), kInfinity);
  EXPECT_EQ(exact_exp(88.73f), kInfinity);
  EXPECT_TRUE(std::isnan(exact_exp(kNan)));
  EXPECT_LT(ulps(exact_exp(88.722f), std::exp(static_cast<double>(88.722f))), 1.0);
  // Denormal results, down to the least and below.
  for (const float x : {-87.5f, -90.0f, -95.0f, -100.0f, -103.0f, -103.9f, -103.98f, -104.5f}) {
    const double want = std::exp(static_cast<double>(x));
    EXPECT_LE(std::fabs(static_cast<double>(exact_exp(x)) - want), 0x1p-149) << x;
  }
  EXPECT_EQ(exact_exp(-103.9f), 0x1p-149f);
  EXPECT_EQ(exact_exp(-104.5f), 0.0f);
}

TEST(ExactMath, FloatExpNeverFalls) {
  float last = 0;
  for (float x = -104.0f; x < 88.72f; x = x + 0.00037f) {
    const float y = exact_exp(x);
    ASSERT_GE(y, last) << x;
    last = y;
  }
}

TEST(ExactMath, DoubleExp) {
  Random random(1);
  for (int i = 0; i < 300000; ++i) {
    const double x = random.uniform() * (i % 2 ? 708.0 : 1.0);
    ASSERT_LT(relative(exact_exp(x), std::exp(static_cast<long double>(x))), 4e-16L) << x;
  }
  EXPECT_EQ(exact_exp(0.0), 1.0);
  EXPECT_EQ(exact_exp(-HUGE_VAL), 0.0);
  EXPECT_EQ(exact_exp(-745.2), 0.0);
  EXPECT_EQ(exact_exp(-745.1), 0x1p-1074);
  EXPECT_EQ(exact_exp(709.79), HUGE_VAL);
  EXPECT_EQ(exact_exp(HUGE_VAL), HUGE_VAL);
  EXPECT_LT(relative(exact_exp(709.78), std::exp(709.78L)), 1e-13L);  // 709.78L is not 709.78
  EXPECT_TRUE(std::isnan(exact_exp(std::nan(""))));
}

TEST(ExactMath, Log) {
  Random random(2);
  for (int i = 0; i < 300000; ++i) {
    double x = std::exp(random.uniform() * 708.0);
    if (i % 3 == 1) x = 1.0 + 1e-3 * random.uniform();
    if (i % 3 == 2) x = 1.5 + random.uniform();
    if (x == 1.0) continue;
    ASSERT_LT(relative(exact_log(x), std::log(static_cast<long double>(x))), 4e-16L) << x;
    const auto narrow = static_cast<float>(x);
    if (narrow > 0.0f && narrow < kInfinity && narrow != 1.0f) {
      const double want = std::log(static_cast<double>(narrow));
      ASSERT_LE(ulps(exact_log(narrow), want), 0.501) << narrow;
    }
  }
  EXPECT_EQ(exact_log(1.0), 0.0);
  EXPECT_EQ(exact_log(0.0), -HUGE_VAL);
  EXPECT_EQ(exact_log(-0.0), -HUGE_VAL);
  EXPECT_EQ(exact_log(HUGE_VAL), HUGE_VAL);
  EXPECT_TRUE(std::isnan(exact_log(-1.0)));
  EXPECT_TRUE(std::isnan(exact_log(std::nan(""))));
  EXPECT_LT(relative(exact_log(0x1p-1074), -1074.0L * std::log(2.0L)), 4e-16L);
  EXPECT_LT(relative(exact_log(0x1.8p-1040), std::log(0x1.8p-1040L)), 4e-16L);
  EXPECT_EQ(exact_log(0.0f), -kInfinity);
}

TEST(ExactMath, SinAndCos) {
  Random random(3);
  for (int i = 0; i < 300000; ++i) {
    double x = random.uniform() * 1e6;
    if (i % 4 == 1) x = std::rint(x);                        // positions
    if (i % 4 == 2) x = x * 1e-6;                            // around the origin
    if (i % 4 == 3) x = std::rint(x) * 1.57079632679489662;  // where one of them is nearly 0
    if (x == 0.0) continue;
    ASSERT_LT(relative(exact_sin(x), std::sin(static_cast<long double>(x))), 4e-16L) << x;
    ASSERT_LT(relative(exact_cos(x), std::cos(static_cast<long double>(x))), 4e-16L) << x;
  }
  EXPECT_EQ(exact_sin(0.0), 0.0);
  EXPECT_EQ(exact_cos(0.0), 1.0);
  EXPECT_LT(relative(exact_sin(0x1p+30), std::sin(0x1p+30L)), 4e-16L);
  EXPECT_TRUE(std::isnan(exact_sin(HUGE_VAL)));
  EXPECT_TRUE(std::isnan(exact_cos(-HUGE_VAL)));
}

TEST(ExactMath, PowGivesRotaryFrequencies) {
  for (const double theta : {1e4, 5e5, 1e6})
    for (int i = 0; i < 64; ++i) {
      const double y = -2.0 * i / 128;
      EXPECT_LT(relative(exact_pow(theta, y), std::pow(static_cast<long double>(theta), y)), 3e-15L);
    }
}

// The orders themselves, spelled out: bits that only this order gives.
TEST(ExactSums, TreeSplitsAtTheLowerMiddle) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {  // one draw may round alike in any order
    const std::vector<float> leaf = random_vector<float>(7, seed);
    const auto tree = [&](i64 n) {
      return tree_sum(0, n, [&](i64 i) { return leaf[static_cast<std::size_t>(i)]; });
    };
    EXPECT_EQ(tree(1), leaf[0]);
    EXPECT_EQ(tree(3), leaf[0] + (leaf[1] + leaf[2]));
    EXPECT_EQ(tree(4), (leaf[0] + leaf[1]) + (leaf[2] + leaf[3]));
    EXPECT_EQ(tree(7), (leaf[0] + (leaf[1] + leaf[2])) + ((leaf[3] + leaf[4]) + (leaf[5] + leaf[6])));
  }
}

TEST(ExactSums, TreeOfRowsIsTheTreeOfEachColumn) {
  constexpr i64 n = 5;
  for (const i64 leaves : {1, 2, 3, 6, 8, 13}) {
    const std::vector<float> leaf = random_vector<float>(leaves * n, 5);
    std::vector<float> sum(n), spare(static_cast<std::size_t>(n * tree_depth(leaves)));
    tree_rows(0, leaves, n, sum.data(), spare.data(),
              [&](i64 r, float* row) { std::copy_n(leaf.data() + r * n, n, row); });
    for (i64 j = 0; j < n; ++j)
      EXPECT_EQ(sum[static_cast<std::size_t>(j)],
                tree_sum(0, leaves, [&](i64 r) { return leaf[static_cast<std::size_t>(r * n + j)]; }));
  }
}

TEST(ExactSums, LaneSumFoldsInHalves) {
  const std::vector<float> x = random_vector<float>(37, 6);
  float lane[16] = {};
  LaneSum<float> sum;
  for (int i = 0; i < 37; ++i) {
    lane[i % 16] = lane[i % 16] + x[static_cast<std::size_t>(i)];
    sum.add(i, x[static_cast<std::size_t>(i)]);
  }
  const auto pair = [&](int i) { return lane[i] + lane[i + 8]; };
  const auto quad = [&](int i) { return pair(i) + pair(i + 4); };
  EXPECT_EQ(sum.total(), (quad(0) + quad(2)) + (quad(1) + quad(3)));
}

}  // namespace
}  // namespace lockstep::kernel_test
