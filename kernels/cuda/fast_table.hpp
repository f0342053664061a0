// Fast mode's entries of the table: the fast kernel where it takes the operands, else what the table held
// before.
#pragma once
#include "kernels/cuda/fast_elements.hpp"
#include "kernels/cuda/fast_rows.hpp"
#include "kernels/plain/mixed.hpp"

namespace lockstep::cuda::fast {

inline Ops<float> slower;  // what the table held

template <auto member, auto kernel, class Kernel = decltype(kernel)>
struct Entry;
template <auto member, auto kernel, class... A>
struct Entry<member, kernel, bool (*)(Lanes&, A...)> {
  static void call(Lanes& lanes, A... a) {
    if (!kernel(lanes, a...)) (slower.*member)(lanes, a...);
  }
};
template <auto member, auto kernel>
void set(Ops<float>& ops) {
  (ops.*member).call = Entry<member, kernel>::call;
}
template <auto member, auto... kernels>
void set_mixed(Ops<float>& ops) {
  plain::set_mixed<Entry<member, kernels>::call...>(ops.*member);
}

// Left to the exact kernels: embed, embed_dw, ce_loss, zero, swap_axes, repeat_rows and sum_rows.
template <class On>
void fill_rows(Ops<float>& ops) {
  using O = Ops<float>;
  slower = ops;
  set<&O::add, add<On, float, float>>(ops);
  set_mixed<&O::add, add<On, bf16, bf16>, add<On, bf16, float>>(ops);
  set<&O::copy, copy<On, float, float>>(ops);
  set_mixed<&O::copy, copy<On, bf16, float>, copy<On, float, bf16>>(ops);
  set<&O::swiglu, swiglu<On, float>>(ops);
  set_mixed<&O::swiglu, swiglu<On, bf16>>(ops);
  set<&O::swiglu_dx, swiglu_dx<On, float>>(ops);
  set_mixed<&O::swiglu_dx, swiglu_dx<On, bf16>>(ops);
  set<&O::rope, rope<On, float>>(ops);
  set_mixed<&O::rope, rope<On, bf16>>(ops);
  set<&O::adamw, adamw<On>>(ops);
  set<&O::rms_norm, rms_norm<On, float>>(ops);
  set_mixed<&O::rms_norm, rms_norm<On, bf16>>(ops);
  set<&O::rms_norm_dx, rms_norm_dx<On, float, float>>(ops);
  set_mixed<&O::rms_norm_dx, rms_norm_dx<On, bf16, bf16>, rms_norm_dx<On, bf16, float>>(ops);
  set<&O::rms_norm_dw, rms_norm_dw<On, float, float>>(ops);
  set_mixed<&O::rms_norm_dw, rms_norm_dw<On, bf16, bf16>, rms_norm_dw<On, bf16, float>>(ops);
  set<&O::ce_max, ce_max<On, float>>(ops);
  set_mixed<&O::ce_max, ce_max<On, bf16>>(ops);
  set<&O::ce_sum, ce_sum<On, float>>(ops);
  set_mixed<&O::ce_sum, ce_sum<On, bf16>>(ops);
  set<&O::ce_dx, ce_dx<On, float>>(ops);
  set_mixed<&O::ce_dx, ce_dx<On, bf16>>(ops);
  set<&O::add_squares, add_squares<On>>(ops);
}

}  // namespace lockstep::cuda::fast
