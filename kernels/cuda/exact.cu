#include "kernels/cuda/fill.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/table.hpp"

namespace lockstep::cuda {
void fill_exact(Ops<float>& ops) { fill<Gpu>(ops); }
}  // namespace lockstep::cuda
