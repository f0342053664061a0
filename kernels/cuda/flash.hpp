// How fast attention is launched. `Kernels` names three: Forward<kHead>, QueryGradient<kHead> and
// KeyGradient<kHead, Y>, whose results are of type Y; On::launch(lanes, kernel, blocks) starts one.
#pragma once
#include "kernels/cuda/attention.hpp"

namespace lockstep::cuda {

// Sizes of heads that a device runs a set of these kernels for.
struct Heads {
  bool of_64 = false, of_128 = false;
  bool has(i64 hd) const { return hd == 64 ? of_64 : hd == 128 && of_128; }
  bool all() const { return of_64 && of_128; }
};

// Not other heads, nor rows that are not aligned to 16 bytes.
template <class... P>
bool flash_takes(i64 hd, const P*... rows) {
  return (hd == 64 || hd == 128) && ((reinterpret_cast<std::uintptr_t>(rows) % 16 == 0) && ...);
}

// Before the first launch on a device: which of them it can run. Others need more shared memory than it has.
template <class On, class Kernels, int kHead, class... Y>
bool prepare_head() {
  return On::template prepare<typename Kernels::template Forward<kHead>>() &&
         On::template prepare<typename Kernels::template QueryGradient<kHead>>() &&
         (On::template prepare<typename Kernels::template KeyGradient<kHead, Y>>() && ...);
}
template <class On, class Kernels, class... Y>
Heads prepare_flash() {
  return {prepare_head<On, Kernels, 64, Y...>(), prepare_head<On, Kernels, 128, Y...>()};
}

// Both: false where no kernel takes this.
template <class On, class Kernels, class X>
bool flash_attention(Lanes& lanes, X* o, float* lse, const X* q, const X* k, const X* v, i64 B, i64 T, i64 H,
                     i64 K, i64 hd) {
  if (!flash_takes(hd, o, q, k, v)) return false;
  const AttentionShape s{B, T, H, K, hd};
  const auto with = [&]<int kHead>() {
    const typename Kernels::template Forward<kHead> kernel{o, lse, q, k, v, s, attention_scale<float>(hd)};
    if (kernel.blocks() > 0) On::launch(lanes, kernel, kernel.blocks());
  };
  hd == 64 ? with.template operator()<64>() : with.template operator()<128>();
  return true;
}
template <class On, class Kernels, class X, class Y>
bool flash_attention_dx(Lanes& lanes, X* dq, Y* dk, Y* dv, const X* dO, const X* q, const X* k, const X* v,
                        const X* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd) {
  if (!flash_takes(hd, dq, dk, dv, dO, q, k, v, o)) return false;
  const AttentionOperands<X> in{dO, q, k, v, o, lse, {B, T, H, K, hd}, attention_scale<float>(hd)};
  const auto with = [&]<int kHead>() {
    const typename Kernels::template QueryGradient<kHead> by_query{dq, in};
    const typename Kernels::template KeyGradient<kHead, Y> by_key{dk, dv, in};
    if (by_query.blocks() < 1) return;
    On::launch(lanes, by_query, by_query.blocks());
    On::launch(lanes, by_key, by_key.blocks());
  };
  hd == 64 ? with.template operator()<64>() : with.template operator()<128>();
  return true;
}

}  // namespace lockstep::cuda
