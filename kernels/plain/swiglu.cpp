// Shazeer, "GLU Variants Improve Transformer" (2020), equation 5.
#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Real>
Real sigmoid(Real g) {
  return Real{1} / (Real{1} + exact_exp(-g));
}

template <class Real>
void swiglu(Lanes& lanes, Real* a, const Real* g, const Real* u, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) a[i] = (g[i] * sigmoid(g[i])) * u[i];
  });
}

template <class Real>
void swiglu_dx(Lanes& lanes, Real* dg, Real* du, const Real* da, const Real* g, const Real* u, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const Real one = 1, grad = da[i], gate = g[i];
      const Real sg = sigmoid(gate);
      dg[i] = (grad * u[i]) * (sg * (one + gate * (one - sg)));
      du[i] = grad * (gate * sg);
    }
  });
}

}  // namespace

template <class Real>
void fill_swiglu(Ops<Real>& ops) {
  ops.swiglu.call = swiglu<Real>;
  ops.swiglu_dx.call = swiglu_dx<Real>;
}
template void fill_swiglu(Ops<float>&);
template void fill_swiglu(Ops<double>&);

}  // namespace lockstep::plain
