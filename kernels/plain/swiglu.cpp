// Shazeer, "GLU Variants Improve Transformer" (2020), equation 5.
#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Real>
Real sigmoid(Real g) {
  return Real{1} / (Real{1} + exact_exp(-g));
}

template <class X>
void swiglu(Lanes& lanes, X* a, const X* g, const X* u, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const Wide<X> gate = g[i];
      a[i] = static_cast<X>((gate * sigmoid(gate)) * u[i]);
    }
  });
}

template <class X>
void swiglu_dx(Lanes& lanes, X* dg, X* du, const X* da, const X* g, const X* u, i64 n) {
  using Real = Wide<X>;
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const Real one = 1, grad = da[i], gate = g[i];
      const Real sg = sigmoid(gate);
      dg[i] = static_cast<X>((grad * u[i]) * (sg * (one + gate * (one - sg))));
      du[i] = static_cast<X>(grad * (gate * sg));
    }
  });
}

}  // namespace

template <class Real>
void fill_swiglu(Ops<Real>& ops) {
  ops.swiglu.call = swiglu<Real>;
  ops.swiglu_dx.call = swiglu_dx<Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<swiglu<bf16>>(ops.swiglu);
    set_mixed<swiglu_dx<bf16>>(ops.swiglu_dx);
  }
}
template void fill_swiglu(Ops<float>&);
template void fill_swiglu(Ops<double>&);

}  // namespace lockstep::plain
