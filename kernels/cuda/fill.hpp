// The GPU's kernels, for those who are not compiled by nvcc. `lanes` of a call must be a Queue (launch.cuh).
#pragma once
#include "kernels/ops.hpp"

namespace lockstep::cuda {

class Queue;

// The whole table, in float32 and bf16: the CPU's bits (EXACT.md). What it held is for host memory from now
// on.
void fill_exact(Ops<float>&);
// On top of that, for fast mode: sums in any order, float32 without TF32 and bf16 with float32 sums.
void fill_fast(Ops<float>&, Queue&);

// Parts of fill_fast, one file each.
void fill_fast_matmul(Ops<float>&, Queue&);
void fill_fast_attention(Ops<float>&, Queue&);
void fill_fast_rows(Ops<float>&);

}  // namespace lockstep::cuda
