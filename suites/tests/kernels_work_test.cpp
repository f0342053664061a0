// The work of kernels against counts made by hand: additions and multiplications one by one, numbers read and
// written once each.
#include <gtest/gtest.h>

#include <stdexcept>

#include "kernels/ops.hpp"
#include "kernels/work.hpp"

namespace lockstep {
namespace {

void expect_work(const Work& w, Work::Class kind, double flops, double bytes) {
  EXPECT_EQ(w.kind, kind);
  EXPECT_DOUBLE_EQ(w.flops, flops);
  EXPECT_DOUBLE_EQ(w.bytes, bytes);
}

TEST(Work, AMatmulMultipliesAndAddsOnceForEachTerm) {
  const double m = 3, n = 5, k = 7, leaves = 8;
  double terms = 0;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) terms += k;
  expect_work(work_of("matmul", {m, n, k, leaves}), Work::matmul, 2 * terms, 4 * (21 + 35 + 15));
  expect_work(work_of("matmul", {m, n, k, leaves}, 2), Work::matmul, 2 * terms, 2 * (21 + 35 + 15));
}

// Three matrices side by side are one of all their columns; ld (strides) and leaves cost nothing.
TEST(Work, TheGradientOfAnInputSumsOverAllPieces) {
  const double m = 3, k = 7;
  expect_work(work_of("matmul_dx", {50, 4, 50, 2, 50, 1, m, k, 8}), Work::matmul, 2 * 3 * 7 * 7,
              4 * (3 * 7 + 7 * 7 + 3 * 7));
  expect_work(work_of("matmul_dx", {50, 4, 0, 0, 0, 0, m, k, 8}), Work::matmul, 2 * 3 * 4 * 7,
              4 * (3 * 4 + 4 * 7 + 3 * 7));
}

TEST(Work, TheGradientOfAWeightSumsOverTokens) {
  const double tokens = 11, n = 5, k = 7;
  expect_work(work_of("matmul_dw", {tokens, n, k, 1}), Work::matmul, 2 * 11 * 5 * 7,
              4 * (11 * 5 + 11 * 7 + 5 * 7));
}

// Half of each T x T square: a query sees itself and what came before. For large T the diagonal is nothing.
TEST(Work, AttentionIsHalfASquare) {
  const double b = 2, t = 1000, h = 4, kv = 2, hd = 8;
  double seen = 0;  // pairs of query and key
  for (int i = 0; i < t; ++i) seen += i + 1;
  const Work forward = work_of("attention", {b, t, h, kv, hd}),
             back = work_of("attention_dx", {b, t, h, kv, hd});
  const double product = 2 * b * h * hd * seen;  // one of scores, or of probabilities and values
  EXPECT_EQ(forward.kind, Work::attention);
  EXPECT_NEAR(forward.flops / (2 * product), 1, 2 / t);
  EXPECT_NEAR(back.flops / (5 * product), 1, 2 / t);  // scores, dP, dV, dQ, dK
  const double q = b * t * h * hd, k = b * t * kv * hd;
  EXPECT_DOUBLE_EQ(forward.bytes, 4 * (q + k + k + q));               // q, k, v, o
  EXPECT_DOUBLE_EQ(back.bytes, 4 * (q + q + q + q + k + k + k + k));  // dO, q, o, dq; k, v, dk, dv
}

TEST(Work, RowsAreBoundByWhatTheyMove) {
  const double n = 100, rows = 3, width = 7;
  expect_work(work_of("add", {n}), Work::rows, n, 4 * 3 * n);   // a, b, y
  expect_work(work_of("copy", {n}), Work::rows, 0, 4 * 2 * n);  // x, y
  expect_work(work_of("swap_axes", {5, rows, 2, width}), Work::rows, 0, 4 * 2 * 5 * rows * 2 * width);
  expect_work(work_of("repeat_rows", {rows, 4, width}), Work::rows, 0, 4 * (1 + 4) * rows * width);
  expect_work(work_of("sum_rows", {rows, 4, width}), Work::rows, 3 * rows * width,
              4 * (4 + 1) * rows * width);
  expect_work(work_of("zero", {n}), Work::rows, 0, 4 * n);  // y
  expect_work(work_of("add_squares", {n}), Work::rows, 2 * n, 4 * n);
  EXPECT_DOUBLE_EQ(work_of("adamw", {n, 0.5}).bytes, 4 * 7 * n);  // g; w, m, v both ways
  EXPECT_DOUBLE_EQ(work_of("swiglu", {n}).bytes, 4 * 3 * n);      // g, u, a
  EXPECT_DOUBLE_EQ(work_of("swiglu_dx", {n}).bytes, 4 * 5 * n);   // dg, du, da, g, u
  EXPECT_DOUBLE_EQ(work_of("rms_norm", {rows, width, 1e-5}).bytes, 4 * 2 * rows * width);
  EXPECT_DOUBLE_EQ(work_of("rms_norm_dx", {rows, width}).bytes, 4 * 3 * rows * width);
  EXPECT_DOUBLE_EQ(work_of("rope", {rows, 32, 4, 8, 0}).bytes, 4 * 2 * rows * 4 * 8);
  EXPECT_DOUBLE_EQ(work_of("rope", {rows, 32, 4, 8, 0}).flops, rows * 4 * 4 * (4 + 2));  // 4 pairs: a', b'
  EXPECT_DOUBLE_EQ(work_of("ce_dx", {rows, width, 7, 0, 1}).bytes, 4 * 2 * rows * width);
  EXPECT_DOUBLE_EQ(work_of("embed", {rows, width, 0, 500}).bytes, 4 * 2 * rows * width);
}

TEST(Work, EveryKernelOfTheTableHasAFormula) {
  const std::vector<double> sizes(10, 2.0);
  const Ops<float> o = plain_ops<float>();
  for (const char* name :
       {o.matmul.name,       o.matmul_dx.name,   o.matmul_dw.name,   o.embed.name,       o.embed_dw.name,
        o.rms_norm.name,     o.rms_norm_dx.name, o.rms_norm_dw.name, o.rope.name,        o.attention.name,
        o.attention_dx.name, o.swiglu.name,      o.swiglu_dx.name,   o.ce_max.name,      o.ce_sum.name,
        o.ce_loss.name,      o.ce_dx.name,       o.add.name,         o.copy.name,        o.zero.name,
        o.add_squares.name,  o.adamw.name,       o.swap_axes.name,   o.repeat_rows.name, o.sum_rows.name})
    EXPECT_GT(work_of(name, sizes).bytes, 0) << name;
  EXPECT_THROW(work_of("transpose", sizes), std::logic_error);
}

}  // namespace
}  // namespace lockstep
