#include <algorithm>

#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

using Words = std::vector<i64>;

template <class Real>
class Squares : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();

  Words words(const std::vector<Real>& x) const {
    return on_lanes<i64>([&](Lanes& lanes) {
      Words w(kSquareWords);
      ops.add_squares(lanes, w.data(), x.data(), static_cast<i64>(x.size()));
      return w;
    });
  }
  double root(const std::vector<Real>& x) const { return root_of_squares(words(x).data()); }
};
TYPED_TEST_SUITE(Squares, Reals);

TYPED_TEST(Squares, SmallCases) {
  EXPECT_EQ(this->root({}), 0.0);
  EXPECT_EQ(this->root({0, -TypeParam(0)}), 0.0);
  EXPECT_EQ(this->root({3, -4}), 5.0);
  EXPECT_EQ(this->root({1, 1}), std::sqrt(2.0));
  EXPECT_EQ(this->root({TypeParam(0x1p-149)}), 0x1p-149);
  EXPECT_EQ(this->root({TypeParam(-0x1.fffffep+127)}), 0x1.fffffep+127);
}

TYPED_TEST(Squares, WhatIsNotFiniteGivesNan) {
  const TypeParam inf = std::numeric_limits<TypeParam>::infinity();
  EXPECT_TRUE(std::isnan(this->root({1, inf})));
  EXPECT_TRUE(std::isnan(this->root({-inf, 1})));
  EXPECT_TRUE(std::isnan(this->root({1, std::numeric_limits<TypeParam>::quiet_NaN()})));
}

// 10000 squares of integers below 2^53 stay below 2^120: a 128-bit integer holds their sum exactly,
// and its conversion to double rounds once, to nearest. Powers of two move the same bits about.
TYPED_TEST(Squares, SumIsCorrectlyRounded) {
  Random random(1);
  for (int round = 0; round < 20; ++round) {
    std::vector<TypeParam> x;
    unsigned __int128 sum = 0;
    for (int i = 0; i < 10000; ++i) {
      x.push_back(static_cast<TypeParam>(static_cast<i64>(random.bits() >> 11) >> random.below(53)));
      const auto integer = static_cast<unsigned __int128>(x.back());
      sum += integer * integer;
    }
    const double want = std::sqrt(static_cast<double>(sum));
    EXPECT_EQ(this->root(x), want);
    for (const int place : {-100, -33, 17, 64}) {
      auto moved = x;
      for (TypeParam& value : moved) value = std::ldexp(value, place);
      EXPECT_EQ(this->root(moved), std::ldexp(want, place)) << place;
    }
  }
}

// Doubles near 2^105 lie 2^53 apart, so 2^105 + 2^54 + 2^52 is half way between two. Its even neighbour
// is below; a square of 2^-298 tips it to the one above. Near 2^104 and 2^52 + 2^51 even is above.
TYPED_TEST(Squares, TheFarthestBitDecidesATie) {
  using Real = TypeParam;
  std::vector<Real> x{Real(0x1p+52), Real(0x1p+52), Real(0x1p+27), Real(0x1p+26)};
  const double below = std::sqrt(0x1p+105 + 0x1p+54), above = std::sqrt(0x1p+105 + 0x1p+54 + 0x1p+53);
  ASSERT_NE(below, above);
  EXPECT_EQ(this->root(x), below);
  x.push_back(Real(0x1p-149));
  EXPECT_EQ(this->root(x), above);

  const std::vector<Real> odd{Real(0x1p+52), Real(0x1p+26), Real(0x1p+25), Real(0x1p+25)};
  EXPECT_EQ(this->root(odd), std::sqrt(0x1p+104 + 0x1p+53));
}

TYPED_TEST(Squares, OrderAndGroupingDoNotExist) {
  Random random(2);
  std::vector<TypeParam> x;
  for (int i = 0; i < 9001; ++i)
    x.push_back(
        static_cast<TypeParam>(std::ldexp(random.uniform(), static_cast<int>(random.below(250)) - 124)));
  const Words whole = this->words(x);
  auto backward = x;
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(this->words(backward), whole);
  Words sum(kSquareWords);
  for (const auto& part : {rows(x, 1, 0, 4000), rows(x, 1, 4000, 1), rows(x, 1, 4001, 5000)}) {
    const Words w = this->words(part);
    for (int i = 0; i < kSquareWords; ++i) sum[i] += w[i];
  }
  EXPECT_EQ(sum, whole);
}

TYPED_TEST(Squares, AddsToWhatIsThere) {
  Words once = this->words({TypeParam(1.5), TypeParam(-1e-20)}), twice = once;
  Lanes lanes;
  const std::vector<TypeParam> x{TypeParam(1.5), TypeParam(-1e-20)};
  this->ops.add_squares(lanes, twice.data(), x.data(), 2);
  for (int i = 0; i < kSquareWords; ++i) EXPECT_EQ(twice[i], 2 * once[i]);
}

TEST(SquaresOfDoubles, BeyondTheFixedPoint) {
  const Ops<double> ops = plain_ops<double>();
  Lanes lanes;
  const auto root = [&](double x) {
    i64 words[kSquareWords] = {};
    ops.add_squares(lanes, words, &x, 1);
    return root_of_squares(words);
  };
  EXPECT_TRUE(std::isnan(root(0x1p+160)));
  EXPECT_EQ(root(0x1.fffffffffffffp+159), 0x1.fffffffffffffp+159);
  EXPECT_EQ(root(0x1p-224), 0x1p-224);
  EXPECT_EQ(root(0x1p-225), 0.0);
  EXPECT_EQ(root(1e-300), 0.0);
  EXPECT_EQ(root(0x1p-1074), 0.0);
  EXPECT_EQ(root(0x1.8p-224), std::sqrt(2.0) * 0x1p-224);  // 2.25 units: the quarter is dropped
}

// The tie of TheFarthestBitDecidesATie, 2^105 + 2^54 + 2^52 in limbs, tipped by the last bit of each.
TEST(RootOfSquares, AnyLowerLimbTipsATie) {
  for (int limb = 0; limb < 16; ++limb) {
    i64 words[kSquareWords] = {};
    words[17] = 1 << 9;
    words[15] = (1 << 22) + (1 << 20);
    EXPECT_EQ(root_of_squares(words), std::sqrt(0x1p+105 + 0x1p+54));
    words[limb] += 1;
    EXPECT_EQ(root_of_squares(words), std::sqrt(0x1p+105 + 0x1p+54 + 0x1p+53)) << limb;
  }
}

// Limbs may hold more than 32 bits each, and what they carry beyond the last.
TEST(RootOfSquares, CarriesBetweenLimbs) {
  i64 words[kSquareWords] = {};
  words[14] = i64{1} << 62;  // limb 14 counts ones
  EXPECT_EQ(root_of_squares(words), 0x1p+31);
  words[14] = 9;
  words[13] = i64{7} << 32;
  EXPECT_EQ(root_of_squares(words), 4.0);
  words[13] = -(i64{5} << 32);
  EXPECT_EQ(root_of_squares(words), 2.0);
  words[13] = words[14] = 0;
  words[23] = i64{1} << 62;
  EXPECT_EQ(root_of_squares(words), 0x1p+175);
}

}  // namespace
}  // namespace lockstep::kernel_test
