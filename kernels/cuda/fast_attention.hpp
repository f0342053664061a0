// Between fast mode's attention and kernels that are compiled apart.
#pragma once
#include "kernels/cuda/flash.hpp"

namespace lockstep::cuda {

// Each set: whether this device is one that they run on, for which heads; if so, they are ready. Then as
// flash_attention and flash_attention_dx (flash.hpp).
bool prepare_hopper();
bool hopper_attention(Lanes&, bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v, i64 B, i64 T,
                      i64 H, i64 K, i64 hd);
bool hopper_attention_dx(Lanes&, bf16* dq, bf16* dk, bf16* dv, const bf16* dO, const bf16* q, const bf16* k,
                         const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd);
bool hopper_attention_dx(Lanes&, bf16* dq, float* dk, float* dv, const bf16* dO, const bf16* q, const bf16* k,
                         const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd);

Heads prepare_float();
bool float_attention(Lanes&, float* o, float* lse, const float* q, const float* k, const float* v, i64 B,
                     i64 T, i64 H, i64 K, i64 hd);
bool float_attention_dx(Lanes&, float* dq, float* dk, float* dv, const float* dO, const float* q,
                        const float* k, const float* v, const float* o, const float* lse, i64 B, i64 T, i64 H,
                        i64 K, i64 hd);

}  // namespace lockstep::cuda
