// Fast mode's attention in bf16, for heads of 64 and 128; for others, and in float32, the exact kernels.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/fast_attention.hpp"
#include "kernels/cuda/fill.hpp"
#include "kernels/cuda/flash_backward.hpp"
#include "kernels/cuda/warp.cuh"
#include "kernels/plain/mixed.hpp"

namespace lockstep::cuda {
namespace {

Ops<float> exact;  // what is left to the other kernels
// Hopper's kernels, where they are asked for: no GPU has run them yet. Every rank's table says the same.
std::atomic<bool> on_warpgroups = false;

void attention_bf16(Lanes& lanes, bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v, i64 B,
                    i64 T, i64 H, i64 K, i64 hd) {
  if (on_warpgroups && hopper_attention(lanes, o, lse, q, k, v, B, T, H, K, hd)) return;
  if (!flash_attention<WarpGpu>(lanes, o, lse, q, k, v, B, T, H, K, hd))
    exact.attention(lanes, o, lse, q, k, v, B, T, H, K, hd);
}
template <class Y>
void attention_dx_bf16(Lanes& lanes, bf16* dq, Y* dk, Y* dv, const bf16* dO, const bf16* q, const bf16* k,
                       const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd) {
  if (on_warpgroups && hopper_attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd)) return;
  if (!flash_attention_dx<WarpGpu>(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd))
    exact.attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
}

}  // namespace

void fill_fast_attention(Ops<float>& ops) {
  static const bool first = (exact = ops, true);
  static_cast<void>(first);
  prepare_flash<WarpGpu, FlashKernels, 64>(), prepare_flash<WarpGpu, FlashKernels, 128>();
  if (const char* wish = std::getenv("LOCKSTEP_ATTENTION")) {
    on_warpgroups = std::strcmp(wish, "warpgroups") == 0 && prepare_hopper();
    if (!on_warpgroups) {
      static const int said = std::fputs(
          "device cuda: LOCKSTEP_ATTENTION may be warpgroups, on a Hopper GPU; attention runs on warps\n",
          stderr);
      static_cast<void>(said);
    }
  } else {
    on_warpgroups = false;
  }
  plain::set_mixed<attention_bf16>(ops.attention);
  plain::set_mixed<attention_dx_bf16<bf16>, attention_dx_bf16<float>>(ops.attention_dx);
}

}  // namespace lockstep::cuda
