// Between fast mode's attention and its kernels for Hopper.
#pragma once
#include "kernels/ops.hpp"

namespace lockstep::cuda {

// Whether this device is one that they run on; if so, they are ready.
bool prepare_hopper();
// As flash_attention and flash_attention_dx (flash_backward.hpp).
bool hopper_attention(Lanes&, bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v, i64 B, i64 T,
                      i64 H, i64 K, i64 hd);
bool hopper_attention_dx(Lanes&, bf16* dq, bf16* dk, bf16* dv, const bf16* dO, const bf16* q, const bf16* k,
                         const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd);
bool hopper_attention_dx(Lanes&, bf16* dq, float* dk, float* dv, const bf16* dO, const bf16* q, const bf16* k,
                         const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd);

}  // namespace lockstep::cuda
