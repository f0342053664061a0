// The table of kernels for a GPU, launched by On::launch(lanes, kernel, blocks, threads, floats of shared memory).
#pragma once
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/attention_dx.hpp"
#include "kernels/cuda/elements.hpp"
#include "kernels/cuda/matmul.hpp"
#include "kernels/cuda/rows.hpp"
#include "kernels/cuda/squares.hpp"

namespace lockstep::cuda {

template <class On>
void fill(Ops<float>& ops) {
  ops.matmul.call = matmul<On>;
  ops.matmul_dx.call = matmul_dx<On>;
  ops.matmul_dw.call = matmul_dw<On>;
  ops.embed.call = embed<On>;
  ops.embed_dw.call = embed_dw<On>;
  ops.rms_norm.call = rms_norm<On>;
  ops.rms_norm_dx.call = rms_norm_dx<On>;
  ops.rms_norm_dw.call = rms_norm_dw<On>;
  ops.rope.call = rope<On>;
  ops.attention.call = attention<On>;
  ops.attention_dx.call = attention_dx<On>;
  ops.swiglu.call = swiglu<On>;
  ops.swiglu_dx.call = swiglu_dx<On>;
  ops.ce_max.call = ce_max<On>;
  ops.ce_sum.call = ce_sum<On>;
  ops.ce_loss.call = ce_loss<On>;
  ops.ce_dx.call = ce_dx<On>;
  ops.add.call = add<On>;
  ops.scale.call = scale<On>;
  ops.copy.call = copy<On>;
  ops.zero.call = zero<On>;
  ops.add_squares.call = add_squares<On>;
  ops.adamw.call = adamw<On>;
}

}  // namespace lockstep::cuda
