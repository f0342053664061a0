#include <algorithm>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Real>
void matmul(Lanes& lanes, Real* y, const Real* x, const Real* w, i64 M, i64 N, i64 K, i64 leaves) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m)
      for (i64 n = 0; n < N; ++n)
        y[m * N + n] = tree_sum(0, leaves, [&](i64 r) {
          const i64 lo = leaf_begin(r, K, leaves), hi = leaf_begin(r + 1, K, leaves);
          return dot(x + m * K + lo, w + n * K + lo, hi - lo);
        });
  });
}

// acc[0..width) = chain on from acc, over the columns n of leaf r of one piece, of dy[n] * w[n, ...]
template <class Real>
void continue_leaf(Real* acc, i64 width, const Real* dy, const Real* w, i64 N, i64 K, i64 r, i64 leaves) {
  for (i64 n = leaf_begin(r, N, leaves); n < leaf_begin(r + 1, N, leaves); ++n)
    for (i64 k = 0; k < width; ++k) acc[k] = std::fma(dy[n], w[n * K + k], acc[k]);
}

template <class Real>
void matmul_dx(Lanes& lanes, Real* dx, const Real* dy0, i64 ld0, const Real* w0, i64 N0, const Real* dy1,
               i64 ld1, const Real* w1, i64 N1, const Real* dy2, i64 ld2, const Real* w2, i64 N2, i64 M,
               i64 K, i64 leaves) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int lane) {
    Real* spare = scratch<Real>(lanes, lane);
    for (i64 m = begin; m < end; ++m)
      for (i64 k = 0; k < K; k += kBlock) {
        const i64 width = std::min(kBlock, K - k);
        tree_rows(0, leaves, width, dx + m * K + k, spare, [&](i64 r, Real* acc) {
          std::fill_n(acc, width, Real{0});
          if (N0) continue_leaf(acc, width, dy0 + m * ld0, w0 + k, N0, K, r, leaves);
          if (N1) continue_leaf(acc, width, dy1 + m * ld1, w1 + k, N1, K, r, leaves);
          if (N2) continue_leaf(acc, width, dy2 + m * ld2, w2 + k, N2, K, r, leaves);
        });
      }
  });
}

template <class Real>
void matmul_dw(Lanes& lanes, Real* dw, const Real* dy, const Real* x, i64 T, i64 N, i64 K, bool add) {
  lanes.split(N, 1, [&](i64 begin, i64 end, int lane) {
    Real* acc = scratch<Real>(lanes, lane);
    for (i64 n = begin; n < end; ++n)
      for (i64 k = 0; k < K; k += kBlock) {
        const i64 width = std::min(kBlock, K - k);
        Real* out = dw + n * K + k;
        std::fill_n(acc, width, Real{0});
        for (i64 t = 0; t < T; ++t)
          for (i64 j = 0; j < width; ++j) acc[j] = std::fma(dy[t * N + n], x[t * K + k + j], acc[j]);
        for (i64 j = 0; j < width; ++j) out[j] = add ? out[j] + acc[j] : acc[j];
      }
  });
}

}  // namespace

template <class Real>
void fill_matmul(Ops<Real>& ops) {
  ops.matmul.call = matmul<Real>;
  ops.matmul_dx.call = matmul_dx<Real>;
  ops.matmul_dw.call = matmul_dw<Real>;
}
template void fill_matmul(Ops<float>&);
template void fill_matmul(Ops<double>&);

}  // namespace lockstep::plain
