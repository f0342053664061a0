// The vector matmuls give the plain ones' bits. Whether the plain ones are right, other tests say.
#include <fmt/format.h>

#include "suites/tests/kernels_simd.hpp"

namespace lockstep::simd_test {
namespace {

TEST(SimdSets, AreRegistered) {
  const std::string names = isa_names();
#if defined(__x86_64__)
  EXPECT_NE(names.find(", avx2, avx512"), names.npos) << names;  // tests register others
#elif defined(__aarch64__)
  EXPECT_NE(names.find(", neon"), names.npos) << names;
#endif
  EXPECT_TRUE(names.starts_with("auto, plain")) << names;
}

TEST(SimdMatmul, ForwardEqualsPlain) {
  Random random(1);
  for (int round = 0; round < 150; ++round) {
    // Every 16th has a sum too long for one packed chunk.
    const i64 M = random.pick(kSizes), N = random.pick(kSizes), leaves = random.pick(kLeaves);
    const i64 K = round % 16 == 0 ? 1000 + random.below(500) : random.pick(kSizes);
    const auto x = random.values(M * K), w = random.values(N * K);
    Output want(M * N);
    plain().matmul(one_lane(), want.data(), x.data(), w.data(), M, N, K, leaves);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output y(M * N);
      ops.matmul(lanes, y.data(), x.data(), w.data(), M, N, K, leaves);
      EXPECT_TRUE(same(want, y, N, "y")) << fmt::format("M {} N {} K {} leaves {}", M, N, K, leaves);
    });
  }
}

TEST(SimdMatmul, ExtremeValuesEqualPlain) {
  Random random(2);
  const i64 M = 33, N = 49, K = 65;
  const auto x = random.any_values(M * K, 63), w = random.any_values(N * K, 63);
  const auto tiny = random.values(N * K, 0x1p-126f);  // products are denormal
  for (const auto& b : {w, tiny}) {
    Output want(M * N);
    plain().matmul(one_lane(), want.data(), x.data(), b.data(), M, N, K, 8);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output y(M * N);
      ops.matmul(lanes, y.data(), x.data(), b.data(), M, N, K, 8);
      EXPECT_TRUE(same(want, y, N, "y"));
    });
  }
}

TEST(SimdMatmul, InputGradientEqualsPlain) {
  Random random(3);
  for (int round = 0; round < 150; ++round) {
    const i64 M = random.pick(kSizes), K = random.pick(kSizes), leaves = random.pick(kLeaves);
    const int pieces = round % 4;  // 0: only the middle one
    i64 n[3], ld[3];
    std::vector<float> dy[3], w[3];
    const float *dy_at[3], *w_at[3];
    for (int p = 0; p < 3; ++p) {
      const bool present = pieces == 0 ? p == 1 : p < pieces;
      n[p] = !present ? 0 : round % 16 == 1 ? 500 + random.below(300) : random.pick(kSizes);
      ld[p] = n[p] + (present ? random.below(5) : 0);
      dy[p] = random.values(M * ld[p]);
      w[p] = random.values(n[p] * K);
      dy_at[p] = present ? dy[p].data() : nullptr;
      w_at[p] = present ? w[p].data() : nullptr;
    }
    const auto run = [&](const Ops<float>& ops, Lanes& lanes, Output& dx) {
      ops.matmul_dx(lanes, dx.data(), dy_at[0], ld[0], w_at[0], n[0], dy_at[1], ld[1], w_at[1], n[1],
                    dy_at[2], ld[2], w_at[2], n[2], M, K, leaves);
    };
    Output want(M * K);
    run(plain(), one_lane(), want);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output dx(M * K);
      run(ops, lanes, dx);
      EXPECT_TRUE(same(want, dx, K, "dx"))
          << fmt::format("M {} N {} {} {} K {} leaves {}", M, n[0], n[1], n[2], K, leaves);
    });
  }
}

TEST(SimdMatmul, WeightGradientEqualsPlain) {
  Random random(4);
  for (int round = 0; round < 150; ++round) {
    const i64 N = random.pick(kSizes), K = random.pick(kSizes);
    const i64 T = round % 16 == 0 ? 1000 + random.below(500) : random.pick(kSizes);
    const bool add = round % 2;
    const auto dy = random.values(T * N), x = random.values(T * K), start = random.values(N * K);
    Output want(start);
    plain().matmul_dw(one_lane(), want.data(), dy.data(), x.data(), T, N, K, add);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output dw(start);
      ops.matmul_dw(lanes, dw.data(), dy.data(), x.data(), T, N, K, add);
      EXPECT_TRUE(same(want, dw, K, "dw")) << fmt::format("T {} N {} K {} add {}", T, N, K, add);
    });
  }
}

// Long enough for several blocks of rows, several chunks per leaf and several leaves per chunk; and for a
// GPU's tiles of 128 x 128 outputs, which only large matmuls get.
TEST(SimdMatmul, LargeShapesEqualPlain) {
  struct Shape {
    i64 M, N, K, leaves;
  };
  Random random(5);
  for (const Shape& s :
       {Shape{1100, 50, 70, 8}, Shape{20, 300, 3500, 8}, Shape{1030, 17, 900, 2}, Shape{1030, 1025, 37, 8}}) {
    const auto x = random.values(s.M * s.K), w = random.values(s.N * s.K);
    Output want(s.M * s.N);
    plain().matmul(one_lane(), want.data(), x.data(), w.data(), s.M, s.N, s.K, s.leaves);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output y(s.M * s.N);
      ops.matmul(lanes, y.data(), x.data(), w.data(), s.M, s.N, s.K, s.leaves);
      EXPECT_TRUE(same(want, y, s.N, "y")) << fmt::format("M {} N {} K {}", s.M, s.N, s.K);
    });
  }
}

}  // namespace
}  // namespace lockstep::simd_test
