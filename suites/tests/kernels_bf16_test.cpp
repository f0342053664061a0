// bfloat16: its conversions against closed forms, and every kernel on operands of that type against the plain
// float32 kernel on the same numbers, rounded once where the result is stored as bf16.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cuda/table.hpp"
#include "suites/tests/kernels_check.hpp"
#include "suites/tests/kernels_cuda_here.hpp"

namespace lockstep::kernel_test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// 1 sign, 8 exponent and 7 fraction bits.
TEST(Bf16, WidensExactly) {
  const auto wide = [](std::uint16_t bits) { return float{std::bit_cast<bf16>(bits)}; };
  EXPECT_EQ(wide(0x3f80), 1.0f);
  EXPECT_EQ(wide(0xc0a0), -5.0f);
  EXPECT_EQ(wide(0x4049), 3.140625f);
  EXPECT_EQ(wide(0x3eab), 0.333984375f);
  EXPECT_EQ(wide(0x7f7f), 0x1.fep127f);  // the largest
  EXPECT_EQ(wide(0x0080), 0x1p-126f);    // the smallest that is normal
  EXPECT_EQ(wide(0x0001), 0x1p-133f);    // and of all
  EXPECT_EQ(wide(0xff80), -kInf);
  EXPECT_TRUE(std::signbit(wide(0x8000)));
  EXPECT_TRUE(std::isnan(wide(0x7fc0)));
}

// Numbers as ml_dtypes 0.5 gives them, numpy.float32(x).astype(ml_dtypes.bfloat16); NaNs as PyTorch says in
// c10/util/BFloat16.h, round_to_nearest_even.
TEST(Bf16, RoundsToNearestTiesToEven) {
  const auto bits = [](float x) { return bf16(x).bits; };
  EXPECT_EQ(bits(0x1.00p0f), 0x3f80);
  EXPECT_EQ(bits(0x1.01p0f), 0x3f80);      // halfway, down to even
  EXPECT_EQ(bits(0x1.03p0f), 0x3f82);      // halfway, up to even
  EXPECT_EQ(bits(0x1.010002p0f), 0x3f81);  // one unit above halfway
  EXPECT_EQ(bits(0x1.02fffep0f), 0x3f81);  // one below
  EXPECT_EQ(bits(-0x1.03p0f), 0xbf82);
  EXPECT_EQ(bits(0.1f), 0x3dcd);
  EXPECT_EQ(bits(3.14159265f), 0x4049);
  EXPECT_EQ(bits(0.0f), 0x0000);
  EXPECT_EQ(bits(-0.0f), 0x8000);
  EXPECT_EQ(bits(0x1.fefffep127f), 0x7f7f);  // the last that is finite
  EXPECT_EQ(bits(0x1.ffp127f), 0x7f80);      // halfway to 2^128: infinity, as even
  EXPECT_EQ(bits(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(bits(kInf), 0x7f80);
  EXPECT_EQ(bits(-kInf), 0xff80);
  EXPECT_EQ(bits(0x1p-133f), 0x0001);
  EXPECT_EQ(bits(0x1p-134f), 0x0000);  // halfway to the smallest
  EXPECT_EQ(bits(0x1.0002p-134f), 0x0001);
  EXPECT_EQ(bits(0x1.fffffcp-127f), 0x0080);  // the largest denormal float32 becomes normal
  EXPECT_EQ(bits(std::numeric_limits<float>::quiet_NaN()), 0x7fc0);
  EXPECT_EQ(bits(-std::numeric_limits<float>::quiet_NaN()), 0x7fc0);
  EXPECT_EQ(bits(std::bit_cast<float>(0x7f800001u)), 0x7fc0);  // bits that rounding would carry away
}

// Every bf16 is its own rounding; a float between two neighbours becomes the nearer one.
TEST(Bf16, RoundsEveryNumberToItself) {
  for (std::uint32_t b = 0; b < 0x10000; ++b) {
    const bf16 x = std::bit_cast<bf16>(static_cast<std::uint16_t>(b));
    if (std::isnan(float{x})) continue;
    ASSERT_EQ(bf16(float{x}).bits, b);
    if ((b & 0x7fff) >= 0x7f7f) continue;
    const double next = float{std::bit_cast<bf16>(static_cast<std::uint16_t>(b + 1))}, here = float{x};
    ASSERT_EQ(bf16(static_cast<float>(here + 0.49 * (next - here))).bits, b);
    ASSERT_EQ(bf16(static_cast<float>(here + 0.51 * (next - here))).bits, b + 1);
  }
}

// ======== Kernels ========

// The same numbers, which bf16 has, stored as X.
template <class X>
std::vector<X> given(i64 n, std::uint64_t seed, double size = 1) {
  std::vector<X> v;
  for (const float x : random_vector<float>(n, seed, size)) v.push_back(static_cast<X>(float{bf16(x)}));
  return v;
}
template <class X>
std::vector<X> room(i64 n) {
  return std::vector<X>(static_cast<std::size_t>(n), X(7.0f));
}

// Results of a call: those that are stored as bf16 where X is, and those that stay float32.
struct Results {
  std::vector<std::vector<float>> all;
  template <class Y>
  void add(const std::vector<Y>& y) {
    all.emplace_back(y.begin(), y.end());
  }
};

// Of plain kernels, of the GPU's in loops, and of each set that has kernels of its own for bf16: a GPU's,
// where this file is linked with it.
struct Table {
  std::string name;
  Ops<float> ops;
};
std::vector<Table> tables() {
  std::vector<Table> all{{"plain", plain_ops<float>()}, {"cuda_bodies", plain_ops<float>()}};
  cuda::fill<simd_test::Here>(all.back().ops);
  for (const KernelSet* set : kernel_sets()) {
    if (set->speed < 0 || !set->runs_here()) continue;
    Table table{set->name, plain_ops<float>()};
    set->apply(table.ops);
    if (table.ops.matmul.mixed != all.front().ops.matmul.mixed) all.push_back(table);
  }
  return all;
}
class Bf16Kernels : public testing::TestWithParam<Table> {
 protected:
  const Ops<float>& ops() const { return GetParam().ops; }
};
INSTANTIATE_TEST_SUITE_P(Of, Bf16Kernels, testing::ValuesIn(tables()),
                         [](const auto& of) { return of.param.name; });

// call<X, P>(lanes): with all operands float32; with bf16; and with partial sums P as float32 beside those.
// `rounded` results are stored as bf16 where X is.
template <class Call>
void expect_rounded_once(const Call& call, std::vector<bool> rounded, std::vector<bool> partial = {}) {
  partial.resize(rounded.size());
  Lanes one(1), three(3);
  const Results wide = call.template operator()<float, float>(one);
  const auto compare = [&](const Results& got, bool partial_too) {
    ASSERT_EQ(got.all.size(), wide.all.size());
    for (std::size_t r = 0; r < wide.all.size(); ++r) {
      std::vector<float> want = wide.all[r];
      if (rounded[r] || (partial[r] && partial_too))
        for (float& x : want) x = bf16(x);
      expect_same_bits(got.all[r], want, std::to_string(r).c_str());
    }
  };
  for (Lanes* lanes : {&one, &three}) {
    compare(call.template operator()<bf16, bf16>(*lanes), true);
    compare(call.template operator()<bf16, float>(*lanes), false);
  }
}

TEST_P(Bf16Kernels, Matmuls) {
  const i64 M = 5, N = 19, K = 700, leaves = 4;
  expect_rounded_once(
      [&]<class X, class P>(Lanes& lanes) {
        auto y = room<P>(M * N);
        ops().matmul(lanes, y.data(), given<X>(M * K, 1).data(), given<X>(N * K, 2).data(), M, N, K, leaves);
        Results r;
        return r.add(y), r;
      },
      {false}, {true});
  for (const i64 pieces : {1, 3})
    expect_rounded_once(
        [&]<class X, class P>(Lanes& lanes) {
          const auto dy = given<X>(M * (N + 3), 3), w = given<X>(N * K, 4);
          auto dx = room<P>(M * K);
          const X *dy1 = pieces > 1 ? dy.data() + 1 : nullptr, *w1 = pieces > 1 ? w.data() : nullptr;
          const i64 n1 = pieces > 1 ? N : 0;
          ops().matmul_dx(lanes, dx.data(), dy.data(), N + 3, w.data(), N, dy1, n1 ? N + 3 : 0, w1, n1, dy1,
                          n1 ? N + 3 : 0, w1, n1, M, K, leaves);
          Results r;
          return r.add(dx), r;
        },
        {false}, {true});
  expect_rounded_once(
      [&]<class X, class>(Lanes& lanes) {
        auto dw = given<float>(N * K, 5);
        const auto dy = given<X>(M * N, 6), x = given<X>(M * K, 7);
        ops().matmul_dw(lanes, dw.data(), dy.data(), x.data(), M, N, K, false);
        ops().matmul_dw(lanes, dw.data(), dy.data(), x.data(), M, N, K, true);
        Results r;
        return r.add(dw), r;
      },
      {false});
}

TEST_P(Bf16Kernels, Embedding) {
  const i64 T = 9, D = 33, rows = 6;
  const std::vector<i32> ids{2, 8, 3, 2, 5, 9, 2, 3, 0};
  expect_rounded_once(
      [&]<class X, class>(Lanes& lanes) {
        auto y = room<X>(T * D);
        auto dtable = room<float>(rows * D);
        ops().embed(lanes, y.data(), given<X>(rows * D, 1).data(), ids.data(), T, D, 2, rows);
        ops().embed_dw(lanes, dtable.data(), given<X>(T * D, 2).data(), ids.data(), T, D, 2, rows, false);
        ops().embed_dw(lanes, dtable.data(), given<X>(T * D, 3).data(), ids.data(), T, D, 2, rows, true);
        Results r;
        return r.add(y), r.add(dtable), r;
      },
      {true, false});
}

TEST_P(Bf16Kernels, Norms) {
  const i64 M = 11, D = 50;
  expect_rounded_once(
      [&]<class X, class P>(Lanes& lanes) {
        auto y = room<X>(M * D), dx = room<X>(M * D);
        auto rstd = room<float>(M), dw = given<float>(D, 4);
        const auto x = given<X>(M * D, 1), w = given<X>(D, 2);
        const auto dy = given<P>(M * D, 3);
        ops().rms_norm(lanes, y.data(), rstd.data(), x.data(), w.data(), M, D, 1e-5);
        ops().rms_norm_dx(lanes, dx.data(), dy.data(), x.data(), rstd.data(), w.data(), M, D);
        ops().rms_norm_dw(lanes, dw.data(), dy.data(), x.data(), rstd.data(), M, D, 4, true);
        Results r;
        return r.add(y), r.add(rstd), r.add(dx), r.add(dw), r;
      },
      {true, false, true, false});
}

TEST_P(Bf16Kernels, Rope) {
  const i64 T = 7, heads = 3, hd = 10;
  for (const bool inverse : {false, true})
    expect_rounded_once(
        [&]<class X, class>(Lanes& lanes) {
          auto x = given<X>(2 * T * heads * hd, 1);
          const auto cos = random_vector<float>(T * hd / 2, 2), sin = random_vector<float>(T * hd / 2, 3);
          ops().rope(lanes, x.data(), cos.data(), sin.data(), 2 * T, T, heads, hd, inverse);
          Results r;
          return r.add(x), r;
        },
        {true});
}

// o and lse are taken as they are: each kernel rounds by itself.
TEST_P(Bf16Kernels, Attention) {
  const i64 B = 2, T = 70, H = 6, K = 2, hd = 12;
  expect_rounded_once(
      [&]<class X, class>(Lanes& lanes) {
        auto o = room<X>(B * T * H * hd);
        auto lse = room<float>(B * H * T);
        ops().attention(lanes, o.data(), lse.data(), given<X>(B * T * H * hd, 1, 3).data(),
                        given<X>(B * T * K * hd, 2, 3).data(), given<X>(B * T * K * hd, 3).data(), B, T, H, K,
                        hd);
        Results r;
        return r.add(o), r.add(lse), r;
      },
      {true, false});
  expect_rounded_once(
      [&]<class X, class P>(Lanes& lanes) {
        auto dq = room<X>(B * T * H * hd);
        auto dk = room<P>(B * T * K * hd), dv = room<P>(B * T * K * hd);
        ops().attention_dx(lanes, dq.data(), dk.data(), dv.data(), given<X>(B * T * H * hd, 4).data(),
                           given<X>(B * T * H * hd, 1, 3).data(), given<X>(B * T * K * hd, 2, 3).data(),
                           given<X>(B * T * K * hd, 3).data(), given<X>(B * T * H * hd, 5).data(),
                           random_vector<float>(B * H * T, 6, 2).data(), B, T, H, K, hd);
        Results r;
        return r.add(dq), r.add(dk), r.add(dv), r;
      },
      {true, false, false}, {false, true, true});
}

TEST_P(Bf16Kernels, SwiGlu) {
  const i64 n = 5000;
  expect_rounded_once(
      [&]<class X, class>(Lanes& lanes) {
        auto a = room<X>(n), dg = room<X>(n), du = room<X>(n);
        const auto g = given<X>(n, 1, 20), u = given<X>(n, 2, 3), da = given<X>(n, 3);
        ops().swiglu(lanes, a.data(), g.data(), u.data(), n);
        ops().swiglu_dx(lanes, dg.data(), du.data(), da.data(), g.data(), u.data(), n);
        Results r;
        return r.add(a), r.add(dg), r.add(du), r;
      },
      {true, true, true});
}

TEST_P(Bf16Kernels, CrossEntropy) {
  const i64 M = 5, V = 40, valid = 37, first = 100, leaves = 8;
  const std::vector<i32> labels{100, -100, 136, 12, 120};
  expect_rounded_once(
      [&]<class X, class>(Lanes& lanes) {
        auto logits = given<X>(M * V, 1, 10);
        auto max = room<float>(M), sum = room<float>(M), target = room<float>(M);
        ops().ce_max(lanes, max.data(), logits.data(), M, V, valid);
        ops().ce_sum(lanes, sum.data(), target.data(), logits.data(), max.data(), labels.data(), M, V, valid,
                     first, leaves);
        ops().ce_dx(lanes, logits.data(), max.data(), sum.data(), labels.data(), M, V, valid, first, 0.01f);
        Results r;
        return r.add(max), r.add(sum), r.add(target), r.add(logits), r;
      },
      {false, false, false, true});
}

TEST_P(Bf16Kernels, Elements) {
  const i64 n = 9000;
  expect_rounded_once(
      [&]<class X, class P>(Lanes& lanes) {
        auto y = given<X>(n, 1);
        auto narrow = room<X>(n);
        auto wide = room<float>(n);
        ops().add(lanes, y.data(), y.data(), given<P>(n, 2).data(), n);
        ops().copy(lanes, narrow.data(), random_vector<float>(n, 3).data(), n);
        ops().copy(lanes, wide.data(), given<X>(n, 4).data(), n);
        Results r;
        return r.add(y), r.add(narrow), r.add(wide), r;
      },
      {true, true, false});
}

// Two bytes a number, at addresses that are multiples of 16 and not: the bits, at their new places, and
// nothing before and behind them.
TEST_P(Bf16Kernels, SwapAxesMovesBits) {
  Lanes one(1), three(3);
  std::vector<Four> shapes = kSwaps;
  shapes.insert(shapes.end(), {{2, 3, 2, 24}, {1, 5, 4, 12}});
  for (const auto& [B, M, N, W] : shapes)
    for (const auto& [to, from] : {std::pair{8, 8}, {8, 9}, {9, 8}, {12, 12}}) {
      const auto x = given<bf16>(from + B * M * N * W, 1);
      std::vector<bf16> want = room<bf16>(to + B * M * N * W + 8);
      for (i64 b = 0; b < B; ++b)
        for (i64 m = 0; m < M; ++m)
          for (i64 n = 0; n < N; ++n)
            for (i64 w = 0; w < W; ++w)
              want[to + ((b * N + n) * M + m) * W + w] = x[from + ((b * M + m) * N + n) * W + w];
      for (Lanes* lanes : {&one, &three}) {
        auto y = room<bf16>(static_cast<i64>(want.size()));
        ops().swap_axes(*lanes, y.data() + to, x.data() + from, B, M, N, W);
        expect_same_bits(std::vector<float>(y.begin(), y.end()), std::vector<float>(want.begin(), want.end()),
                         "y");
      }
    }
}

// Sums in float32, rounded once; and those of float32 by the same kernels.
TEST_P(Bf16Kernels, RowsAreRepeatedAndSummed) {
  Lanes lanes(2);
  for (const auto& [N, R, W] : kRepeats) {
    const auto x = given<bf16>(N * W, 1), many = given<bf16>(N * R * W, 2);
    const auto wide = given<float>(N * R * W, 3);
    std::vector<bf16> repeated(many.size()), sums(x.size());
    std::vector<float> wide_sums(x.size());
    for (i64 n = 0; n < N; ++n)
      for (i64 w = 0; w < W; ++w) {
        std::vector<float> of, of_wide;
        for (i64 r = 0; r < R; ++r) {
          const i64 at = (n * R + r) * W + w;
          repeated[at] = x[n * W + w];
          of.push_back(many[at]), of_wide.push_back(wide[at]);
        }
        sums[n * W + w] = bf16(in_halves(of)), wide_sums[n * W + w] = in_halves(of_wide);
      }
    auto y = room<bf16>(N * R * W), s = room<bf16>(N * W);
    auto f = room<float>(N * W);
    ops().repeat_rows(lanes, y.data(), x.data(), N, R, W);
    ops().sum_rows(lanes, s.data(), many.data(), N, R, W);
    ops().sum_rows(lanes, f.data(), wide.data(), N, R, W);
    const auto widened = [](const std::vector<bf16>& a) { return std::vector<float>(a.begin(), a.end()); };
    expect_same_bits(widened(y), widened(repeated), "repeated");
    expect_same_bits(widened(s), widened(sums), "sums");
    expect_same_bits(f, wide_sums, "sums of float32");
  }
}

TEST_P(Bf16Kernels, RefuseOtherTypes) {
  Lanes lanes;
  auto x = room<bf16>(4), y = room<bf16>(4);
  EXPECT_THROW(ops().matmul(lanes, y.data(), x.data(), room<float>(4).data(), 1, 1, 4, 1), std::logic_error);
  EXPECT_THROW(ops().matmul_dw(lanes, y.data(), x.data(), x.data(), 1, 2, 2, false), std::logic_error);
}

}  // namespace
}  // namespace lockstep::kernel_test
