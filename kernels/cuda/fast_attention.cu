// Fast mode's attention in bf16, for heads of 64 and 128; for others, and in float32, the exact kernels.
#include <atomic>
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

bool warpgroups_wished() {
  const char* wish = std::getenv("LOCKSTEP_ATTENTION");
  if (!wish || std::strcmp(wish, "warps") == 0) return false;
  if (std::strcmp(wish, "warpgroups") != 0)
    throw std::runtime_error("device cuda: LOCKSTEP_ATTENTION is warps or warpgroups, not " +
                             std::string(wish));
  if (!prepare_hopper())
    throw std::runtime_error(
        "device cuda: LOCKSTEP_ATTENTION=warpgroups needs a GPU of compute capability 9.0");
  return true;
}

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
  on_warpgroups = warpgroups_wished();
  plain::set_mixed<attention_bf16>(ops.attention);
  plain::set_mixed<attention_dx_bf16<bf16>, attention_dx_bf16<float>>(ops.attention_dx);
}

}  // namespace lockstep::cuda
