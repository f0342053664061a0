#include "kernels/cuda/fast_table.hpp"
#include "kernels/cuda/fill.hpp"
#include "kernels/cuda/launch.cuh"

namespace lockstep::cuda {
void fill_fast_rows(Ops<float>& ops) { fast::fill_rows<Gpu>(ops); }
}  // namespace lockstep::cuda
