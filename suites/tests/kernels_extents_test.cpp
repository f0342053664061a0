// How far kernels go, seen from outside: operands lie in memory of which every element beyond the stated
// extent is an inaccessible page's, and the last one within it is used.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/extents.hpp"
#include "kernels/ops.hpp"

namespace lockstep {
namespace {

// n elements that end where a page begins that nobody may touch.
class Ending {
 public:
  Ending(i64 n, std::size_t size) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = static_cast<std::size_t>(n) * size;
    body_ = (bytes + page - 1) / page * page;
    base_ = static_cast<char*>(
        mmap(nullptr, body_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + body_, page, PROT_NONE);
    all_ = body_ + page;
    at_ = base_ + body_ - bytes;
    last_ = base_ + body_ - size;
    std::fill(base_, base_ + body_, '\0');
  }
  ~Ending() { munmap(base_, all_); }
  Ending(const Ending&) = delete;
  Ending& operator=(const Ending&) = delete;
  template <class P>
  operator P*() const {  // NOLINT: a kernel's operand
    return reinterpret_cast<P*>(at_);
  }
  template <class P>
  P& last() const {
    return *reinterpret_cast<P*>(last_);
  }

 private:
  char *base_, *at_, *last_;
  std::size_t body_, all_;
};

constexpr std::size_t kFloat = 4;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Extents : testing::Test {
  Lanes lanes{1};
  const Ops<float> ops = plain_ops<float>();
};

// A NaN in the last element of each input must reach the result's last element, or row: else it is not used.
TEST_F(Extents, OfProducts) {
  const i64 M = 3, N = 16, K = 24;
  for (int poisoned = 1; poisoned < 3; ++poisoned) {
    const auto e = extents_of("matmul", {M, N, K, 8});
    ASSERT_EQ(e.size(), 3u);
    const Ending y(e[0], kFloat), x(e[1], kFloat), w(e[2], kFloat);
    (poisoned == 1 ? x : w).last<float>() = kNaN;
    ops.matmul(lanes, y, x, w, M, N, K, 8);
    EXPECT_NE(y.last<float>(), y.last<float>());
  }
  for (int poisoned = 1; poisoned < 3; ++poisoned) {
    const auto e = extents_of("matmul_dw", {M, N, K, 0});
    const Ending dw(e[0], kFloat), dy(e[1], kFloat), x(e[2], kFloat);
    (poisoned == 1 ? dy : x).last<float>() = kNaN;
    ops.matmul_dw(lanes, dw, dy, x, M, N, K, false);
    EXPECT_NE(dw.last<float>(), dw.last<float>());
  }
  for (std::size_t poisoned = 0; poisoned < 4; ++poisoned) {  // two pieces side by side, rows 20 apart
    const auto e = extents_of("matmul_dx", {20, 16, 20, 4, 0, 0, M, K, 4});
    ASSERT_EQ(e.size(), 7u);
    EXPECT_EQ(e[5], 0);
    const Ending dx(e[0], kFloat), dy0(e[1], kFloat), w0(e[2], kFloat), dy1(e[3], kFloat), w1(e[4], kFloat);
    const std::vector<const Ending*> inputs{&dy0, &w0, &dy1, &w1};
    inputs[poisoned]->last<float>() = kNaN;
    ops.matmul_dx(lanes, dx, dy0, 20, w0, 16, dy1, 20, w1, 4, nullptr, 0, nullptr, 0, M, K, 4);
    EXPECT_NE(dx.last<float>(), dx.last<float>());
  }
}

// Each output's last element must be written, and nothing beyond.
TEST_F(Extents, OfRowsAndAttention) {
  const auto written = [](const Ending& out) {
    const float x = out.last<float>();
    return x == x;
  };
  {
    const auto e = extents_of("rms_norm", {5, 7, 1e-5});
    const Ending y(e[0], kFloat), rstd(e[1], kFloat), x(e[2], kFloat), w(e[3], kFloat);
    y.last<float>() = rstd.last<float>() = kNaN;
    ops.rms_norm(lanes, y, rstd, x, w, 5, 7, 1e-5);
    EXPECT_TRUE(written(y) && written(rstd));
    const auto b = extents_of("rms_norm_dx", {5, 7});
    const Ending dx(b[0], kFloat), dy(b[1], kFloat);
    dx.last<float>() = kNaN;
    ops.rms_norm_dx(lanes, dx, dy, x, rstd, w, 5, 7);
    EXPECT_TRUE(written(dx));
    const auto d = extents_of("rms_norm_dw", {5, 7, 1, 0});
    const Ending dw(d[0], kFloat);
    dw.last<float>() = kNaN;
    ops.rms_norm_dw(lanes, dw, dy, x, rstd, 5, 7, 1, false);
    EXPECT_TRUE(written(dw));
  }
  {
    const i64 B = 2, T = 5, H = 4, K = 2, hd = 6;
    const auto e = extents_of("attention", {B, T, H, K, hd});
    const Ending o(e[0], kFloat), lse(e[1], kFloat), q(e[2], kFloat), k(e[3], kFloat), v(e[4], kFloat);
    o.last<float>() = lse.last<float>() = kNaN;
    ops.attention(lanes, o, lse, q, k, v, B, T, H, K, hd);
    EXPECT_TRUE(written(o) && written(lse));
    const auto b = extents_of("attention_dx", {B, T, H, K, hd});
    const Ending dq(b[0], kFloat), dk(b[1], kFloat), dv(b[2], kFloat), dO(b[3], kFloat);
    dq.last<float>() = dk.last<float>() = dv.last<float>() = kNaN;
    ops.attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
    EXPECT_TRUE(written(dq) && written(dk) && written(dv));
  }
  {
    const auto e = extents_of("rope", {6, 3, 2, 8, 0});
    const Ending x(e[0], kFloat), cos(e[1], kFloat), sin(e[2], kFloat);
    x.last<float>() = 1;
    cos.last<float>() = kNaN;  // of the last token's last pair
    ops.rope(lanes, x, cos, sin, 6, 3, 2, 8, false);
    EXPECT_FALSE(written(x));
  }
}

TEST_F(Extents, OfCrossEntropyAndEmbedding) {
  const i64 B = 2, T = 3, V = 10;
  const auto e = extents_of("ce_sum", {B * T, V, V, 0, 2});
  const Ending sum(e[0], kFloat), target(e[1], kFloat), logits(e[2], kFloat), max(e[3], kFloat),
      labels(e[4], 4);
  labels.last<i32>() = V - 1;
  logits.last<float>() = 3;
  sum.last<float>() = kNaN;
  ops.ce_max(lanes, max, logits, B * T, V, V);
  EXPECT_EQ(max.last<float>(), 3);
  ops.ce_sum(lanes, sum, target, logits, max, labels, B * T, V, V, 0, 2);
  EXPECT_EQ(target.last<float>(), 3);
  EXPECT_GT(sum.last<float>(), 1);
  const Ending loss(extents_of("ce_loss", {B, T})[0], sizeof(double));
  loss.last<double>() = -1;
  ops.ce_loss(lanes, loss, sum, max, target, labels, B, T);
  EXPECT_GT(loss.last<double>(), 0);

  const auto t = extents_of("embed", {T, 5, 0, V});
  const Ending y(t[0], kFloat), table(t[1], kFloat), ids(t[2], 4);
  ids.last<i32>() = V - 1;
  table.last<float>() = 7;
  ops.embed(lanes, y, table, ids, T, 5, 0, V);
  EXPECT_EQ(y.last<float>(), 7);
  const auto d = extents_of("embed_dw", {T, 5, 0, V, 0});
  const Ending dtable(d[0], kFloat);
  ops.embed_dw(lanes, dtable, y, ids, T, 5, 0, V, false);
  EXPECT_EQ(dtable.last<float>(), 7);
}

// Its last number goes to the last place, and memory ends behind both.
TEST_F(Extents, OfSwappedAxes) {
  const i64 B = 3, M = 2, N = 5, W = 7;
  const auto e = extents_of("swap_axes", {B, M, N, W});
  ASSERT_EQ(e.size(), 2u);
  const Ending y(e[0], kFloat), x(e[1], kFloat);
  x.last<float>() = 3;
  ops.swap_axes(lanes, y, x, B, M, N, W);
  EXPECT_EQ(y.last<float>(), 3);
}

TEST_F(Extents, OfRepeatedRows) {
  const auto many = extents_of("repeat_rows", {3, 4, 5}), few = extents_of("sum_rows", {3, 4, 5});
  EXPECT_EQ(few, (std::vector<i64>{3 * 5, 3 * 4 * 5}));
  ASSERT_EQ(many, (std::vector<i64>{3 * 4 * 5, 3 * 5}));
  const Ending y(many[0], kFloat), x(many[1], kFloat);
  x.last<float>() = 3;
  ops.repeat_rows(lanes, y, x, 3, 4, 5);
  EXPECT_EQ(y.last<float>(), 3);
  ops.sum_rows(lanes, x, y, 3, 4, 5);
  EXPECT_EQ(x.last<float>(), 12);
}

TEST_F(Extents, EveryOtherKernelGoesAsFarAsItsCount) {
  for (const auto& [name, operands] :
       {std::pair{"swiglu", 3}, {"swiglu_dx", 5}, {"add", 3}, {"copy", 2}, {"zero", 1}})
    EXPECT_EQ(extents_of(name, {11}), std::vector<i64>(static_cast<std::size_t>(operands), 11)) << name;
  EXPECT_EQ(extents_of("adamw", {11, 0.5}), std::vector<i64>(4, 11));
  EXPECT_EQ(extents_of("add_squares", {11}), (std::vector<i64>{kSquareWords, 11}));
  EXPECT_EQ(extents_of("ce_dx", {6, 10, 9, 0, 1}), (std::vector<i64>{60, 6, 6, 6}));
  EXPECT_EQ(extents_of("ce_max", {6, 10, 9}), (std::vector<i64>{6, 60}));
  EXPECT_THROW(extents_of("transpose", {1}), std::logic_error);
}

}  // namespace
}  // namespace lockstep
