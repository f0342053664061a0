#include "kernels/ops.hpp"

#include "kernels/plain/plain.hpp"

namespace lockstep {

template <class Real>
Ops<Real> plain_ops() {
  Ops<Real> ops;
  plain::fill(ops);
  return ops;
}

template Ops<float> plain_ops();
template Ops<double> plain_ops();

}  // namespace lockstep
