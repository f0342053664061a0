// The table of kernels for a GPU, launched by On::launch(lanes, kernel, blocks, threads, floats of shared
// memory).
#pragma once
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/attention_dx.hpp"
#include "kernels/cuda/elements.hpp"
#include "kernels/cuda/matmul.hpp"
#include "kernels/cuda/rows.hpp"
#include "kernels/cuda/squares.hpp"
#include "kernels/plain/mixed.hpp"

namespace lockstep::cuda {

// What the table held before is for host memory from now on.
template <class... A>
void set(Op<A...>& op, void (*call)(Lanes&, A...)) {
  op.on_host = op.call;
  op.mixed_on_host = op.mixed;
  op.call = call;
  op.mixed = nullptr;
}

template <class On>
void fill(Ops<float>& ops) {
  using plain::set_mixed;
  set(ops.matmul, matmul<On, float, float>);
  set_mixed<matmul<On, bf16, bf16>, matmul<On, float, bf16>>(ops.matmul);
  set(ops.matmul_dx, matmul_dx<On, float, float>);
  set_mixed<matmul_dx<On, bf16, bf16>, matmul_dx<On, float, bf16>>(ops.matmul_dx);
  set(ops.matmul_dw, matmul_dw<On, float>);
  set_mixed<matmul_dw<On, bf16>>(ops.matmul_dw);
  set(ops.embed, embed<On, float>);
  set_mixed<embed<On, bf16>>(ops.embed);
  set(ops.embed_dw, embed_dw<On, float>);
  set_mixed<embed_dw<On, bf16>>(ops.embed_dw);
  set(ops.rms_norm, rms_norm<On, float>);
  set_mixed<rms_norm<On, bf16>>(ops.rms_norm);
  set(ops.rms_norm_dx, rms_norm_dx<On, float, float>);
  set_mixed<rms_norm_dx<On, bf16, bf16>, rms_norm_dx<On, bf16, float>>(ops.rms_norm_dx);
  set(ops.rms_norm_dw, rms_norm_dw<On, float, float>);
  set_mixed<rms_norm_dw<On, bf16, bf16>, rms_norm_dw<On, bf16, float>>(ops.rms_norm_dw);
  set(ops.rope, rope<On, float>);
  set_mixed<rope<On, bf16>>(ops.rope);
  set(ops.attention, attention<On, float>);
  set_mixed<attention<On, bf16>>(ops.attention);
  set(ops.attention_dx, attention_dx<On, float, float>);
  set_mixed<attention_dx<On, bf16, bf16>, attention_dx<On, bf16, float>>(ops.attention_dx);
  set(ops.swiglu, swiglu<On, float>);
  set_mixed<swiglu<On, bf16>>(ops.swiglu);
  set(ops.swiglu_dx, swiglu_dx<On, float>);
  set_mixed<swiglu_dx<On, bf16>>(ops.swiglu_dx);
  set(ops.ce_max, ce_max<On, float>);
  set_mixed<ce_max<On, bf16>>(ops.ce_max);
  set(ops.ce_sum, ce_sum<On, float>);
  set_mixed<ce_sum<On, bf16>>(ops.ce_sum);
  set(ops.ce_loss, ce_loss<On>);
  set(ops.ce_dx, ce_dx<On, float>);
  set_mixed<ce_dx<On, bf16>>(ops.ce_dx);
  set(ops.add, add<On, float, float>);
  set_mixed<add<On, bf16, bf16>, add<On, bf16, float>>(ops.add);
  set(ops.copy, copy<On, float, float>);
  set_mixed<copy<On, bf16, float>, copy<On, float, bf16>>(ops.copy);
  set(ops.zero, zero<On>);
  set(ops.swap_axes, swap_axes<On, float>);
  set_mixed<swap_axes<On, bf16>>(ops.swap_axes);
  set(ops.repeat_rows, repeat_rows<On, float>);
  set_mixed<repeat_rows<On, bf16>>(ops.repeat_rows);
  set(ops.sum_rows, sum_rows<On, float>);
  set_mixed<sum_rows<On, bf16>>(ops.sum_rows);
  set(ops.add_squares, add_squares<On>);
  set(ops.adamw, adamw<On>);
}

}  // namespace lockstep::cuda
