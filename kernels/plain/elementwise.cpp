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

}  // namespace

template <class Real>
void fill_elementwise(Ops<Real>& ops) {
  ops.add.call = add<Real, Real>;
  ops.copy.call = copy<Real, Real>;
  ops.zero.call = zero<Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<add<bf16, bf16>, add<bf16, float>>(ops.add);
    set_mixed<copy<bf16, float>, copy<float, bf16>>(ops.copy);
  }
}
template void fill_elementwise(Ops<float>&);
template void fill_elementwise(Ops<double>&);

}  // namespace lockstep::plain
