// The bodies of the GPU's kernels, run here block by block: as a set of kernels of this program they go
// through all of the tests of vector kernels, which hold them to the plain ones bit by bit.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/table.hpp"
#include "suites/tests/kernels_cuda_here.hpp"
#include "suites/tests/kernels_simd.hpp"

namespace lockstep::simd_test {
namespace {

const KernelSet set(
    "cuda-bodies", -1, [] { return true; }, cuda::fill<Here>);

TEST(CudaBodies, AreASetOfKernelsOfTheseTests) {
  ASSERT_FALSE(kernel_sets().empty());
  EXPECT_STREQ(kernel_sets().front()->name, "cuda-bodies");
}

// Every entry is there: one left out would be the plain kernel, and equal to itself.
TEST(CudaBodies, FillTheWholeTable) {
  Ops<float> ops = plain(), table = plain();
  cuda::fill<Here>(table);
  int same = 0;
  const auto differs = [&](const auto& a, const auto& b) { same += a.call == b.call; };
  differs(ops.matmul, table.matmul), differs(ops.matmul_dx, table.matmul_dx);
  differs(ops.matmul_dw, table.matmul_dw), differs(ops.embed, table.embed);
  differs(ops.embed_dw, table.embed_dw), differs(ops.rms_norm, table.rms_norm);
  differs(ops.rms_norm_dx, table.rms_norm_dx), differs(ops.rms_norm_dw, table.rms_norm_dw);
  differs(ops.rope, table.rope), differs(ops.attention, table.attention);
  differs(ops.attention_dx, table.attention_dx), differs(ops.swiglu, table.swiglu);
  differs(ops.swiglu_dx, table.swiglu_dx), differs(ops.ce_max, table.ce_max);
  differs(ops.ce_sum, table.ce_sum), differs(ops.ce_loss, table.ce_loss);
  differs(ops.ce_dx, table.ce_dx), differs(ops.add, table.add);
  differs(ops.copy, table.copy), differs(ops.zero, table.zero);
  differs(ops.add_squares, table.add_squares), differs(ops.adamw, table.adamw);
  EXPECT_EQ(same, 0);
}

// What the vector sets leave to the plain kernels, and so their tests do not ask for.
TEST(CudaBodies, EmbeddingAndLossEqualPlain) {
  Random random(11);
  for (int round = 0; round < 20; ++round) {
    // More tokens than a window of the gradient has, more columns than a block; in eights and not.
    constexpr i64 kLarge[3][2] = {{5000, 24}, {60, 4200}, {4500, 13}};
    const i64 B = 2, T = round < 3 ? kLarge[round][0] : random.pick(kSizes),
              D = round < 3 ? kLarge[round][1] : random.pick(kSizes);
    const i64 rows = 7, first = 3;
    std::vector<i32> ids(static_cast<std::size_t>(B * T));
    for (i32& id : ids) id = static_cast<i32>(random.below(14)) - (round % 2);
    const auto table = random.values(rows * D), dy = random.values(T * D), start = random.values(rows * D);
    auto sum = random.values(B * T);
    for (float& x : sum) x = 1.0f + x * x;
    const auto max = random.values(B * T), target = random.values(B * T);
    Output y(B * T * D), dtable(start), copied(rows * D), cleared(start);
    std::vector<double> loss(B);
    plain().embed(one_lane(), y.data(), table.data(), ids.data(), B * T, D, first, rows);
    plain().embed_dw(one_lane(), dtable.data(), dy.data(), ids.data(), T, D, first, rows, round % 3 > 0);
    plain().ce_loss(one_lane(), loss.data(), sum.data(), max.data(), target.data(), ids.data(), B, T);
    plain().copy(one_lane(), copied.data(), table.data(), rows * D);
    plain().zero(one_lane(), cleared.data(), rows * D);
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
      Output y2(B * T * D), dtable2(start), copied2(rows * D), cleared2(start);
      std::vector<double> loss2(B);
      ops.embed(lanes, y2.data(), table.data(), ids.data(), B * T, D, first, rows);
      ops.embed_dw(lanes, dtable2.data(), dy.data(), ids.data(), T, D, first, rows, round % 3 > 0);
      ops.ce_loss(lanes, loss2.data(), sum.data(), max.data(), target.data(), ids.data(), B, T);
      ops.copy(lanes, copied2.data(), table.data(), rows * D);
      ops.zero(lanes, cleared2.data(), rows * D);
      EXPECT_TRUE(same(y, y2, D, "y"));
      EXPECT_TRUE(same(dtable, dtable2, D, "dtable"));
      EXPECT_TRUE(same(copied, copied2, D, "copy"));
      EXPECT_TRUE(same(cleared, cleared2, D, "zero"));
      EXPECT_EQ(loss, loss2);
    });
  }
}

// Tiles of 128 x 128 outputs, which only large matmuls get.
TEST(CudaBodies, LargeTilesEqualPlain) {
  Random random(12);
  const i64 M = 1030, N = 1025, K = 37;
  const auto x = random.values(M * K), w = random.values(N * K);
  Output want(M * N), y(M * N);
  plain().matmul(one_lane(), want.data(), x.data(), w.data(), M, N, K, 8);
  Ops<float> ops = plain();
  cuda::fill<Here>(ops);
  ops.matmul(one_lane(), y.data(), x.data(), w.data(), M, N, K, 8);
  EXPECT_TRUE(same(want, y, N, "y"));
}

}  // namespace
}  // namespace lockstep::simd_test
