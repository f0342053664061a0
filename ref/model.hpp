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

template <class T>
using Tensor = std::vector<T>;  // row-major; the shape stands in a comment

template <class T>
using Tensors = std::vector<Tensor<T>>;  // one per parameter, in the order of parameter_table()

// ---- What the forward pass keeps for the backward pass.
template <class T>
struct NormKept {
  Tensor<T> x;     // [T, D] input
  Tensor<T> rstd;  // [T]    1 / root mean square of each row
  Tensor<T> y;     // [T, D] output
};
template <class T>
struct AttentionKept {
  Tensor<T> q;     // [T, H*hd] after rotation
  Tensor<T> k, v;  // [T, K*hd] k after rotation
  Tensor<T> o;     // [T, H*hd] weighted values
  Tensor<T> lse;   // [H, T]    log of the sum of the exponentials of a row of scores
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
  Tensor<T> logits;    // [T, Vp]
  Tensor<T> max, sum;  // [T] of each row of logits: largest, and sum of exp(logit - largest)
};

// ---- What the input gradient of a branch leaves for its weight gradient.
template <class T>
struct AttentionGrads {
  Tensor<T> dq;      // [T, H*hd] before rotation
  Tensor<T> dk, dv;  // [T, K*hd] dk before rotation
  Tensor<T> dx;      // [T, D] of the branch's input
};
template <class T>
struct MlpGrads {
  Tensor<T> dgate, dup;  // [T, F]
  Tensor<T> dx;          // [T, D] of the branch's input
};

template <class T>
class Model {
 public:
  // Keeps references: `weights` holds the tensors of `table` (a tied head's is empty).
  Model(const ModelConfig&, i64 seq, i64 leaves, const std::vector<Param>& table, const Tensors<T>& weights,
        const Ops<T>&, Lanes&);

  // tokens[T] -> everything up to the logits.
  Kept<T> forward(const i32* tokens) const;

  // Sum over the valid labels[T] of -log softmax(logits)[label]; fills kept.max and kept.sum.
  double loss(Kept<T>&, const i32* labels) const;

  // Writes every parameter's gradient of loss * scale. A tied head's part is kept apart from the
  // embedding's. Uses up kept.logits.
  void backward(Kept<T>&, const i32* tokens, const i32* labels, T scale, Tensors<T>& grads) const;

 private:
  // The steps of a forward pass ...
  Tensor<T> embed(const i32* tokens) const;
  const Tensor<T>& norm(int param, Tensor<T> x, NormKept<T>&) const;
  Tensor<T> attention(i64 layer, const Tensor<T>& x, AttentionKept<T>&) const;
  Tensor<T> mlp(i64 layer, const Tensor<T>& x, MlpKept<T>&) const;
  Tensor<T> sum(Tensor<T> a, const Tensor<T>& b) const;
  // ... and of a backward pass.
  void logits_gradient(Kept<T>&, const i32* labels, T scale) const;
  Tensor<T> head_input_gradient(const Tensor<T>& dlogits) const;
  Tensor<T> norm_input_gradient(int param, const NormKept<T>&, const Tensor<T>& dy) const;
  void norm_weight_gradient(int param, const NormKept<T>&, const Tensor<T>& dy, Tensors<T>& grads) const;
  MlpGrads<T> mlp_input_gradient(i64 layer, const MlpKept<T>&, const Tensor<T>& dy) const;
  void mlp_weight_gradient(i64 layer, const Tensor<T>& x, const MlpKept<T>&, const Tensor<T>& dy,
                           const MlpGrads<T>&, Tensors<T>& grads) const;
  AttentionGrads<T> attention_input_gradient(i64 layer, const AttentionKept<T>&, const Tensor<T>& dy) const;
  void attention_weight_gradient(i64 layer, const Tensor<T>& x, const AttentionKept<T>&, const Tensor<T>& dy,
                                 const AttentionGrads<T>&, Tensors<T>& grads) const;
  void embedding_weight_gradient(const i32* tokens, const Tensor<T>& dx, Tensors<T>& grads) const;

  // Matrix products with one parameter w [N, K], whose shape is in the table.
  Tensor<T> linear(int param, const Tensor<T>& x, i64 leaves) const;
  Tensor<T> linear_input_gradient(int param, const Tensor<T>& dy, i64 leaves) const;
  void linear_weight_gradient(int param, const Tensor<T>& dy, const Tensor<T>& x, Tensors<T>& grads) const;
  const T* weight(int param) const;
  Tensor<T> tensor(i64 rows, i64 cols) const { return Tensor<T>(static_cast<std::size_t>(rows * cols)); }

  const ModelConfig& config_;
  const std::vector<Param>& table_;
  const Tensors<T>& weights_;
  const Ops<T>& ops_;
  Lanes& lanes_;
  const i64 seq_, leaves_, padded_vocab_;
  const int final_norm_, head_;  // their parameters
  const RopeTable<T> rope_;
};

}  // namespace lockstep
