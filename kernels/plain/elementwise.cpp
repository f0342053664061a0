#include <algorithm>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Y, class B>
void add(Lanes& lanes, Y* y, const Y* a, const B* b, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) y[i] = static_cast<Y>(a[i] + b[i]);
  });
}

template <class Y, class X>
void copy(Lanes& lanes, Y* y, const X* x, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) { store(x + begin, end - begin, y + begin); });
}

template <class Real>
void zero(Lanes& lanes, Real* y, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) { std::fill(y + begin, y + end, Real{0}); });
}

i64 row_grain(i64 W) { return std::max<i64>(1, kElementGrain / std::max<i64>(1, W)); }

template <class X>
void swap_axes(Lanes& lanes, X* y, const X* x, i64 B, i64 M, i64 N, i64 W) {
  lanes.split(B * M * N, row_grain(W), [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {  // of x
      const i64 n = i % N, m = i / N % M, b = i / (M * N);
      std::copy_n(x + i * W, W, y + ((b * N + n) * M + m) * W);
    }
  });
}

template <class X>
void repeat_rows(Lanes& lanes, X* y, const X* x, i64 N, i64 R, i64 W) {
  lanes.split(N * R, row_grain(W), [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) std::copy_n(x + i / R * W, W, y + i * W);
  });
}

template <class X>
void sum_rows(Lanes& lanes, X* y, const X* x, i64 N, i64 R, i64 W) {
  lanes.split(N * W, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const X* row = x + i / W * R * W + i % W;
      y[i] = static_cast<X>(tree_sum(0, R, [&](i64 r) { return Wide<X>{row[r * W]}; }));
    }
  });
}

}  // namespace

template <class Real>
void fill_elementwise(Ops<Real>& ops) {
  ops.add.call = add<Real, Real>;
  ops.copy.call = copy<Real, Real>;
  ops.zero.call = zero<Real>;
  ops.swap_axes.call = swap_axes<Real>;
  ops.repeat_rows.call = repeat_rows<Real>;
  ops.sum_rows.call = sum_rows<Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<add<bf16, bf16>, add<bf16, float>>(ops.add);
    set_mixed<copy<bf16, float>, copy<float, bf16>>(ops.copy);
    set_mixed<swap_axes<bf16>>(ops.swap_axes);
    set_mixed<repeat_rows<bf16>>(ops.repeat_rows);
    set_mixed<sum_rows<bf16>>(ops.sum_rows);
  }
}
template void fill_elementwise(Ops<float>&);
template void fill_elementwise(Ops<double>&);

}  // namespace lockstep::plain
