// The vector kernels on operands stored as bf16 give the bits of the plain float32 kernels on the same
// numbers, rounded once where the result is bf16, at the sizes where vectors and tiles have their edges.
#include <fmt/format.h>

#include <limits>

#include "suites/tests/kernels_simd.hpp"

namespace lockstep::simd_test {
namespace {

using Halves = OutputOf<bf16>;

// Numbers that bf16 has.
std::vector<float> given(Random& random, i64 n, float range = 1.0f) {
  std::vector<float> x = random.values(n, range);
  for (float& a : x) a = bf16(a);
  return x;
}
std::vector<bf16> stored(const std::vector<float>& x) {
  std::vector<bf16> y;
  for (const float a : x) y.push_back(bf16(a));
  return y;
}
Halves rounded(const Output& x) { return Halves(stored({x.data(), x.data() + x.size()})); }

i64 long_sum(Random& random, int round) {  // every 16th is too long for one packed chunk
  return round % 16 == 0 ? 1000 + random.below(500) : random.pick(kSizes);
}

TEST(SimdBf16, Matmul) {
  Random random(1);
  for (int round = 0; round < 100; ++round) {
    const i64 M = random.pick(kSizes), N = random.pick(kSizes), leaves = random.pick(kLeaves);
    const i64 K = long_sum(random, round);
    SCOPED_TRACE(fmt::format("M {} N {} K {} leaves {}", M, N, K, leaves));
    const auto x = given(random, M * K), w = given(random, N * K);
    const auto xh = stored(x), wh = stored(w);
    Output want(M * N);
    plain().matmul(one_lane(), want.data(), x.data(), w.data(), M, N, K, leaves);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output partial(M * N);
      Halves y(M * N);
      ops.matmul(lanes, partial.data(), xh.data(), wh.data(), M, N, K, leaves);
      ops.matmul(lanes, y.data(), xh.data(), wh.data(), M, N, K, leaves);
      EXPECT_TRUE(same(want, partial, N, "partial"));
      EXPECT_TRUE(same(rounded(want), y, N, "y"));
    });
  }
}

TEST(SimdBf16, MatmulInputGradient) {
  Random random(2);
  for (int round = 0; round < 100; ++round) {
    const i64 M = random.pick(kSizes), K = random.pick(kSizes), leaves = random.pick(kLeaves);
    const int pieces = round % 3 + 1;
    i64 n[3], ld[3];
    std::vector<float> dy[3], w[3];
    std::vector<bf16> dyh[3], wh[3];
    for (int p = 0; p < 3; ++p) {
      n[p] = p < pieces ? long_sum(random, round) : 0;
      ld[p] = n[p] + (n[p] ? random.below(5) : 0);
      dy[p] = given(random, M * ld[p]), w[p] = given(random, n[p] * K);
      dyh[p] = stored(dy[p]), wh[p] = stored(w[p]);
    }
    const auto at = [&](const auto& of, int p) { return n[p] ? of[p].data() : nullptr; };
    const auto run = [&](const Ops<float>& ops, Lanes& lanes, auto* dx, const auto& a, const auto& b) {
      ops.matmul_dx(lanes, dx, at(a, 0), ld[0], at(b, 0), n[0], at(a, 1), ld[1], at(b, 1), n[1], at(a, 2),
                    ld[2], at(b, 2), n[2], M, K, leaves);
    };
    SCOPED_TRACE(fmt::format("M {} N {} {} {} K {} leaves {}", M, n[0], n[1], n[2], K, leaves));
    Output want(M * K);
    run(plain(), one_lane(), want.data(), dy, w);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output partial(M * K);
      Halves dx(M * K);
      run(ops, lanes, partial.data(), dyh, wh);
      run(ops, lanes, dx.data(), dyh, wh);
      EXPECT_TRUE(same(want, partial, K, "partial"));
      EXPECT_TRUE(same(rounded(want), dx, K, "dx"));
    });
  }
}

// The last: of so many tokens no tile of dyT fits where it is packed.
TEST(SimdBf16, MatmulWeightGradient) {
  Random random(3);
  for (int round = 0; round < 101; ++round) {
    const bool longest = round == 100, add = round % 2;
    const i64 N = longest ? 19 : random.pick(kSizes), K = longest ? 5 : random.pick(kSizes);
    const i64 T = longest ? 70000 : long_sum(random, round);
    SCOPED_TRACE(fmt::format("T {} N {} K {} add {}", T, N, K, add));
    const auto dy = given(random, T * N), x = given(random, T * K), start = random.values(N * K);
    const auto dyh = stored(dy), xh = stored(x);
    Output want(start);
    plain().matmul_dw(one_lane(), want.data(), dy.data(), x.data(), T, N, K, add);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output dw(start);
      ops.matmul_dw(lanes, dw.data(), dyh.data(), xh.data(), T, N, K, add);
      EXPECT_TRUE(same(want, dw, K, "dw"));
    });
  }
}

TEST(SimdBf16, LargeMatmuls) {
  struct Shape {
    i64 M, N, K, leaves;
  };
  Random random(4);
  for (const Shape& s : {Shape{1100, 50, 70, 8}, Shape{20, 300, 3500, 8}, Shape{1030, 17, 900, 2}}) {
    const auto x = given(random, s.M * s.K), w = given(random, s.N * s.K);
    const auto xh = stored(x), wh = stored(w);
    Output want(s.M * s.N);
    plain().matmul(one_lane(), want.data(), x.data(), w.data(), s.M, s.N, s.K, s.leaves);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Halves y(s.M * s.N);
      ops.matmul(lanes, y.data(), xh.data(), wh.data(), s.M, s.N, s.K, s.leaves);
      EXPECT_TRUE(same(rounded(want), y, s.N, "y")) << fmt::format("M {} N {} K {}", s.M, s.N, s.K);
    });
  }
}

struct Heads {
  i64 B, T, H, K, hd;
};

// `reference` are the float32 kernels that give the bits.
void expect_attention(const Heads& s, float range, unsigned seed, const Ops<float>& reference,
                      const Ops<float>& ops, Lanes& lanes) {
  SCOPED_TRACE(fmt::format("B {} T {} H {} K {} hd {}", s.B, s.T, s.H, s.K, s.hd));
  const i64 nq = s.B * s.T * s.H * s.hd, nk = s.B * s.T * s.K * s.hd, nl = s.B * s.H * s.T;
  Random random(seed);
  const auto q = given(random, nq, range), k = given(random, nk, range), v = given(random, nk);
  const auto dO = given(random, nq), o = given(random, nq);
  const auto qh = stored(q), kh = stored(k), vh = stored(v), dOh = stored(dO), oh = stored(o);
  Output want_o(nq), lse(nl), want_dq(nq), want_dk(nk), want_dv(nk);
  reference.attention(lanes, want_o.data(), lse.data(), q.data(), k.data(), v.data(), s.B, s.T, s.H, s.K,
                      s.hd);
  reference.attention_dx(lanes, want_dq.data(), want_dk.data(), want_dv.data(), dO.data(), q.data(), k.data(),
                         v.data(), o.data(), lse.data(), s.B, s.T, s.H, s.K, s.hd);
  Output got_lse(nl);
  Halves got_o(nq);
  ops.attention(lanes, got_o.data(), got_lse.data(), qh.data(), kh.data(), vh.data(), s.B, s.T, s.H, s.K,
                s.hd);
  EXPECT_TRUE(same(rounded(want_o), got_o, s.H * s.hd, "o"));
  EXPECT_TRUE(same(lse, got_lse, s.T, "lse"));
  const auto gradients = [&](auto dk, auto dv, const auto& want_k, const auto& want_v) {
    Halves dq(nq);
    ops.attention_dx(lanes, dq.data(), dk.data(), dv.data(), dOh.data(), qh.data(), kh.data(), vh.data(),
                     oh.data(), lse.data(), s.B, s.T, s.H, s.K, s.hd);
    EXPECT_TRUE(same(rounded(want_dq), dq, s.H * s.hd, "dq"));
    EXPECT_TRUE(same(want_k, dk, s.K * s.hd, "dk"));
    EXPECT_TRUE(same(want_v, dv, s.K * s.hd, "dv"));
  };
  gradients(Halves(nk), Halves(nk), rounded(want_dk), rounded(want_dv));
  gradients(Output(nk), Output(nk), want_dk, want_dv);
}
void expect_attention(const Heads& s, float range, unsigned seed) {
  for_every_set(
      [&](const Ops<float>& ops, Lanes& lanes) { expect_attention(s, range, seed, plain(), ops, lanes); });
}

TEST(SimdBf16, AttentionOverLengthsHeadsAndGroups) {
  unsigned seed = 10;
  for (i64 T : kSizes) expect_attention({2, T, 2, 1, 8}, 3.0f, ++seed);
  for (i64 hd : kSizes) expect_attention({1, 37, 2, 2, hd}, 2.0f, ++seed);
  for (i64 group : {2, 3, 4, 7}) expect_attention({1, 33, 2 * group, 2, 16}, 2.0f, ++seed);
  expect_attention({1, 400, 2, 1, 24}, 2.0f, ++seed);
}

// So many queries and heads that dq's chains do not fit in scratch. Against the set's own float32 kernels,
// which other tests hold to the plain ones: those would take a while.
void expect_attention_of_each_set(const Heads& s) {
  for (const KernelSet* set : kernel_sets()) {
    if (!set->runs_here() || set->speed < 0) continue;
    SCOPED_TRACE(set->name);
    const Ops<float> ops = cpu_ops(set->name);
    expect_attention(s, 1.0f, 77, ops, ops, one_lane());
  }
}
TEST(SimdBf16, AttentionWhoseGradientOfQueriesIsMadeAlone) {
  expect_attention_of_each_set({1, 110, 150, 1, 64});
}
TEST(SimdBf16, LongAttentionWhoseGradientOfQueriesIsMadeAlone) {
  for (const Heads& s : {Heads{1, 410, 32, 1, 80}, Heads{2, 150, 56, 1, 120}})
    expect_attention_of_each_set(s);
}

// What does not fit in scratch at all goes to the slower kernel.
TEST(SimdBf16, AttentionOfHugeHeads) { expect_attention({1, 5, 2, 1, 2100}, 0.1f, 501); }

TEST(SimdBf16, Norms) {
  Random random(5);
  for (i64 D : kSizes)
    for (float range : {1.0f, 1e-25f, 1e15f}) {
      SCOPED_TRACE(fmt::format("D {} range {}", D, range));
      const i64 M = random.pick(kSizes);
      const auto x = given(random, M * D, range), w = given(random, D), dy = given(random, M * D);
      const auto xh = stored(x), wh = stored(w), dyh = stored(dy);
      const auto start = random.values(D);
      Output y(M * D), rstd(M), dx(M * D), dw(start);
      plain().rms_norm(one_lane(), y.data(), rstd.data(), x.data(), w.data(), M, D, 1e-5);
      plain().rms_norm_dx(one_lane(), dx.data(), dy.data(), x.data(), rstd.data(), w.data(), M, D);
      plain().rms_norm_dw(one_lane(), dw.data(), dy.data(), x.data(), rstd.data(), M, D, 4, true);
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        Halves y2(M * D);
        Output rstd2(M);
        ops.rms_norm(lanes, y2.data(), rstd2.data(), xh.data(), wh.data(), M, D, 1e-5);
        EXPECT_TRUE(same(rounded(y), y2, D, "y"));
        EXPECT_TRUE(same(rstd, rstd2, 1, "rstd"));
        const auto gradients = [&](const auto& of) {
          Halves dx2(M * D);
          Output dw2(start);
          ops.rms_norm_dx(lanes, dx2.data(), of.data(), xh.data(), rstd.data(), wh.data(), M, D);
          ops.rms_norm_dw(lanes, dw2.data(), of.data(), xh.data(), rstd.data(), M, D, 4, true);
          EXPECT_TRUE(same(rounded(dx), dx2, D, "dx"));
          EXPECT_TRUE(same(dw, dw2, D, "dw"));
        };
        gradients(dyh), gradients(dy);
      });
    }
}

TEST(SimdBf16, Rope) {
  Random random(6);
  for (i64 half : kSizes) {
    const i64 T = 5, M = 3 * T, heads = 3, hd = 2 * half;
    SCOPED_TRACE(fmt::format("hd {}", hd));
    const auto x = given(random, M * heads * hd), cos = random.values(T * half),
               sin = random.values(T * half);
    Output want(x);
    plain().rope(one_lane(), want.data(), cos.data(), sin.data(), M, T, heads, hd, half % 2);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Halves got(stored(x));
      ops.rope(lanes, got.data(), cos.data(), sin.data(), M, T, heads, hd, half % 2);
      EXPECT_TRUE(same(rounded(want), got, heads * hd, "x"));
    });
  }
}

TEST(SimdBf16, CrossEntropy) {
  Random random(7);
  for (i64 V : kSizes)
    for (i64 leaves : {1, 8}) {
      const i64 M = 13, first = 40, valid = random.below(V + 1);
      SCOPED_TRACE(fmt::format("V {} valid {} leaves {}", V, valid, leaves));
      const auto logits = given(random, M * V, 30.0f);
      const auto labels = random_labels(random, M, V, first);
      Output max(M), sum(M), target(M), dx(logits);
      plain().ce_max(one_lane(), max.data(), logits.data(), M, V, valid);
      plain().ce_sum(one_lane(), sum.data(), target.data(), logits.data(), max.data(), labels.data(), M, V,
                     valid, first, leaves);
      plain().ce_dx(one_lane(), dx.data(), max.data(), sum.data(), labels.data(), M, V, valid, first, 0.3f);
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        Output max2(M), sum2(M), target2(M);
        Halves dx2(stored(logits));
        ops.ce_max(lanes, max2.data(), dx2.data(), M, V, valid);
        ops.ce_sum(lanes, sum2.data(), target2.data(), dx2.data(), max.data(), labels.data(), M, V, valid,
                   first, leaves);
        ops.ce_dx(lanes, dx2.data(), max.data(), sum.data(), labels.data(), M, V, valid, first, 0.3f);
        EXPECT_TRUE(same(max, max2, 1, "max"));
        EXPECT_TRUE(same(sum, sum2, 1, "sum"));
        EXPECT_TRUE(same(target, target2, 1, "target"));
        EXPECT_TRUE(same(rounded(dx), dx2, V, "dlogits"));
      });
    }
}

// Whatever a float32 can be: denormals, halves of a last bit, infinities, NaNs with any payload.
TEST(SimdBf16, Elements) {
  Random random(8);
  for (i64 n : {i64{1}, i64{7}, i64{15}, i64{17}, i64{5000}, i64{9001}}) {
    auto wide = random.any_values(n);
    for (std::size_t i = 0; i + 8 < wide.size(); i += 31) {
      const std::uint32_t at = std::bit_cast<std::uint32_t>(wide[i]) & 0xffff0000u;
      wide[i] = std::bit_cast<float>(at | 0x8000u), wide[i + 1] = std::bit_cast<float>(at | 0x18000u);
      wide[i + 2] = kInfinity, wide[i + 3] = -kInfinity, wide[i + 4] = std::nanf("");
      wide[i + 5] = std::bit_cast<float>(0xff800001u), wide[i + 6] = std::numeric_limits<float>::max();
    }
    const auto a = given(random, n), g = given(random, n, 90.0f), u = given(random, n);
    const auto ah = stored(a), gh = stored(g), uh = stored(u), wide_h = stored(wide);
    Output sum(n), act(n), dg(n), du(n), total(n);
    plain().add(one_lane(), sum.data(), a.data(), u.data(), n);
    plain().add(one_lane(), total.data(), a.data(), wide.data(), n);
    plain().swiglu(one_lane(), act.data(), g.data(), u.data(), n);
    plain().swiglu_dx(one_lane(), dg.data(), du.data(), a.data(), g.data(), u.data(), n);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Halves sum2(ah), total2(ah), act2(n), dg2(n), du2(n), narrowed(n);
      Output widened(n);
      ops.add(lanes, sum2.data(), sum2.data(), uh.data(), n);  // in place
      ops.add(lanes, total2.data(), total2.data(), wide.data(), n);
      ops.swiglu(lanes, act2.data(), gh.data(), uh.data(), n);
      ops.swiglu_dx(lanes, dg2.data(), du2.data(), ah.data(), gh.data(), uh.data(), n);
      ops.copy(lanes, narrowed.data(), wide.data(), n);
      ops.copy(lanes, widened.data(), wide_h.data(), n);
      EXPECT_TRUE(same(rounded(sum), sum2, n, "sum"));
      EXPECT_TRUE(same(rounded(total), total2, n, "sum with float32"));
      EXPECT_TRUE(same(rounded(act), act2, n, "act"));
      EXPECT_TRUE(same(rounded(dg), dg2, n, "dg"));
      EXPECT_TRUE(same(rounded(du), du2, n, "du"));
      EXPECT_TRUE(same(Output(std::vector<float>(wide_h.begin(), wide_h.end())), widened, n, "widened"));
      for (i64 i = 0; i < n; ++i)  // bit for bit, NaNs too
        ASSERT_EQ(narrowed.data()[i].bits, wide_h[static_cast<std::size_t>(i)].bits) << i;
      EXPECT_TRUE(narrowed.margin_untouched());
    });
  }
}

}  // namespace
}  // namespace lockstep::simd_test
