// Fast mode's matmuls on a GPU are a library's; what it is asked for is checked here, against sums in
// float64.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/fast_matmul.hpp"

namespace lockstep::cuda {
namespace {

// Column-major products as BLAS defines them (Dongarra et al., "A set of level 3 basic linear algebra
// subprograms", 1990), of exact small integers.
struct Naive {
  int asked = 0;
  template <class T>
  static double at(const void* matrix, i64 ld, bool transposed, i64 row, i64 column) {
    if (transposed) std::swap(row, column);
    return static_cast<const T*>(matrix)[row + column * ld];
  }
  bool multiply(const Product& p) {
    ++asked;
    for (i64 i = 0; i < p.m; ++i)
      for (i64 j = 0; j < p.n; ++j) {
        double sum = 0;
        for (i64 l = 0; l < p.k; ++l)
          sum += p.half ? at<bf16>(p.first, p.ld_first, p.transpose_first, i, l) *
                              at<bf16>(p.second, p.ld_second, p.transpose_second, l, j)
                        : at<float>(p.first, p.ld_first, p.transpose_first, i, l) *
                              at<float>(p.second, p.ld_second, p.transpose_second, l, j);
        const i64 place = i + j * p.ld_out;
        if (p.to_half) {
          bf16& out = static_cast<bf16*>(p.out)[place];
          out = bf16(static_cast<float>(sum + (p.keep ? float{out} : 0.0f)));
        } else {
          float& out = static_cast<float*>(p.out)[place];
          out = static_cast<float>(sum + (p.keep ? out : 0.0f));
        }
      }
    return true;
  }
};

// Integers from -2 to 2, so that every sum is exact in float64, float32 and, below 256, bf16.
template <class X>
std::vector<X> integers(i64 n, unsigned seed) {
  std::vector<X> v;
  for (i64 i = 0; i < n; ++i)
    v.push_back(X(static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 16) / 1.0f));
  for (X& x : v) x = X(static_cast<float>(static_cast<i64>(static_cast<float>(x)) % 5 - 2));
  return v;
}

template <class X>
void check_all() {
  const i64 M = 5, N = 7, K = 11;
  Naive blas;
  const auto x = integers<X>(M * K, 1), w = integers<X>(N * K, 2);
  std::vector<X> y(M * N, X(9.0f));
  ASSERT_TRUE(multiply_matmul(blas, y.data(), x.data(), w.data(), M, N, K));
  for (i64 m = 0; m < M; ++m)
    for (i64 n = 0; n < N; ++n) {
      double want = 0;
      for (i64 k = 0; k < K; ++k) want += static_cast<double>(x[m * K + k]) * w[n * K + k];
      EXPECT_EQ(y[m * N + n], want) << m << ' ' << n;
    }

  const i64 ld = N + 3;
  const auto dy = integers<X>(M * ld, 3), dy2 = integers<X>(M * 4, 4), w2 = integers<X>(4 * K, 5);
  std::vector<X> dx(M * K, X(9.0f));
  const GradientPiece<X> pieces[3] = {
      {dy.data(), ld, w.data(), N}, {nullptr, 0, nullptr, 0}, {dy2.data(), 4, w2.data(), 4}};
  blas.asked = 0;
  ASSERT_TRUE(multiply_matmul_dx(blas, dx.data(), pieces, M, K));
  EXPECT_EQ(blas.asked, 2);
  for (i64 m = 0; m < M; ++m)
    for (i64 k = 0; k < K; ++k) {
      double want = 0;
      for (i64 n = 0; n < N; ++n) want += static_cast<double>(dy[m * ld + n]) * w[n * K + k];
      for (i64 n = 0; n < 4; ++n) want += static_cast<double>(dy2[m * 4 + n]) * w2[n * K + k];
      EXPECT_EQ(dx[m * K + k], want) << m << ' ' << k;
    }

  const auto g = integers<X>(M * N, 6);
  std::vector<float> dw(N * K, 9.0f);
  ASSERT_TRUE(multiply_matmul_dw(blas, dw.data(), g.data(), x.data(), M, N, K, false));
  ASSERT_TRUE(multiply_matmul_dw(blas, dw.data(), g.data(), x.data(), M, N, K, true));
  for (i64 n = 0; n < N; ++n)
    for (i64 k = 0; k < K; ++k) {
      double want = 0;
      for (i64 t = 0; t < M; ++t) want += 2 * static_cast<double>(g[t * N + n]) * x[t * K + k];
      EXPECT_EQ(dw[n * K + k], want) << n << ' ' << k;
    }
}

TEST(FastMatmul, AsksForTheRightProducts) {
  check_all<float>();
  check_all<bf16>();
}

TEST(FastMatmul, LeavesWhatIsEmptyToTheExactKernels) {
  Naive blas;
  float one = 1;
  EXPECT_FALSE(multiply_matmul(blas, &one, &one, &one, 0, 3, 3));
  EXPECT_FALSE(multiply_matmul(blas, &one, &one, &one, 3, 3, 0));
  const GradientPiece<float> none[3] = {};
  EXPECT_FALSE(multiply_matmul_dx(blas, &one, none, 1, 1));
  EXPECT_FALSE(multiply_matmul_dw(blas, &one, &one, &one, 0, 1, 1, true));
  EXPECT_EQ(blas.asked, 0);
}

}  // namespace
}  // namespace lockstep::cuda
