#include "kernels/ops.hpp"

#include <stdexcept>

#include "kernels/plain/plain.hpp"

namespace lockstep {

void no_such_mixture() {
  throw std::logic_error("a kernel is called with operands of types that it is not made for");
}

template <class Real>
Ops<Real> plain_ops() {
  Ops<Real> ops;
  plain::fill(ops);
  return ops;
}

template Ops<float> plain_ops();
template Ops<double> plain_ops();

}  // namespace lockstep
