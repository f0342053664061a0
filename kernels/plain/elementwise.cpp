#include <algorithm>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Real>
void add(Lanes& lanes, Real* y, const Real* a, const Real* b, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) y[i] = a[i] + b[i];
  });
}

template <class Real>
void scale(Lanes& lanes, Real* y, Real s, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) y[i] = y[i] * s;
  });
}

template <class Real>
void copy(Lanes& lanes, Real* y, const Real* x, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) { std::copy(x + begin, x + end, y + begin); });
}

template <class Real>
void zero(Lanes& lanes, Real* y, i64 n) {
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int) { std::fill(y + begin, y + end, Real{0}); });
}

}  // namespace

template <class Real>
void fill_elementwise(Ops<Real>& ops) {
  ops.add.call = add<Real>;
  ops.scale.call = scale<Real>;
  ops.copy.call = copy<Real>;
  ops.zero.call = zero<Real>;
}
template void fill_elementwise(Ops<float>&);
template void fill_elementwise(Ops<double>&);

}  // namespace lockstep::plain
