// What a set of vector kernels overrides. Entries it leaves alone move memory or touch a number per row.
#pragma once
#include "kernels/cpu/attention_dx.hpp"
#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/rows.hpp"
#include "kernels/cpu/squares.hpp"
#include "kernels/plain/mixed.hpp"

namespace lockstep::simd {

template <class V>
void apply_float(Ops<float>& ops) {
  ops.matmul.call = matmul<V, float, float>;
  ops.matmul_dx.call = matmul_dx<V, float, float>;
  ops.matmul_dw.call = matmul_dw<V, float>;
  ops.rms_norm.call = rms_norm<V, float>;
  ops.rms_norm_dx.call = rms_norm_dx<V, float, float>;
  ops.rms_norm_dw.call = rms_norm_dw<V, float, float>;
  ops.rope.call = rope<V, float>;
  ops.attention.call = attention<V, float>;
  ops.attention_dx.call = attention_dx<V, float, float>;
  ops.swiglu.call = swiglu<V, float>;
  ops.swiglu_dx.call = swiglu_dx<V, float>;
  ops.ce_max.call = ce_max<V, float>;
  ops.ce_sum.call = ce_sum<V, float>;
  ops.ce_dx.call = ce_dx<V, float>;
  ops.add.call = add<V, float, float>;
  ops.add_squares.call = add_squares<V>;
  ops.adamw.call = adamw<V>;
}

template <class V>
void apply_bf16(Ops<float>& ops) {
  using plain::set_mixed;
  set_mixed<matmul<V, bf16, bf16>, matmul<V, float, bf16>>(ops.matmul);
  set_mixed<matmul_dx<V, bf16, bf16>, matmul_dx<V, float, bf16>>(ops.matmul_dx);
  set_mixed<matmul_dw<V, bf16>>(ops.matmul_dw);
  set_mixed<rms_norm<V, bf16>>(ops.rms_norm);
  set_mixed<rms_norm_dx<V, bf16, bf16>, rms_norm_dx<V, bf16, float>>(ops.rms_norm_dx);
  set_mixed<rms_norm_dw<V, bf16, bf16>, rms_norm_dw<V, bf16, float>>(ops.rms_norm_dw);
  set_mixed<rope<V, bf16>>(ops.rope);
  set_mixed<attention<V, bf16>>(ops.attention);
  set_mixed<attention_dx<V, bf16, bf16>, attention_dx<V, bf16, float>>(ops.attention_dx);
  set_mixed<swiglu<V, bf16>>(ops.swiglu);
  set_mixed<swiglu_dx<V, bf16>>(ops.swiglu_dx);
  set_mixed<ce_max<V, bf16>>(ops.ce_max);
  set_mixed<ce_sum<V, bf16>>(ops.ce_sum);
  set_mixed<ce_dx<V, bf16>>(ops.ce_dx);
  set_mixed<add<V, bf16, bf16>, add<V, bf16, float>>(ops.add);
  set_mixed<copy<V, bf16, float>, copy<V, float, bf16>>(ops.copy);
}

template <class V>
void apply(Ops<float>& ops) {
  Fallback<V>::attention = ops.attention;
  Fallback<V>::attention_dx = ops.attention_dx;
  apply_float<V>(ops);
  apply_bf16<V>(ops);
}

}  // namespace lockstep::simd
