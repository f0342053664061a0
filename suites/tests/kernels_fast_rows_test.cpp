// Fast mode's kernels of a GPU that go through memory once, run here in loops, against the plain kernels in
// float64 on the same numbers: within a few roundings of float32, and one of bf16 where the result is stored
// so.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/fast_table.hpp"
#include "kernels/cuda/table.hpp"
#include "suites/tests/kernels_cuda_here.hpp"
#include "suites/tests/kernels_simd.hpp"

namespace lockstep::cuda {
namespace {

using simd_test::Here;
using simd_test::Random;

// What a fast kernel did not take would be the plain kernel, and right; so a table that holds nothing lies
// below.
Ops<float> fast_table() {
  Ops<float> ops;
  fast::fill_rows<Here>(ops);
  return ops;
}
const Ops<double>& exact() {
  static const Ops<double> ops = plain_ops<double>();
  return ops;
}

// Aligned to 16 bytes, as buffers of an arena are.
template <class X>
struct Numbers {
  std::vector<Quad> room;
  i64 n;
  Numbers(i64 size, float value) : room(static_cast<std::size_t>(size / 4 + 1)), n(size) {
    for (i64 i = 0; i < n; ++i) data()[i] = X(value);
  }
  X* data() { return reinterpret_cast<X*>(room.data()); }
  std::vector<double> wide() {
    std::vector<double> all;
    for (i64 i = 0; i < n; ++i) all.push_back(static_cast<double>(static_cast<float>(data()[i])));
    return all;
  }
};
template <class X>
Numbers<X> random(i64 n, unsigned seed, float range) {
  Random source(seed);
  Numbers<X> x(n, 0);
  for (i64 i = 0; i < n; ++i) x.data()[i] = X(source.value(range));
  return x;
}

template <class X>
constexpr double kRowRounding = sizeof(X) == 2 ? 0x1p-8 : 0x1p-20;

// Each within `roundings` of what it is, or of the largest where sums cancel.
template <class X>
void expect_near(Numbers<X>& got, const std::vector<double>& want, double roundings = 1) {
  double most = 0;
  for (const double x : want) most = std::max(most, std::abs(x));
  const auto all = got.wide();
  for (std::size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(all[i], want[i], roundings * (kRowRounding<X> * std::abs(want[i]) + 0x1p-20 * most)) << i;
}

template <class X>
class FastRows : public testing::Test {
 protected:
  const Ops<float> fast_ = fast_table();
  Lanes lanes_{1};
};
using Types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(FastRows, Types);

TYPED_TEST(FastRows, Elements) {
  using X = TypeParam;
  const i64 n = 8 * 333;
  auto a = random<X>(n, 1, 2), b = random<X>(n, 2, 30), c = random<X>(n, 3, 2);
  auto y = Numbers<X>(n, 7), z = y;
  std::vector<double> want(n), other(n);
  exact().add(this->lanes_, want.data(), a.wide().data(), b.wide().data(), n);
  this->fast_.add(this->lanes_, y.data(), a.data(), b.data(), n);
  expect_near(y, want);
  exact().swiglu(this->lanes_, want.data(), b.wide().data(), a.wide().data(), n);
  this->fast_.swiglu(this->lanes_, y.data(), b.data(), a.data(), n);
  expect_near(y, want, 4);
  exact().swiglu_dx(this->lanes_, want.data(), other.data(), c.wide().data(), b.wide().data(),
                    a.wide().data(), n);
  this->fast_.swiglu_dx(this->lanes_, y.data(), z.data(), c.data(), b.data(), a.data(), n);
  expect_near(y, want, 4), expect_near(z, other, 4);
}

TYPED_TEST(FastRows, Rope) {
  using X = TypeParam;
  const i64 T = 5, heads = 3, hd = 32, M = 2 * T;
  auto cos = random<float>(T * hd / 2, 4, 1), sin = random<float>(T * hd / 2, 5, 1);
  for (const bool inverse : {false, true}) {
    auto x = random<X>(M * heads * hd, 6, 3);
    auto want = x.wide();
    exact().rope(this->lanes_, want.data(), cos.wide().data(), sin.wide().data(), M, T, heads, hd, inverse);
    this->fast_.rope(this->lanes_, x.data(), cos.data(), sin.data(), M, T, heads, hd, inverse);
    expect_near(x, want);
  }
}

TYPED_TEST(FastRows, Norms) {
  using X = TypeParam;
  for (const i64 D : {8, 40, 2056})  // a thread or a block's width, and beyond
    for (const i64 M : {1, 7, 130}) {
      auto x = random<X>(M * D, 7, 2), w = random<X>(D, 8, 2), dy = random<X>(M * D, 9, 2);
      auto y = Numbers<X>(M * D, 7), dx = y;
      auto rstd = Numbers<float>(M, 7), dw = random<float>(D, 10, 1);
      std::vector<double> want(M * D), want_rstd(M), want_dw = dw.wide();
      exact().rms_norm(this->lanes_, want.data(), want_rstd.data(), x.wide().data(), w.wide().data(), M, D,
                       1e-5);
      this->fast_.rms_norm(this->lanes_, y.data(), rstd.data(), x.data(), w.data(), M, D, 1e-5);
      expect_near(y, want, 2), expect_near(rstd, want_rstd, 2);
      for (i64 m = 0; m < M; ++m) want_rstd[m] = rstd.data()[m];
      exact().rms_norm_dx(this->lanes_, want.data(), dy.wide().data(), x.wide().data(), want_rstd.data(),
                          w.wide().data(), M, D);
      this->fast_.rms_norm_dx(this->lanes_, dx.data(), dy.data(), x.data(), rstd.data(), w.data(), M, D);
      expect_near(dx, want, 2);
      for (const bool add : {true, false}) {
        exact().rms_norm_dw(this->lanes_, want_dw.data(), dy.wide().data(), x.wide().data(), want_rstd.data(),
                            M, D, 1, add);
        this->fast_.rms_norm_dw(this->lanes_, dw.data(), dy.data(), x.data(), rstd.data(), M, D, 1, add);
        expect_near(dw, want_dw, 4);
      }
    }
}

TYPED_TEST(FastRows, CrossEntropy) {
  using X = TypeParam;
  const i64 M = 6, first = 100;
  for (const i64 V : {8, 2080, 4104})
    for (const i64 valid : {V, V - 3}) {
      const std::vector<i32> labels{100, -100, static_cast<i32>(99 + valid), static_cast<i32>(100 + valid),
                                    12,  102};
      auto logits = random<X>(M * V, 11, 10);
      auto max = Numbers<float>(M, 7), sum = max, target = max;
      std::vector<double> want = logits.wide(), want_max(M), want_sum(M), want_target(M);
      exact().ce_max(this->lanes_, want_max.data(), want.data(), M, V, valid);
      exact().ce_sum(this->lanes_, want_sum.data(), want_target.data(), want.data(), want_max.data(),
                     labels.data(), M, V, valid, first, 1);
      this->fast_.ce_max(this->lanes_, max.data(), logits.data(), M, V, valid);
      this->fast_.ce_sum(this->lanes_, sum.data(), target.data(), logits.data(), max.data(), labels.data(), M,
                         V, valid, first, 1);
      expect_near(max, want_max), expect_near(sum, want_sum, 4), expect_near(target, want_target);
      exact().ce_dx(this->lanes_, want.data(), want_max.data(), want_sum.data(), labels.data(), M, V, valid,
                    first, 0.01);
      this->fast_.ce_dx(this->lanes_, logits.data(), max.data(), sum.data(), labels.data(), M, V, valid,
                        first, 0.01f);
      expect_near(logits, want, 4);
    }
}

TEST(FastRows, CopiesBetweenTypesRoundOnce) {
  const Ops<float> fast = fast_table();
  Lanes lanes(1);
  auto x = random<float>(64, 12, 100);
  auto narrow = Numbers<bf16>(64, 7);
  auto back = Numbers<float>(64, 7);
  fast.copy(lanes, narrow.data(), x.data(), 64);
  fast.copy(lanes, back.data(), narrow.data(), 64);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(back.data()[i], float{bf16(x.data()[i])});
}

// The gates compare the norm with the exact sum's, bit for bit, in fast mode too.
TEST(FastRows, TheRootOfSquaresIsExact) {
  const Ops<float> fast = fast_table(), plain = plain_ops<float>();
  Lanes lanes(1);
  for (const float range : {1e-20f, 1.0f, 1e18f})
    for (int seed = 0; seed < 20; ++seed) {
      auto x = random<float>(8 * 5000, 100 + seed, range);
      for (i64 i = 0; i < x.n; i += 7) x.data()[i] *= 1e-7f;  // whose digits are the first to go
      i64 words[kSquareWords] = {}, want[kSquareWords] = {};
      for (int i = 0; i < 2; ++i) fast.add_squares(lanes, words, x.data(), x.n);
      for (int i = 0; i < 2; ++i) plain.add_squares(lanes, want, x.data(), x.n);
      EXPECT_EQ(root_of_squares(words), root_of_squares(want));
      for (const float bad : {INFINITY, -INFINITY, NAN}) {
        x.data()[77] = bad;
        i64 none[kSquareWords] = {};
        fast.add_squares(lanes, none, x.data(), x.n);
        EXPECT_TRUE(std::isnan(root_of_squares(none)));
      }
    }
}

// The optimizer has the same bits in both modes (EXACT.md).
TEST(FastRows, AdamWIsExact) {
  const Ops<float> fast = fast_table(), plain = plain_ops<float>();
  Lanes lanes(1);
  const AdamWStep<float> step{0.999f, 0.9f, 0.1f, 0.95f, 0.05f, 0.3f, 1e-8f, 1e-3f};
  auto w = random<float>(800, 14, 1), m = random<float>(800, 15, 1), g = random<float>(800, 16, 1);
  auto v = random<float>(800, 17, 1);
  for (i64 i = 0; i < 800; ++i) v.data()[i] = std::abs(v.data()[i]);
  auto w2 = w, m2 = m, v2 = v;
  fast.adamw(lanes, w.data(), m.data(), v.data(), g.data(), 800, 0.1f, step);
  plain.adamw(lanes, w2.data(), m2.data(), v2.data(), g.data(), 800, 0.1f, step);
  EXPECT_EQ(w.wide(), w2.wide());
  EXPECT_EQ(m.wide(), m2.wide());
  EXPECT_EQ(v.wide(), v2.wide());
}

TEST(FastRows, TakeWhatIsAlignedAndAMultipleOfEight) {
  Numbers<bf16> x(64, 1);
  EXPECT_TRUE(in_eights(64, x.data(), x.data() + 8));
  EXPECT_FALSE(in_eights(64, x.data(), x.data() + 1));
  EXPECT_FALSE(in_eights(60, x.data()));
  Ops<float> ops = plain_ops<float>();
  fast::fill_rows<Here>(ops);
  Lanes lanes(1);
  std::vector<float> y(5, 0), a{1, 2, 3, 4, 5};
  ops.add(lanes, y.data(), a.data(), a.data(), 5);  // by the plain kernel
  EXPECT_EQ(y, (std::vector<float>{2, 4, 6, 8, 10}));
}

}  // namespace
}  // namespace lockstep::cuda
