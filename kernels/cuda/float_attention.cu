// Fast mode's attention in float32.
#include "kernels/cuda/fast_attention.hpp"
#include "kernels/cuda/flash.hpp"
#include "kernels/cuda/flash_float_backward.hpp"
#include "kernels/cuda/warp.cuh"

namespace lockstep::cuda {

Heads prepare_float() { return prepare_flash<WarpGpu, FloatKernels, float>(); }

bool float_attention(Lanes& lanes, float* o, float* lse, const float* q, const float* k, const float* v,
                     i64 B, i64 T, i64 H, i64 K, i64 hd) {
  return flash_attention<WarpGpu, FloatKernels>(lanes, o, lse, q, k, v, B, T, H, K, hd);
}
bool float_attention_dx(Lanes& lanes, float* dq, float* dk, float* dv, const float* dO, const float* q,
                        const float* k, const float* v, const float* o, const float* lse, i64 B, i64 T, i64 H,
                        i64 K, i64 hd) {
  return flash_attention_dx<WarpGpu, FloatKernels>(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
}

}  // namespace lockstep::cuda
