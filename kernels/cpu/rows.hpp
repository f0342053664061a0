// RMSNorm (Zhang and Sennrich, 2019, equation 4) and rotary embedding (Su et al., "RoFormer", 2021,
// section 3.2.2, rotate-half form): a few passes over each row.
#pragma once
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/vec_math.hpp"
#include "kernels/ops.hpp"

namespace lockstep::simd {

// f(i, mask) for every vector of a row of n.
template <class V, class F>
LOCKSTEP_INLINE void for_row(i64 n, F&& f) {
  i64 i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) f(i, V::first(V::kWidth));
  if (i < n) f(i, V::first(n - i));
}

template <class V, class X>
void rms_norm(Lanes& lanes, X* y, float* rstd, const X* x, const X* w, i64 M, i64 D, double eps) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const X* row = x + m * D;
      const float mean = lane_dot<V>(row, row, D) / static_cast<float>(D);
      const float rs = 1.0f / __builtin_sqrtf(mean + static_cast<float>(eps));
      rstd[m] = rs;
      for_row<V>(D, [&](i64 d, typename V::Mask k) {
        (V::load(w + d, k) * (V::load(row + d, k) * V::all(rs))).store(y + m * D + d, k);
      });
    }
  });
}

template <class V, class X, class Dy>
void rms_norm_dx(Lanes& lanes, X* dx, const Dy* dy, const X* x, const float* rstd, const X* w, i64 M, i64 D) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const V rs = V::all(rstd[m]);
      const auto g = [&](i64 d, typename V::Mask k) {
        return V::load(dy + m * D + d, k) * V::load(w + d, k);
      };
      const auto xhat = [&](i64 d, typename V::Mask k) { return V::load(x + m * D + d, k) * rs; };
      Lanes16<V> c;
      for_lanes16<V>(
          D, [&](i64 d, int j, typename V::Mask k) { c.lane[j] = V::fma(g(d, k), xhat(d, k), c.lane[j]); });
      const V mean = V::all(c.total() / static_cast<float>(D));
      for_row<V>(D, [&](i64 d, typename V::Mask k) {
        (rs * (g(d, k) - xhat(d, k) * mean)).store(dx + m * D + d, k);
      });
    }
  });
}

// Four vectors of columns at a time; subtrees over chunks wait on a stack in scratch.
template <class V, class X, class Dy>
void rms_norm_dw(Lanes& lanes, float* dw, const Dy* dy, const X* x, const float* rstd, i64 T, i64 D,
                 i64 leaves, bool add) {
  constexpr int kVectors = 4;
  constexpr i64 kCols = kVectors * V::kWidth;
  lanes.split(D, 16, [&](i64 begin, i64 end, int lane) {
    float* stack = static_cast<float*>(lanes.scratch(lane));
    for (i64 d = begin; d < end; d += kCols) {
      typename V::Mask mask[kVectors];
      for (int j = 0; j < kVectors; ++j) mask[j] = V::first(end - d - j * V::kWidth);
      float* top = stack;
      for (i64 r = 0; r < leaves; ++r) {
        V sum[kVectors];
        for (V& s : sum) s = V::zero();
        for (i64 t = leaf_begin(r, T, leaves); t < leaf_begin(r + 1, T, leaves); ++t)
#pragma GCC unroll 4
          for (int j = 0; j < kVectors; ++j) {
            const i64 at = t * D + d + j * V::kWidth;
            V xhat = V::load(x + at, mask[j]) * V::all(rstd[t]);
            sum[j] = V::fma(V::load(dy + at, mask[j]), xhat, sum[j]);
          }
        for (int n = merges_after(r, leaves); n > 0; --n) {
          top -= kCols;
          for (int j = 0; j < kVectors; ++j) sum[j] = V::load(top + j * V::kWidth) + sum[j];
        }
        for (int j = 0; j < kVectors; ++j) sum[j].store(top + j * V::kWidth);
        top += kCols;
      }
      for (int j = 0; j < kVectors; ++j) {
        float* out = dw + d + j * V::kWidth;
        V sum = V::load(stack + j * V::kWidth);
        (add ? V::load(out, mask[j]) + sum : sum).store(out, mask[j]);
      }
    }
  });
}

template <class V, class X>
void rope(Lanes& lanes, X* x, const float* cos, const float* sin, i64 M, i64 T, i64 heads, i64 hd,
          bool inverse) {
  const i64 half = hd / 2;
  const V sign = V::all(inverse ? -1.0f : 1.0f);
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m)
      for (i64 h = 0; h < heads; ++h) {
        X* low = x + (m * heads + h) * hd;
        X* high = low + half;
        const i64 at = m % T * half;
        for_row<V>(half, [&](i64 j, typename V::Mask k) {
          V c = V::load(cos + at + j, k), s = sign * V::load(sin + at + j, k);
          V a = V::load(low + j, k), b = V::load(high + j, k);
          V::fnma(b, s, a * c).store(low + j, k);
          V::fma(a, s, b * c).store(high + j, k);
        });
      }
  });
}

}  // namespace lockstep::simd
