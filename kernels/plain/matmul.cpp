#include <algorithm>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Y, class X>
void matmul(Lanes& lanes, Y* y, const X* x, const X* w, i64 M, i64 N, i64 K, i64 leaves) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m)
      for (i64 n = 0; n < N; ++n)
        y[m * N + n] = static_cast<Y>(tree_sum(0, leaves, [&](i64 r) {
          const i64 lo = leaf_begin(r, K, leaves), hi = leaf_begin(r + 1, K, leaves);
          return dot(x + m * K + lo, w + n * K + lo, hi - lo);
        }));
  });
}

// acc[0..width) = chain on from acc, over the columns n of leaf r of one piece, of dy[n] * w[n, ...]
template <class Real, class W>
void continue_leaf(Real* acc, i64 width, const W* dy, const W* w, i64 N, i64 K, i64 r, i64 leaves) {
  for (i64 n = leaf_begin(r, N, leaves); n < leaf_begin(r + 1, N, leaves); ++n)
    for (i64 k = 0; k < width; ++k) acc[k] = std::fma(Real{dy[n]}, Real{w[n * K + k]}, acc[k]);
}

template <class X, class W>
void matmul_dx(Lanes& lanes, X* dx, const W* dy0, i64 ld0, const W* w0, i64 N0, const W* dy1, i64 ld1,
               const W* w1, i64 N1, const W* dy2, i64 ld2, const W* w2, i64 N2, i64 M, i64 K, i64 leaves) {
  using Real = Wide<W>;
  lanes.split(M, 1, [&](i64 begin, i64 end, int lane) {
    Real* sum = scratch<Real>(lanes, lane);
    for (i64 m = begin; m < end; ++m)
      for (i64 k = 0; k < K; k += kBlock) {
        const i64 width = std::min(kBlock, K - k);
        tree_rows(0, leaves, width, sum, sum + kBlock, [&](i64 r, Real* acc) {
          std::fill_n(acc, width, Real{0});
          if (N0) continue_leaf(acc, width, dy0 + m * ld0, w0 + k, N0, K, r, leaves);
          if (N1) continue_leaf(acc, width, dy1 + m * ld1, w1 + k, N1, K, r, leaves);
          if (N2) continue_leaf(acc, width, dy2 + m * ld2, w2 + k, N2, K, r, leaves);
        });
        store(sum, width, dx + m * K + k);
      }
  });
}

template <class Real, class X>
void matmul_dw(Lanes& lanes, Real* dw, const X* dy, const X* x, i64 T, i64 N, i64 K, bool add) {
  lanes.split(N, 1, [&](i64 begin, i64 end, int lane) {
    Real* acc = scratch<Real>(lanes, lane);
    for (i64 n = begin; n < end; ++n)
      for (i64 k = 0; k < K; k += kBlock) {
        const i64 width = std::min(kBlock, K - k);
        Real* out = dw + n * K + k;
        std::fill_n(acc, width, Real{0});
        for (i64 t = 0; t < T; ++t)
          for (i64 j = 0; j < width; ++j)
            acc[j] = std::fma(Real{dy[t * N + n]}, Real{x[t * K + k + j]}, acc[j]);
        for (i64 j = 0; j < width; ++j) out[j] = add ? out[j] + acc[j] : acc[j];
      }
  });
}

}  // namespace

template <class Real>
void fill_matmul(Ops<Real>& ops) {
  ops.matmul.call = matmul<Real, Real>;
  ops.matmul_dx.call = matmul_dx<Real, Real>;
  ops.matmul_dw.call = matmul_dw<Real, Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<matmul<bf16, bf16>, matmul<float, bf16>>(ops.matmul);
    set_mixed<matmul_dx<bf16, bf16>, matmul_dx<float, bf16>>(ops.matmul_dx);
    set_mixed<matmul_dw<float, bf16>>(ops.matmul_dw);
  }
}
template void fill_matmul(Ops<float>&);
template void fill_matmul(Ops<double>&);

}  // namespace lockstep::plain
