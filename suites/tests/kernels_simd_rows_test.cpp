// The vector kernels over rows and elements give the plain ones' bits.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>

#include "suites/tests/kernels_simd.hpp"

namespace lockstep::simd_test {
namespace {

TEST(SimdRows, RmsNormEqualsPlain) {
  Random random(1);
  for (i64 D : kSizes)
    for (float range : {1.0f, 1e-25f, 1e15f}) {  // squares: ordinary, denormal, large
      SCOPED_TRACE(fmt::format("D {} range {}", D, range));
      const i64 M = random.pick(kSizes);
      const auto x = random.values(M * D, range), w = random.values(D), dy = random.values(M * D);
      Output y(M * D), rstd(M), dx(M * D);
      plain().rms_norm(one_lane(), y.data(), rstd.data(), x.data(), w.data(), M, D, 1e-5);
      plain().rms_norm_dx(one_lane(), dx.data(), dy.data(), x.data(), rstd.data(), w.data(), M, D);
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        Output y2(M * D), rstd2(M), dx2(M * D);
        ops.rms_norm(lanes, y2.data(), rstd2.data(), x.data(), w.data(), M, D, 1e-5);
        ops.rms_norm_dx(lanes, dx2.data(), dy.data(), x.data(), rstd.data(), w.data(), M, D);
        EXPECT_TRUE(same(y, y2, D, "y"));
        EXPECT_TRUE(same(rstd, rstd2, 1, "rstd"));
        EXPECT_TRUE(same(dx, dx2, D, "dx"));
      });
    }
}

// Without eps a row of zeros has rstd = inf and y = NaN.
TEST(SimdRows, RmsNormOfZerosEqualsPlain) {
  const i64 M = 2, D = 17;
  const std::vector<float> x(M * D, 0.0f), w(D, 1.0f);
  Output y(M * D), rstd(M), dx(M * D);
  plain().rms_norm(one_lane(), y.data(), rstd.data(), x.data(), w.data(), M, D, 0.0);
  plain().rms_norm_dx(one_lane(), dx.data(), x.data(), x.data(), rstd.data(), w.data(), M, D);
  for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
    Output y2(M * D), rstd2(M), dx2(M * D);
    ops.rms_norm(lanes, y2.data(), rstd2.data(), x.data(), w.data(), M, D, 0.0);
    ops.rms_norm_dx(lanes, dx2.data(), x.data(), x.data(), rstd.data(), w.data(), M, D);
    EXPECT_TRUE(same(y, y2, D, "y"));
    EXPECT_TRUE(same(rstd, rstd2, 1, "rstd"));
    EXPECT_TRUE(same(dx, dx2, D, "dx"));
  });
}

TEST(SimdRows, RmsNormWeightGradientEqualsPlain) {
  Random random(2);
  for (i64 D : kSizes)
    for (i64 leaves : {1, 2, 8, 128}) {
      const i64 T = random.pick(kSizes);
      const bool add = D % 2;
      SCOPED_TRACE(fmt::format("T {} D {} leaves {} add {}", T, D, leaves, add));
      const auto dy = random.values(T * D), x = random.values(T * D), rstd = random.values(T);
      const auto start = random.values(D);
      Output want(start);
      plain().rms_norm_dw(one_lane(), want.data(), dy.data(), x.data(), rstd.data(), T, D, leaves, add);
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        Output dw(start);
        ops.rms_norm_dw(lanes, dw.data(), dy.data(), x.data(), rstd.data(), T, D, leaves, add);
        EXPECT_TRUE(same(want, dw, D, "dw"));
      });
    }
}

TEST(SimdRows, RopeEqualsPlain) {
  Random random(3);
  for (i64 half : kSizes)
    for (bool inverse : {false, true}) {
      const i64 T = 5, M = 3 * T, heads = 3, hd = 2 * half;
      SCOPED_TRACE(fmt::format("hd {} inverse {}", hd, inverse));
      const auto x = random.values(M * heads * hd), cos = random.values(T * half),
                 sin = random.values(T * half);
      Output want(x);
      plain().rope(one_lane(), want.data(), cos.data(), sin.data(), M, T, heads, hd, inverse);
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        Output got(x);
        ops.rope(lanes, got.data(), cos.data(), sin.data(), M, T, heads, hd, inverse);
        EXPECT_TRUE(same(want, got, heads * hd, "x"));
      });
    }
}

// Gates over the whole range of exp, infinities included.
TEST(SimdElements, SwigluEqualsPlain) {
  Random random(4);
  for (i64 n : {i64{1}, i64{15}, i64{16}, i64{17}, i64{9001}, i64{20000}}) {
    auto g = random.values(n, 120.0f);
    const auto u = random.values(n), da = random.values(n);
    for (i64 i = 0; i < n; i += 7) g[static_cast<std::size_t>(i)] *= 0.01f;
    if (n > 16) g[3] = kInfinity, g[5] = -kInfinity, g[7] = std::nanf(""), g[9] = 0.0f, g[11] = -0.0f;
    Output a(n), dg(n), du(n);
    plain().swiglu(one_lane(), a.data(), g.data(), u.data(), n);
    plain().swiglu_dx(one_lane(), dg.data(), du.data(), da.data(), g.data(), u.data(), n);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output a2(n), dg2(n), du2(n);
      ops.swiglu(lanes, a2.data(), g.data(), u.data(), n);
      ops.swiglu_dx(lanes, dg2.data(), du2.data(), da.data(), g.data(), u.data(), n);
      EXPECT_TRUE(same(a, a2, n, "a"));
      EXPECT_TRUE(same(dg, dg2, n, "dg"));
      EXPECT_TRUE(same(du, du2, n, "du"));
    });
  }
}

// Sum of exp over one column per row is exp itself: every binade from underflow to 1.
TEST(SimdElements, ExpEqualsPlain) {
  const i64 M = 100000;
  Random random(5);
  const std::vector<float> max(M, 0.0f);
  std::vector<float> x(M);
  for (i64 i = 0; i < M; ++i) x[static_cast<std::size_t>(i)] = -static_cast<float>(i) * 0.00107f;
  const std::vector<i32> labels(M, -1);
  Output want(M), target(M);
  plain().ce_sum(one_lane(), want.data(), target.data(), x.data(), max.data(), labels.data(), M, 1, 1, 0, 1);
  for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
    Output sum(M);
    ops.ce_sum(lanes, sum.data(), target.data(), x.data(), max.data(), labels.data(), M, 1, 1, 0, 1);
    EXPECT_TRUE(same(want, sum, 1, "exp"));
  });
}

TEST(SimdRows, CrossEntropyEqualsPlain) {
  Random random(6);
  for (i64 V : kSizes)
    for (i64 leaves : {1, 2, 8, 128})
      for (float range : {5.0f, 100.0f}) {
        const i64 M = 13, first = 40, valid = random.below(V + 1);
        SCOPED_TRACE(fmt::format("V {} valid {} leaves {} range {}", V, valid, leaves, range));
        const auto logits = random.values(M * V, range);
        auto labels = random_labels(random, M, V, first);
        labels[5] = static_cast<i32>(first + valid);
        Output max(M), sum(M), target(M), dx(logits);
        plain().ce_max(one_lane(), max.data(), logits.data(), M, V, valid);
        plain().ce_sum(one_lane(), sum.data(), target.data(), logits.data(), max.data(), labels.data(), M, V,
                       valid, first, leaves);
        plain().ce_dx(one_lane(), dx.data(), max.data(), sum.data(), labels.data(), M, V, valid, first, 0.3f);
        for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
          Output max2(M), sum2(M), target2(M), dx2(logits);
          ops.ce_max(lanes, max2.data(), logits.data(), M, V, valid);
          ops.ce_sum(lanes, sum2.data(), target2.data(), logits.data(), max.data(), labels.data(), M, V,
                     valid, first, leaves);
          ops.ce_dx(lanes, dx2.data(), max.data(), sum.data(), labels.data(), M, V, valid, first, 0.3f);
          EXPECT_TRUE(same(max, max2, 1, "max"));
          EXPECT_TRUE(same(sum, sum2, 1, "sum"));
          EXPECT_TRUE(same(target, target2, 1, "target"));
          EXPECT_TRUE(same(dx, dx2, V, "dlogits"));
        });
      }
}

// A NaN is no row's maximum: it shows in the sum.
TEST(SimdRows, MaximumPassesOverNaNs) {
  for (i64 V : {1, 7, 16, 40}) {
    std::vector<float> logits(static_cast<std::size_t>(V * V));  // row m has its NaN in column m
    for (i64 i = 0; i < V * V; ++i)
      logits[static_cast<std::size_t>(i)] =
          i / V == i % V ? std::nanf("") : -1.0f - static_cast<float>(i % V);
    Output max(V);
    plain().ce_max(one_lane(), max.data(), logits.data(), V, V, V);
    EXPECT_EQ(max.data()[0], V > 1 ? -2.0f : -std::numeric_limits<float>::infinity());
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output other(V);
      ops.ce_max(lanes, other.data(), logits.data(), V, V, V);
      EXPECT_TRUE(same(max, other, 1, "max"));
    });
  }
}

TEST(SimdRows, LossEqualsPlain) {
  Random random(11);
  for (int round = 0; round < 20; ++round) {
    const i64 B = 2, T = random.pick(kSizes);
    std::vector<i32> labels(static_cast<std::size_t>(B * T));
    for (i32& label : labels) label = static_cast<i32>(random.below(14)) - (round % 2);  // negative: ignored
    auto sum = random.values(B * T);
    for (float& x : sum) x = 1.0f + x * x;
    const auto max = random.values(B * T), target = random.values(B * T);
    const auto run = [&](const Ops<float>& ops, Lanes& lanes) {
      std::vector<double> loss(B);
      ops.ce_loss(lanes, loss.data(), sum.data(), max.data(), target.data(), labels.data(), B, T);
      return loss;
    };
    const auto want = run(plain(), one_lane());
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) { EXPECT_EQ(run(ops, lanes), want); });
  }
}

TEST(SimdElements, CopyAndZeroEqualPlain) {
  Random random(12);
  for (const i64 n : {i64{1}, i64{7}, i64{4096}, i64{5001}}) {
    const auto x = random.any_values(n), before = random.values(n);
    const Output want(x), nothing(std::vector<float>(x.size(), 0.0f));
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output copied(n), cleared(before);
      ops.copy(lanes, copied.data(), x.data(), n);
      ops.zero(lanes, cleared.data(), n);
      EXPECT_TRUE(same(want, copied, n, "copy"));
      EXPECT_TRUE(same(nothing, cleared, n, "zero"));
    });
  }
}

// Rows of whole 16 bytes and not, at addresses that are multiples of 16 and not.
TEST(SimdElements, SwapAxesEqualsPlain) {
  Random random(13);
  for (const i64 W : {i64{1}, i64{2}, i64{4}, i64{7}, i64{8}, i64{12}, i64{64}})
    for (const auto& [B, M, N] : {std::array<i64, 3>{1, 1, 3}, {1, 6, 1}, {2, 3, 4}, {3, 50, 8}}) {
      const i64 n = B * M * N * W;
      for (const auto& [to, from] : {std::pair{0, 0}, {1, 0}, {0, 1}, {2, 2}}) {
        const auto x = random.any_values(n + from);
        Output want(n + to);
        plain().swap_axes(one_lane(), want.data() + to, x.data() + from, B, M, N, W);
        for_every_set([&, B = B, M = M, N = N, to = to, from = from](const Ops<float>& ops, Lanes& lanes) {
          Output y(n + to);
          ops.swap_axes(lanes, y.data() + to, x.data() + from, B, M, N, W);
          EXPECT_TRUE(same(want, y, W, "y")) << B << " " << M << " " << N << " " << W;
        });
      }
    }
}

TEST(SimdElements, AddEqualsPlain) {
  Random random(7);
  for (i64 n : {i64{1}, i64{15}, i64{17}, i64{5000}, i64{12289}}) {
    const auto a = random.any_values(n), b = random.any_values(n);
    Output sum(n);
    plain().add(one_lane(), sum.data(), a.data(), b.data(), n);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output sum2(a);
      ops.add(lanes, sum2.data(), sum2.data(), b.data(), n);  // in place
      EXPECT_TRUE(same(sum, sum2, n, "sum"));
    });
  }
}

TEST(SimdElements, AdamWEqualsPlain) {
  Random random(8);
  const AdamWStep<float> step{0.9999f, 0.9f, 0.1f, 0.95f, 0.05f, 0.222f, 1e-8f, 3e-3f};
  for (i64 n : {i64{1}, i64{15}, i64{17}, i64{5000}, i64{12289}}) {
    const auto w = random.values(n), m = random.values(n);
    for (const auto& g : {random.values(n), random.any_values(n, 30)}) {
      auto v = random.values(n);
      for (float& x : v) x = x * x;
      Output w1(w), m1(m), v1(v);
      plain().adamw(one_lane(), w1.data(), m1.data(), v1.data(), g.data(), n, 0.1f, step);
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        Output w2(w), m2(m), v2(v);
        ops.adamw(lanes, w2.data(), m2.data(), v2.data(), g.data(), n, 0.1f, step);
        EXPECT_TRUE(same(w1, w2, n, "w"));
        EXPECT_TRUE(same(m1, m2, n, "m"));
        EXPECT_TRUE(same(v1, v2, n, "v"));
      });
    }
  }
}

// The same integer: every limb a digit once carries have moved up.
std::vector<i64> carried(std::vector<i64> words) {
  for (std::size_t i = 0; i + 1 < kSquareLimbs; ++i) {
    words[i + 1] += words[i] >> 32;
    words[i] &= 0xffffffff;
  }
  return words;
}

TEST(SimdElements, SumOfSquaresIsTheSameInteger) {
  Random random(9);
  for (i64 n : {i64{1}, i64{17}, i64{5000}, i64{100001}})
    for (int kind = 0; kind < 8; ++kind) {
      auto x = kind == 0 ? random.values(n) : random.any_values(n);
      if (kind == 2) x.assign(x.size(), std::numeric_limits<float>::max());
      if (kind == 4) x = random.values(n, 0x1p-120f);
      if (kind == 5) x = random.values(n, 0x1p-130f);  // denormal
      if (kind == 7)  // sums as large as a block's can be, with all 24 bits in use
        for (float& a : x) a = 1.0f - 0x1p-24f * static_cast<float>(random.below(1 << 22));
      // From the largest down to what three slices of 40 bits just hold, and just do not.
      if (kind == 6)
        for (float& a : x)
          a = std::ldexp(a < 0 ? -1.0f : random.value(1.0f), -static_cast<int>(random.below(40)));
      if (kind == 3) x[0] = kInfinity, x.back() = std::nanf("");  // counted
      std::vector<i64> want(kSquareWords, 5);
      plain().add_squares(one_lane(), want.data(), x.data(), n);
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        std::vector<i64> words(kSquareWords, 5);
        ops.add_squares(lanes, words.data(), x.data(), n);
        EXPECT_EQ(carried(want), carried(words)) << "n " << n << " kind " << kind;
      });
    }
}

}  // namespace
}  // namespace lockstep::simd_test
