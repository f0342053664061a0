// Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.
#include <algorithm>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Real, class X>
void rms_norm(Lanes& lanes, X* y, Real* rstd, const X* x, const X* w, i64 M, i64 D, double eps) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const X* row = x + m * D;
      LaneSum<Real> squares;
      for (i64 d = 0; d < D; ++d) squares.add_product(d, row[d], row[d]);
      const Real rs = Real{1} / std::sqrt(squares.total() / static_cast<Real>(D) + static_cast<Real>(eps));
      rstd[m] = rs;
      for (i64 d = 0; d < D; ++d) y[m * D + d] = static_cast<X>(w[d] * (row[d] * rs));
    }
  });
}

template <class Real, class X, class Dy>
void rms_norm_dx(Lanes& lanes, X* dx, const Dy* dy, const X* x, const Real* rstd, const X* w, i64 M, i64 D) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const auto g = [&](i64 d) { return dy[m * D + d] * w[d]; };
      const auto xhat = [&](i64 d) { return x[m * D + d] * rstd[m]; };
      LaneSum<Real> c;
      for (i64 d = 0; d < D; ++d) c.add_product(d, g(d), xhat(d));
      const Real mean = c.total() / static_cast<Real>(D);
      for (i64 d = 0; d < D; ++d) dx[m * D + d] = static_cast<X>(rstd[m] * (g(d) - xhat(d) * mean));
    }
  });
}

template <class Real, class X, class Dy>
void rms_norm_dw(Lanes& lanes, Real* dw, const Dy* dy, const X* x, const Real* rstd, i64 T, i64 D, i64 leaves,
                 bool add) {
  lanes.split(D, kColumnGrain, [&](i64 begin, i64 end, int lane) {
    Real* sum = scratch<Real>(lanes, lane);
    for (i64 d = begin; d < end; d += kBlock) {
      const i64 width = std::min(kBlock, end - d);
      tree_rows(0, leaves, width, sum, sum + width, [&](i64 r, Real* acc) {
        std::fill_n(acc, width, Real{0});
        for (i64 t = leaf_begin(r, T, leaves); t < leaf_begin(r + 1, T, leaves); ++t)
          for (i64 j = 0; j < width; ++j) {
            const Real xhat = x[t * D + d + j] * rstd[t];
            acc[j] = std::fma(Real{dy[t * D + d + j]}, xhat, acc[j]);
          }
      });
      for (i64 j = 0; j < width; ++j) dw[d + j] = add ? dw[d + j] + sum[j] : sum[j];
    }
  });
}

}  // namespace

template <class Real>
void fill_norm(Ops<Real>& ops) {
  ops.rms_norm.call = rms_norm<Real, Real>;
  ops.rms_norm_dx.call = rms_norm_dx<Real, Real, Real>;
  ops.rms_norm_dw.call = rms_norm_dw<Real, Real, Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<rms_norm<float, bf16>>(ops.rms_norm);
    set_mixed<rms_norm_dx<float, bf16, bf16>, rms_norm_dx<float, bf16, float>>(ops.rms_norm_dx);
    set_mixed<rms_norm_dw<float, bf16, bf16>, rms_norm_dw<float, bf16, float>>(ops.rms_norm_dw);
  }
}
template void fill_norm(Ops<float>&);
template void fill_norm(Ops<double>&);

}  // namespace lockstep::plain
