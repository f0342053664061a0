// The table of kernels for a GPU, launched by On::launch(lanes, kernel, blocks, threads, floats of shared
// memory).
#pragma once
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/attention_dx.hpp"
#include "kernels/cuda/elements.hpp"
#include "kernels/cuda/matmul.hpp"
#include "kernels/cuda/rows.hpp"
#include "kernels/cuda/squares.hpp"

namespace lockstep::cuda {

template <class... A>
void set(Op<A...>& op, void (*call)(Lanes&, A...)) {
  op.on_host = op.call;
  op.call = call;
  op.mixed = nullptr;  // there are none yet
}

// What the table held before is for host memory from now on.
template <class On>
void fill(Ops<float>& ops) {
  set(ops.matmul, matmul<On>);
  set(ops.matmul_dx, matmul_dx<On>);
  set(ops.matmul_dw, matmul_dw<On>);
  set(ops.embed, embed<On>);
  set(ops.embed_dw, embed_dw<On>);
  set(ops.rms_norm, rms_norm<On>);
  set(ops.rms_norm_dx, rms_norm_dx<On>);
  set(ops.rms_norm_dw, rms_norm_dw<On>);
  set(ops.rope, rope<On>);
  set(ops.attention, attention<On>);
  set(ops.attention_dx, attention_dx<On>);
  set(ops.swiglu, swiglu<On>);
  set(ops.swiglu_dx, swiglu_dx<On>);
  set(ops.ce_max, ce_max<On>);
  set(ops.ce_sum, ce_sum<On>);
  set(ops.ce_loss, ce_loss<On>);
  set(ops.ce_dx, ce_dx<On>);
  set(ops.add, add<On>);
  set(ops.scale, scale<On>);
  set(ops.copy, copy<On>);
  set(ops.zero, zero<On>);
  set(ops.add_squares, add_squares<On>);
  set(ops.adamw, adamw<On>);
}

}  // namespace lockstep::cuda
