#include "kernels/ops.hpp"

#include "kernels/plain/plain.hpp"

namespace lockstep {

template <class Real>
Ops<Real> plain_ops() {
  Ops<Real> ops;
  plain::fill_matmul(ops);
  plain::fill_embed(ops);
  plain::fill_norm(ops);
  plain::fill_rope(ops);
  plain::fill_attention(ops);
  plain::fill_swiglu(ops);
  plain::fill_cross_entropy(ops);
  plain::fill_elementwise(ops);
  plain::fill_squares(ops);
  plain::fill_adamw(ops);
  return ops;
}

template Ops<float> plain_ops();
template Ops<double> plain_ops();

}  // namespace lockstep
