#include "kernels/cuda/fill.hpp"

namespace lockstep::cuda {
void fill_fast(Ops<float>& ops, Queue& queue) {
  fill_fast_matmul(ops, queue);
  fill_fast_attention(ops, queue);
  fill_fast_rows(ops);
}
}  // namespace lockstep::cuda
