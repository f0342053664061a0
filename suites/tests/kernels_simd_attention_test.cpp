// The vector attention gives the plain one's bits, forward and backward.
#include <fmt/format.h>

#include "suites/tests/kernels_simd.hpp"

namespace lockstep::simd_test {
namespace {

struct Shape {
  i64 B, T, H, K, hd;
};

void expect_equal(const Shape& s, float range, unsigned seed) {
  SCOPED_TRACE(fmt::format("B {} T {} H {} K {} hd {} range {}", s.B, s.T, s.H, s.K, s.hd, range));
  const i64 nq = s.B * s.T * s.H * s.hd, nk = s.B * s.T * s.K * s.hd, nl = s.B * s.H * s.T;
  Random random(seed);
  const auto q = random.values(nq, range), k = random.values(nk, range), v = random.values(nk);
  const auto dO = random.values(nq);
  Output o(nq), lse(nl), dq(nq), dk(nk), dv(nk);
  plain().attention(one_lane(), o.data(), lse.data(), q.data(), k.data(), v.data(), s.B, s.T, s.H, s.K, s.hd);
  plain().attention_dx(one_lane(), dq.data(), dk.data(), dv.data(), dO.data(), q.data(), k.data(), v.data(),
                       o.data(), lse.data(), s.B, s.T, s.H, s.K, s.hd);
  for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
    Output o2(nq), lse2(nl), dq2(nq), dk2(nk), dv2(nk);
    ops.attention(lanes, o2.data(), lse2.data(), q.data(), k.data(), v.data(), s.B, s.T, s.H, s.K, s.hd);
    ops.attention_dx(lanes, dq2.data(), dk2.data(), dv2.data(), dO.data(), q.data(), k.data(), v.data(),
                     o.data(), lse.data(), s.B, s.T, s.H, s.K, s.hd);
    EXPECT_TRUE(same(o, o2, s.H * s.hd, "o"));
    EXPECT_TRUE(same(lse, lse2, s.T, "lse"));
    EXPECT_TRUE(same(dq, dq2, s.H * s.hd, "dq"));
    EXPECT_TRUE(same(dk, dk2, s.K * s.hd, "dk"));
    EXPECT_TRUE(same(dv, dv2, s.K * s.hd, "dv"));
  });
}

TEST(SimdAttention, EqualsPlainOverLengths) {
  unsigned seed = 1;
  for (i64 T : kSizes)
    for (i64 hd : {i64{8}, i64{32}}) expect_equal({2, T, 2, 1, hd}, 3.0f, ++seed);
}

TEST(SimdAttention, EqualsPlainOverHeadSizes) {
  unsigned seed = 100;
  for (i64 hd : kSizes) expect_equal({1, 37, 2, 2, hd}, 2.0f, ++seed);
  expect_equal({1, 50, 1, 1, 128}, 1.0f, ++seed);
}

TEST(SimdAttention, EqualsPlainOverGroups) {
  unsigned seed = 200;
  for (i64 K : {1, 2, 3})
    for (i64 group : {1, 2, 3, 4, 7, 8}) expect_equal({1, 33, K * group, K, 16}, 2.0f, ++seed);
}

// Several blocks of queries and of keys, in both directions.
TEST(SimdAttention, EqualsPlainOverBlocks) {
  expect_equal({1, 193, 1, 1, 16}, 2.0f, 301);
  expect_equal({1, 400, 2, 1, 24}, 2.0f, 302);
  expect_equal({1, 130, 16, 1, 256}, 0.5f, 304);
}
TEST(SimdAttention, EqualsPlainOverBlocksOfWideHeads) { expect_equal({1, 800, 1, 1, 340}, 0.5f, 303); }

// Forward alone, one lane: the plain kernel takes a while.
void expect_equal_forward(i64 T, i64 hd, unsigned seed) {
  SCOPED_TRACE(fmt::format("T {} hd {}", T, hd));
  Random random(seed);
  const auto q = random.values(T * hd, 2.0f), k = random.values(T * hd, 2.0f), v = random.values(T * hd);
  Output o(T * hd), lse(T);
  plain().attention(one_lane(), o.data(), lse.data(), q.data(), k.data(), v.data(), 1, T, 1, 1, hd);
  for (const KernelSet* set : kernel_sets()) {
    if (!set->runs_here() || set->speed < 0) continue;
    SCOPED_TRACE(set->name);
    Ops<float> ops = plain();
    set->apply(ops);
    Output o2(T * hd), lse2(T);
    ops.attention(one_lane(), o2.data(), lse2.data(), q.data(), k.data(), v.data(), 1, T, 1, 1, hd);
    EXPECT_TRUE(same(o, o2, hd, "o"));
    EXPECT_TRUE(same(lse, lse2, T, "lse"));
  }
}

// So long that scratch has room for the scores of 59 queries, which are no whole tiles.
TEST(SimdAttention, EqualsPlainWhereScoresFillTheScratch) { expect_equal_forward(6560, 8, 305); }

// Scores far apart: probabilities underflow to denormals and to zero.
TEST(SimdAttention, EqualsPlainForExtremeScores) {
  expect_equal({1, 65, 2, 1, 16}, 1e3f, 401);
  expect_equal({1, 65, 2, 1, 16}, 8.0f, 402);
  expect_equal({1, 65, 2, 1, 16}, 1e-30f, 403);
}

// What does not fit in scratch goes to the slower kernel.
TEST(SimdAttention, EqualsPlainForHugeHeads) { expect_equal({1, 5, 2, 1, 2100}, 0.1f, 501); }
// Of a whole block of queries, whose output just has room beside the scores, and has none.
TEST(SimdAttention, EqualsPlainWhereTheOutputFillsTheScratch) {
  for (const i64 hd : {2048, 2064}) expect_equal_forward(64, hd, 503);
}

}  // namespace
}  // namespace lockstep::simd_test
