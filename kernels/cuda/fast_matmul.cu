#include "kernels/cuda/fill.hpp"

namespace lockstep::cuda {
void fill_fast_matmul(Ops<float>&) {}
}  // namespace lockstep::cuda
