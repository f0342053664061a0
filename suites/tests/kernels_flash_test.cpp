// Fast attention, run here by fibers in place of a GPU's threads, against a softmax in float64.
#include "suites/tests/kernels_flash.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "kernels/cuda/flash_float_backward.hpp"
#include "kernels/cuda/hopper_backward.hpp"
#include "suites/tests/warp_fibers.hpp"

namespace lockstep::cuda {
namespace {

struct Shape {
  i64 B, T, H, K, hd;
};
class Flash : public testing::TestWithParam<Shape> {
 protected:
  const Shape s_ = GetParam();
  const Problem<bf16> p_{s_.B, s_.T, s_.H, s_.K, s_.hd};
  Lanes lanes_{1};
};
// Edges of tiles of 64 and 128; groups of query heads; more than one sequence.
INSTANTIATE_TEST_SUITE_P(Shapes, Flash,
                         testing::Values(Shape{1, 1, 1, 1, 64}, Shape{1, 63, 2, 1, 64},
                                         Shape{1, 64, 1, 1, 128}, Shape{2, 65, 2, 2, 64},
                                         Shape{1, 129, 4, 1, 64}, Shape{1, 200, 2, 1, 128},
                                         Shape{1, 400, 2, 1, 64}));

template <class Kernels, class Y, class X>
void check(const Problem<X>& p, Lanes& lanes) {
  Attended<X, Y> got(p);
  fibers::Launch::conflicts = 0;
  ASSERT_TRUE((flash_attention<fibers::Launch, Kernels>(lanes, got.o.data(), got.lse.data(), p.q.data(),
                                                        p.k.data(), p.v.data(), p.B, p.T, p.H, p.K, p.hd)));
  ASSERT_TRUE((flash_attention_dx<fibers::Launch, Kernels>(
      lanes, got.dq.data(), got.dk.data(), got.dv.data(), p.dO.data(), p.q.data(), p.k.data(), p.v.data(),
      p.o.data(), p.lse.data(), p.B, p.T, p.H, p.K, p.hd)));
  expect_near(distances(got, p), p);
  EXPECT_EQ(fibers::Launch::conflicts, 0) << "banks asked twice";
}
TEST_P(Flash, OnWarps) { check<FlashKernels, bf16>(p_, lanes_); }
TEST_P(Flash, OnWarpsWithPartialSumsInFloat32) { check<FlashKernels, float>(p_, lanes_); }
TEST_P(Flash, OnHopper) { check<HopperKernels, bf16>(p_, lanes_); }
TEST_P(Flash, OnHopperWithPartialSumsInFloat32) { check<HopperKernels, float>(p_, lanes_); }
TEST_P(Flash, InFloat32) {
  check<FloatKernels, float>(Problem<float>(s_.B, s_.T, s_.H, s_.K, s_.hd), lanes_);
}

// That lanes read rows one below the other is the kernels' to keep; of how far apart these lie, four numbers
// of eight then take all 32 banks.
template <class Rows>
std::set<i64> banks_of_eight() {
  std::set<i64> banks;
  for (int lane = 0; lane < 8; ++lane)
    for (int e = 0; e < 4; ++e) banks.insert((Rows::kPitch * lane + e) % 32);
  return banks;
}
TEST(FlashAttention, EightRowsOfFloat32LieInAllBanks) {
  EXPECT_EQ(banks_of_eight<FloatRows<64>>().size(), 32u);
  EXPECT_EQ(banks_of_eight<FloatRows<128>>().size(), 32u);
  EXPECT_EQ(banks_of_eight<FloatForward<64>::Probabilities>().size(), 32u);
  EXPECT_EQ(banks_of_eight<FloatGradient<64>::Factor>().size(), 32u);
}

TEST(FlashAttention, NothingLaterIsSeen) {
  const Problem<bf16> p(1, 100, 1, 1, 64);
  Lanes lanes(1);
  const auto outputs = [&](const std::vector<bf16>& k, const std::vector<bf16>& v) {
    std::vector<bf16> o(p.q.size());
    std::vector<float> lse(p.lse.size());
    EXPECT_TRUE((flash_attention<fibers::Launch, FlashKernels>(lanes, o.data(), lse.data(), p.q.data(),
                                                               k.data(), v.data(), 1, 100, 1, 1, 64)));
    return o;
  };
  auto k = p.k, v = p.v;
  const auto before = outputs(k, v);
  for (i64 i = 70 * 64; i < 100 * 64; ++i) k[i] = v[i] = bf16(1000.0f);
  const auto after = outputs(k, v);
  for (i64 i = 0; i < 70 * 64; ++i) ASSERT_EQ(before[i].bits, after[i].bits) << i / 64;
  bool changed = false;
  for (std::size_t i = 70 * 64; i < before.size(); ++i) changed |= before[i].bits != after[i].bits;
  EXPECT_TRUE(changed);
}

TEST(FlashAttention, LeavesOtherHeadsAndOddAddressesToOthers) {
  std::vector<bf16> x(4096);
  const bf16* at = x.data();
  while (reinterpret_cast<std::uintptr_t>(at) % 16) ++at;
  EXPECT_TRUE(flash_takes(64, at));
  EXPECT_FALSE(flash_takes(64, at, at + 1));
  EXPECT_FALSE(flash_takes(80, at));
}

// The emulated product against the definition: the identity times a matrix is the matrix.
struct Copies {
  static constexpr int kThreads = 64;  // two warps, that compute the same
  static constexpr i64 kShared = 16 * 64 * 2 * 2;
  const bf16 *identity, *matrix;
  float* out;  // 16 x 8: row of the identity, row of the matrix
  template <class Env>
  void operator()(Env& env) const {
    const SharedRows<64> a{env.shared()}, b{env.shared() + SharedRows<64>::bytes(16)};
    fetch<kThreads, 16>(env, a, identity, 64, 0, 16);
    fetch<kThreads, 16>(env, b, matrix, 64, 0, 16);
    env.commit();
    env.template wait<0>();
    env.sync();
    Sums sums[1][2] = {};
    multiply_rows(env, sums, a, 0, b, 0);
    const int lane = env.thread();
    if (lane >= 32) return;
    for (int n = 0; n < 2; ++n)
      for (int i = 0; i < 4; ++i)
        out[(lane / 4 + i / 2 * 8) * 16 + 8 * n + lane % 4 * 2 + i % 2] = sums[0][n].at[i];
  }
};
TEST(Fibers, MultiplyByTheIdentity) {
  std::vector<bf16> identity(16 * 64, bf16(0.0f)), matrix;
  for (int i = 0; i < 16; ++i) identity[i * 64 + i] = bf16(1.0f);
  for (int i = 0; i < 16 * 64; ++i) matrix.push_back(bf16(static_cast<float>(i % 251)));
  std::vector<float> out(16 * 16);
  Lanes lanes(1);
  fibers::Launch::launch(lanes, Copies{identity.data(), matrix.data(), out.data()}, 1);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j)
      EXPECT_EQ(out[i * 16 + j], static_cast<float>(matrix[j * 64 + i])) << i << ' ' << j;
}

}  // namespace
}  // namespace lockstep::cuda
