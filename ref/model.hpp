// Llama (Touvron et al. 2023) for one sequence: forward, loss and backward, as named steps that call the
// kernels of ops.hpp. It does not know how long it is trained, on what, or how many sequences there are.
//
// Symbols: T tokens, D width, H query heads, K key/value heads, hd width of a head, F width of the MLP,
// V vocabulary (Vp: padded to a multiple of R), R leaves (kernels/EXACT.md).
#pragma once
#include <vector>

#include "kernels/ops.hpp"
#include "ref/config.hpp"
#include "ref/params.hpp"
#include "ref/rope.hpp"

namespace lockstep {

// T is what weights and activations are stored as: float, double, or bf16. Numbers are computed in Wide<T>,
// which is float for bf16 and else T; statistics of rows, sums that go on elsewhere and gradients of weights
// stay such.
template <class T>
using Tensor = std::vector<T>;  // row-major; the shape stands in a comment

template <class T>
using Tensors = std::vector<Tensor<T>>;  // one per parameter, in the order of parameter_table()

// ---- What the forward pass keeps for the backward pass.
template <class T>
struct NormKept {
  Tensor<T> x;           // [T, D] input
  Tensor<Wide<T>> rstd;  // [T] 1 / root mean square of each row
  Tensor<T> y;           // [T, D] output
};
template <class T>
struct AttentionKept {
  Tensor<T> q;          // [T, H*hd] after rotation
  Tensor<T> k, v;       // [T, K*hd] k after rotation
  Tensor<T> o;          // [T, H*hd] weighted values
  Tensor<Wide<T>> lse;  // [H, T] log of the sum of the exponentials of a row of scores
};
template <class T>
struct MlpKept {
  Tensor<T> gate, up;  // [T, F]
  Tensor<T> a;         // [T, F] silu(gate) * up
};
template <class T>
struct LayerKept {
  NormKept<T> norm1;
  AttentionKept<T> attention;
  NormKept<T> norm2;
  MlpKept<T> mlp;
};
template <class T>
struct Kept {
  std::vector<LayerKept<T>> layers;
  NormKept<T> norm;
  Tensor<T> logits;          // [T, Vp]
  Tensor<Wide<T>> max, sum;  // [T] of each row of logits: largest, and sum of exp(logit - largest)
};

// ---- What the input gradient of a branch leaves for its weight gradient.
template <class T>
struct AttentionGrads {
  Tensor<T> dq;        // [T, H*hd] before rotation
  Tensor<T> dk, dv;    // [T, K*hd] dk before rotation
  Tensor<Wide<T>> dx;  // [T, D] of the branch's input
};
template <class T>
struct MlpGrads {
  Tensor<T> dgate, dup;  // [T, F]
  Tensor<Wide<T>> dx;    // [T, D] of the branch's input
};

template <class T>
class Model {
 public:
  using Sum = Tensor<Wide<T>>;
  using BySegment = std::vector<Tensors<Wide<T>>>;
  // Keeps references: `weights` holds the tensors of `table` (a tied head's is empty). What is summed over
  // tokens is so over each of `segments` neighbouring parts of the sequence by itself.
  Model(const ModelConfig&, i64 seq, i64 leaves, i64 segments, const std::vector<Param>& table,
        const Tensors<T>& weights, const Ops<Wide<T>>&, Lanes&);

  // tokens[T] -> everything up to the logits.
  Kept<T> forward(const i32* tokens) const;

  // By segment: the sum over its valid labels of -log softmax(logits)[label]; fills kept.max and kept.sum.
  std::vector<double> loss(Kept<T>&, const i32* labels) const;

  // By segment: writes every parameter's gradient of loss * scale, as far as the segment's tokens have to do
  // with it. A tied head's part is kept apart from the embedding's. Uses up kept.logits.
  void backward(Kept<T>&, const i32* tokens, const i32* labels, Wide<T> scale, BySegment& grads) const;

 private:
  // The steps of a forward pass ...
  Tensor<T> embed(const i32* tokens) const;
  const Tensor<T>& norm(int param, Tensor<T> x, NormKept<T>&) const;
  Sum attention(i64 layer, const Tensor<T>& x, AttentionKept<T>&) const;
  Sum mlp(i64 layer, const Tensor<T>& x, MlpKept<T>&) const;
  template <class B>
  Tensor<T> sum(Tensor<T> a, const Tensor<B>& b) const;
  // ... and of a backward pass.
  void logits_gradient(Kept<T>&, const i32* labels, Wide<T> scale) const;
  Sum head_input_gradient(const Tensor<T>& dlogits) const;
  Tensor<T> norm_input_gradient(int param, const NormKept<T>&, const Sum& dy) const;
  void norm_weight_gradient(int param, const NormKept<T>&, const Sum& dy, BySegment& grads) const;
  MlpGrads<T> mlp_input_gradient(i64 layer, const MlpKept<T>&, const Tensor<T>& dy) const;
  void mlp_weight_gradient(i64 layer, const Tensor<T>& x, const MlpKept<T>&, const Tensor<T>& dy,
                           const MlpGrads<T>&, BySegment& grads) const;
  AttentionGrads<T> attention_input_gradient(i64 layer, const AttentionKept<T>&, const Tensor<T>& dy) const;
  void attention_weight_gradient(i64 layer, const Tensor<T>& x, const AttentionKept<T>&, const Tensor<T>& dy,
                                 const AttentionGrads<T>&, BySegment& grads) const;
  void embedding_weight_gradient(const i32* tokens, const Tensor<T>& dx, BySegment& grads) const;

  // Matrix products with one parameter w [N, K], whose shape is in the table; rounded to Y: T, or a sum.
  template <class Y = T>
  Tensor<Y> linear(int param, const Tensor<T>& x, i64 leaves) const;
  template <class Y = T>
  Tensor<Y> linear_input_gradient(int param, const Tensor<T>& dy, i64 leaves) const;
  void linear_weight_gradient(int param, const Tensor<T>& dy, const Tensor<T>& x, BySegment& grads) const;
  // gradient(where a segment's goes, its first token), segment by segment.
  template <class F>
  void for_segments(BySegment& grads, int param, F gradient) const;
  const T* weight(int param) const;
  template <class Y = T>
  static Tensor<Y> tensor(i64 rows, i64 cols) {
    return Tensor<Y>(static_cast<std::size_t>(rows * cols));
  }

  const ModelConfig& config_;
  const std::vector<Param>& table_;
  const Tensors<T>& weights_;
  const Ops<Wide<T>>& ops_;
  Lanes& lanes_;
  const i64 seq_, leaves_, segments_, padded_vocab_;
  const i64 segment_;            // tokens of one
  const int final_norm_, head_;  // their parameters
  const RopeTable<Wide<T>> rope_;
};

}  // namespace lockstep
