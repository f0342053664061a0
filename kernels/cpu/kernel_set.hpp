// What a set of vector kernels overrides. Entries it leaves alone move memory or touch a number per row.
#pragma once
#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/rows.hpp"
#include "kernels/cpu/squares.hpp"

namespace lockstep::simd {

template <class V>
void apply(Ops<float>& ops) {
  Fallback<V>::attention = ops.attention.call;
  Fallback<V>::attention_dx = ops.attention_dx.call;
  ops.matmul.call = matmul<V>;
  ops.matmul_dx.call = matmul_dx<V>;
  ops.matmul_dw.call = matmul_dw<V>;
  ops.rms_norm.call = rms_norm<V>;
  ops.rms_norm_dx.call = rms_norm_dx<V>;
  ops.rms_norm_dw.call = rms_norm_dw<V>;
  ops.rope.call = rope<V>;
  ops.attention.call = attention<V>;
  ops.attention_dx.call = attention_dx<V>;
  ops.swiglu.call = swiglu<V>;
  ops.swiglu_dx.call = swiglu_dx<V>;
  ops.ce_max.call = ce_max<V>;
  ops.ce_sum.call = ce_sum<V>;
  ops.ce_dx.call = ce_dx<V>;
  ops.add.call = add<V>;
  ops.add_squares.call = add_squares<V>;
  ops.adamw.call = adamw<V>;
}

}  // namespace lockstep::simd
