// Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Real>
void adamw(Lanes& lanes, Real* w, Real* m, Real* v, const Real* g, i64 n, Real clip, AdamWStep<Real> step) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const Real grad = clip * g[i];
      m[i] = step.b1 * m[i] + step.c1 * grad;
      v[i] = step.b2 * v[i] + (step.c2 * grad) * grad;
      const Real d = std::sqrt(v[i]) / step.root_bias2 + step.eps;
      w[i] = w[i] * step.keep - step.rate * (m[i] / d);
    }
  });
}

}  // namespace

template <class Real>
void fill_adamw(Ops<Real>& ops) {
  ops.adamw.call = adamw<Real>;
}
template void fill_adamw(Ops<float>&);
template void fill_adamw(Ops<double>&);

}  // namespace lockstep::plain
