// Fast mode's attention, for heads of 64 and 128; for others, and on a device with too little shared memory,
// the exact kernels.
#include <cstdlib>

#include "kernels/cuda/fast_attention.hpp"
#include "kernels/cuda/fill.hpp"
#include "kernels/cuda/flash.hpp"
#include "kernels/cuda/flash_backward.hpp"
#include "kernels/cuda/warp.cuh"
#include "kernels/plain/mixed.hpp"

namespace lockstep::cuda {

// Which kernels a rank's device runs.
struct Attentions {
  Heads warps, in_float;
  bool warpgroups = false;  // Hopper's, where they are asked for: no GPU has run them yet
};

namespace {

Ops<float> exact;  // what is left to the other kernels

std::shared_ptr<const Attentions> prepare() {
  const char* variable = std::getenv("LOCKSTEP_ATTENTION");
  const std::string wish = variable ? variable : "";
  if (variable && wish != "warps" && wish != "warpgroups" && wish != "exact")
    throw std::runtime_error("device cuda: LOCKSTEP_ATTENTION is warps, warpgroups or exact, not " + wish);
  auto has = std::make_shared<Attentions>();
  if (wish == "exact") return has;
  has->warps = prepare_flash<WarpGpu, FlashKernels, bf16, float>();
  has->in_float = prepare_float();
  if (wish == "warps" && !(has->warps.all() && has->in_float.all()))
    throw std::runtime_error(
        "device cuda: LOCKSTEP_ATTENTION=warps needs a GPU whose blocks can have 161 KiB of shared memory");
  has->warpgroups = wish == "warpgroups" && prepare_hopper();
  if (wish == "warpgroups" && !has->warpgroups)
    throw std::runtime_error(
        "device cuda: LOCKSTEP_ATTENTION=warpgroups needs a GPU of compute capability 9.0");
  return has;
}

const Attentions& attentions(Lanes& lanes) { return *static_cast<Queue&>(lanes).attentions; }

void attention_bf16(Lanes& lanes, bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v, i64 B,
                    i64 T, i64 H, i64 K, i64 hd) {
  const Attentions& has = attentions(lanes);
  if (has.warpgroups && hopper_attention(lanes, o, lse, q, k, v, B, T, H, K, hd)) return;
  if (has.warps.has(hd) && flash_attention<WarpGpu, FlashKernels>(lanes, o, lse, q, k, v, B, T, H, K, hd))
    return;
  exact.attention(lanes, o, lse, q, k, v, B, T, H, K, hd);
}
template <class Y>
void attention_dx_bf16(Lanes& lanes, bf16* dq, Y* dk, Y* dv, const bf16* dO, const bf16* q, const bf16* k,
                       const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd) {
  const Attentions& has = attentions(lanes);
  if (has.warpgroups && hopper_attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd)) return;
  if (has.warps.has(hd) &&
      flash_attention_dx<WarpGpu, FlashKernels>(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd))
    return;
  exact.attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
}
void attention_in_float(Lanes& lanes, float* o, float* lse, const float* q, const float* k, const float* v,
                        i64 B, i64 T, i64 H, i64 K, i64 hd) {
  if (!attentions(lanes).in_float.has(hd) || !float_attention(lanes, o, lse, q, k, v, B, T, H, K, hd))
    exact.attention(lanes, o, lse, q, k, v, B, T, H, K, hd);
}
void attention_dx_in_float(Lanes& lanes, float* dq, float* dk, float* dv, const float* dO, const float* q,
                           const float* k, const float* v, const float* o, const float* lse, i64 B, i64 T,
                           i64 H, i64 K, i64 hd) {
  if (!attentions(lanes).in_float.has(hd) ||
      !float_attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd))
    exact.attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
}

}  // namespace

void fill_fast_attention(Ops<float>& ops, Queue& queue) {
  static const bool first = (exact = ops, true);
  static_cast<void>(first);
  queue.attentions = prepare();
  plain::set_mixed<attention_bf16>(ops.attention);
  plain::set_mixed<attention_dx_bf16<bf16>, attention_dx_bf16<float>>(ops.attention_dx);
  ops.attention.call = attention_in_float;
  ops.attention_dx.call = attention_dx_in_float;
}

}  // namespace lockstep::cuda
