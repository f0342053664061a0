// The GPU's kernels, for those who are not compiled by nvcc. `lanes` of a call must be a Queue (launch.cuh).
#pragma once
#include "kernels/ops.hpp"

namespace lockstep::cuda {
void fill_exact(Ops<float>&);
}
