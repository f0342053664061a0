// Read it from top to bottom: the forward pass, its parts, the backward pass, its parts.
//
// Where a comment or an argument says "leaves", the kernel's sum is cut in R pieces that are added in a
// fixed order; kernels/EXACT.md says which sums are.
#include "ref/model.hpp"

#include <utility>

namespace lockstep {

template <class T>
Model<T>::Model(const ModelConfig& config, i64 seq, i64 leaves, i64 segments, const std::vector<Param>& table,
                const Tensors<T>& weights, const Ops<Wide<T>>& ops, Lanes& lanes)
    : config_(config),
      table_(table),
      weights_(weights),
      ops_(ops),
      lanes_(lanes),
      seq_(seq),
      leaves_(leaves),
      segments_(segments),
      padded_vocab_(lockstep::padded_vocab(config, leaves)),
      segment_(seq / segments),
      final_norm_(param_index(config.layers, 0)),
      head_(final_norm_ + 1),
      rope_(rope_table<Wide<T>>(config, seq)) {}

// ======== Forward ========

// Each layer adds two branches to the stream x: attention, where tokens look at earlier tokens, and the
// MLP, where each token stands alone. Each branch reads the stream through a norm of its own.
template <class T>
Kept<T> Model<T>::forward(const i32* tokens) const {
  Kept<T> kept;
  kept.layers.resize(static_cast<std::size_t>(config_.layers));
  Tensor<T> x = embed(tokens);  // [T, D]
  for (i64 l = 0; l < config_.layers; ++l) {
    LayerKept<T>& layer = kept.layers[static_cast<std::size_t>(l)];
    const Tensor<T>& n1 = norm(param_index(l, input_norm), x, layer.norm1);  // [T, D]
    x = sum(std::move(x), attention(l, n1, layer.attention));
    const Tensor<T>& n2 = norm(param_index(l, post_norm), x, layer.norm2);  // [T, D]
    x = sum(std::move(x), mlp(l, n2, layer.mlp));
  }
  const Tensor<T>& n = norm(final_norm_, std::move(x), kept.norm);  // [T, D]
  kept.logits = linear(head_, n, 1);                                // [T, Vp]
  return kept;
}

// y[t] = row tokens[t] of the embedding.
template <class T>
Tensor<T> Model<T>::embed(const i32* tokens) const {
  Tensor<T> y = tensor(seq_, config_.hidden);  // [T, D]
  ops_.embed(lanes_, y.data(), weight(0), tokens, seq_, config_.hidden, 0, table_[0].stored_rows);
  return y;
}

// RMSNorm (Zhang & Sennrich 2019): y = w * x / sqrt(mean of x^2 + eps), row by row.
template <class T>
const Tensor<T>& Model<T>::norm(int param, Tensor<T> x, NormKept<T>& kept) const {
  kept.x = std::move(x);                  // [T, D]
  kept.y = tensor(seq_, config_.hidden);  // [T, D]
  kept.rstd = tensor<Wide<T>>(seq_, 1);   // [T]
  ops_.rms_norm(lanes_, kept.y.data(), kept.rstd.data(), kept.x.data(), weight(param), seq_, config_.hidden,
                config_.rms_eps);
  return kept.y;
}

// Causal attention with H query heads, H/K of which share one key/value head (Ainslie et al. 2023).
// Positions enter by rotating queries and keys (Su et al. 2021).
template <class T>
typename Model<T>::Sum Model<T>::attention(i64 layer, const Tensor<T>& x, AttentionKept<T>& kept) const {
  const i64 H = config_.heads, K = config_.kv_heads, hd = config_.head_dim;
  kept.q = linear(param_index(layer, q_proj), x, 1);  // [T, H*hd]
  kept.k = linear(param_index(layer, k_proj), x, 1);  // [T, K*hd]
  kept.v = linear(param_index(layer, v_proj), x, 1);  // [T, K*hd]
  ops_.rope(lanes_, kept.q.data(), rope_.cos.data(), rope_.sin.data(), seq_, seq_, H, hd, false);
  ops_.rope(lanes_, kept.k.data(), rope_.cos.data(), rope_.sin.data(), seq_, seq_, K, hd, false);
  kept.o = tensor(seq_, H * hd);        // [T, H*hd]
  kept.lse = tensor<Wide<T>>(H, seq_);  // [H, T]
  ops_.attention(lanes_, kept.o.data(), kept.lse.data(), kept.q.data(), kept.k.data(), kept.v.data(), 1, seq_,
                 H, K, hd);
  return linear<Wide<T>>(param_index(layer, o_proj), kept.o, leaves_);  // [T, D]
}

// SwiGLU (Shazeer 2020): y = down(silu(gate(x)) * up(x)).
template <class T>
typename Model<T>::Sum Model<T>::mlp(i64 layer, const Tensor<T>& x, MlpKept<T>& kept) const {
  kept.gate = linear(param_index(layer, gate_proj), x, 1);  // [T, F]
  kept.up = linear(param_index(layer, up_proj), x, 1);      // [T, F]
  kept.a = tensor(seq_, config_.intermediate);              // [T, F]
  ops_.swiglu(lanes_, kept.a.data(), kept.gate.data(), kept.up.data(), seq_ * config_.intermediate);
  return linear<Wide<T>>(param_index(layer, down_proj), kept.a, leaves_);  // [T, D]
}

// In bf16 a branch's output is added before it is rounded.
template <class T>
template <class B>
Tensor<T> Model<T>::sum(Tensor<T> a, const Tensor<B>& b) const {
  ops_.add(lanes_, a.data(), a.data(), b.data(), static_cast<i64>(a.size()));
  return a;
}

// Cross entropy. The largest logit is taken off before exp so that exp cannot overflow.
template <class T>
std::vector<double> Model<T>::loss(Kept<T>& kept, const i32* labels) const {
  kept.max = tensor<Wide<T>>(seq_, 1);                // [T]
  kept.sum = tensor<Wide<T>>(seq_, 1);                // [T]
  Tensor<Wide<T>> target = tensor<Wide<T>>(seq_, 1);  // [T] the label's logit
  ops_.ce_max(lanes_, kept.max.data(), kept.logits.data(), seq_, padded_vocab_, config_.vocab);
  ops_.ce_sum(lanes_, kept.sum.data(), target.data(), kept.logits.data(), kept.max.data(), labels, seq_,
              padded_vocab_, config_.vocab, 0, leaves_);
  std::vector<double> losses(static_cast<std::size_t>(segments_));
  ops_.ce_loss(lanes_, losses.data(), kept.sum.data(), kept.max.data(), target.data(), labels, segments_,
               segment_);
  return losses;
}

// ======== Backward ========

// The forward pass in reverse. dx is the gradient of the stream; where the stream forked into a branch,
// the branch's gradient is added. Input gradients and weight gradients are steps of their own.
template <class T>
void Model<T>::backward(Kept<T>& kept, const i32* tokens, const i32* labels, Wide<T> scale,
                        BySegment& grads) const {
  logits_gradient(kept, labels, scale);
  const Tensor<T>& dlogits = kept.logits;       // [T, Vp]
  const Sum dn = head_input_gradient(dlogits);  // [T, D] of a norm's output
  linear_weight_gradient(head_, dlogits, kept.norm.y, grads);
  Tensor<T> dx = norm_input_gradient(final_norm_, kept.norm, dn);  // [T, D]
  norm_weight_gradient(final_norm_, kept.norm, dn, grads);

  for (i64 l = config_.layers - 1; l >= 0; --l) {
    const LayerKept<T>& layer = kept.layers[static_cast<std::size_t>(l)];

    const MlpGrads<T> m = mlp_input_gradient(l, layer.mlp, dx);
    mlp_weight_gradient(l, layer.norm2.y, layer.mlp, dx, m, grads);
    norm_weight_gradient(param_index(l, post_norm), layer.norm2, m.dx, grads);
    dx = sum(norm_input_gradient(param_index(l, post_norm), layer.norm2, m.dx), dx);

    const AttentionGrads<T> a = attention_input_gradient(l, layer.attention, dx);
    attention_weight_gradient(l, layer.norm1.y, layer.attention, dx, a, grads);
    norm_weight_gradient(param_index(l, input_norm), layer.norm1, a.dx, grads);
    dx = sum(norm_input_gradient(param_index(l, input_norm), layer.norm1, a.dx), dx);
  }
  embedding_weight_gradient(tokens, dx, grads);
}

// logits become dlogits = (softmax(logits) - onehot(label)) * scale; 0 where the label is ignored.
template <class T>
void Model<T>::logits_gradient(Kept<T>& kept, const i32* labels, Wide<T> scale) const {
  ops_.ce_dx(lanes_, kept.logits.data(), kept.max.data(), kept.sum.data(), labels, seq_, padded_vocab_,
             config_.vocab, 0, scale);
}

template <class T>
typename Model<T>::Sum Model<T>::head_input_gradient(const Tensor<T>& dlogits) const {
  return linear_input_gradient<Wide<T>>(head_, dlogits, leaves_);  // [T, D]
}

template <class T>
Tensor<T> Model<T>::norm_input_gradient(int param, const NormKept<T>& kept, const Sum& dy) const {
  Tensor<T> dx = tensor(seq_, config_.hidden);  // [T, D]
  ops_.rms_norm_dx(lanes_, dx.data(), dy.data(), kept.x.data(), kept.rstd.data(), weight(param), seq_,
                   config_.hidden);
  return dx;
}

template <class T>
void Model<T>::norm_weight_gradient(int param, const NormKept<T>& kept, const Sum& dy,
                                    BySegment& grads) const {
  const i64 D = config_.hidden;
  for_segments(grads, param, [&](Wide<T>* dw, i64 from) {  // [D]
    ops_.rms_norm_dw(lanes_, dw, dy.data() + from * D, kept.x.data() + from * D, kept.rstd.data() + from,
                     segment_, D, leaves_, false);
  });
}

template <class T>
MlpGrads<T> Model<T>::mlp_input_gradient(i64 layer, const MlpKept<T>& kept, const Tensor<T>& dy) const {
  const i64 D = config_.hidden, F = config_.intermediate;
  const Tensor<T> da = linear_input_gradient(param_index(layer, down_proj), dy, 1);  // [T, F]
  MlpGrads<T> g;
  g.dgate = tensor(seq_, F);  // [T, F]
  g.dup = tensor(seq_, F);    // [T, F]
  ops_.swiglu_dx(lanes_, g.dgate.data(), g.dup.data(), da.data(), kept.gate.data(), kept.up.data(), seq_ * F);
  g.dx = tensor<Wide<T>>(seq_, D);  // [T, D] = dgate Wgate + dup Wup
  ops_.matmul_dx(lanes_, g.dx.data(), g.dgate.data(), F, weight(param_index(layer, gate_proj)), F,  //
                 g.dup.data(), F, weight(param_index(layer, up_proj)), F,                           //
                 nullptr, 0, nullptr, 0, seq_, D, leaves_);
  return g;
}

template <class T>
void Model<T>::mlp_weight_gradient(i64 layer, const Tensor<T>& x, const MlpKept<T>& kept, const Tensor<T>& dy,
                                   const MlpGrads<T>& g, BySegment& grads) const {
  linear_weight_gradient(param_index(layer, gate_proj), g.dgate, x, grads);
  linear_weight_gradient(param_index(layer, up_proj), g.dup, x, grads);
  linear_weight_gradient(param_index(layer, down_proj), dy, kept.a, grads);
}

template <class T>
AttentionGrads<T> Model<T>::attention_input_gradient(i64 layer, const AttentionKept<T>& kept,
                                                     const Tensor<T>& dy) const {
  const i64 D = config_.hidden, H = config_.heads, K = config_.kv_heads, hd = config_.head_dim;
  const Tensor<T> d_o = linear_input_gradient(param_index(layer, o_proj), dy, 1);  // [T, H*hd]
  AttentionGrads<T> g;
  g.dq = tensor(seq_, H * hd);  // [T, H*hd]
  g.dk = tensor(seq_, K * hd);  // [T, K*hd]
  g.dv = tensor(seq_, K * hd);  // [T, K*hd]
  ops_.attention_dx(lanes_, g.dq.data(), g.dk.data(), g.dv.data(), d_o.data(), kept.q.data(), kept.k.data(),
                    kept.v.data(), kept.o.data(), kept.lse.data(), 1, seq_, H, K, hd);
  // A rotation's gradient is the rotation backwards.
  ops_.rope(lanes_, g.dq.data(), rope_.cos.data(), rope_.sin.data(), seq_, seq_, H, hd, true);
  ops_.rope(lanes_, g.dk.data(), rope_.cos.data(), rope_.sin.data(), seq_, seq_, K, hd, true);
  g.dx = tensor<Wide<T>>(seq_, D);  // [T, D] = dq Wq + dk Wk + dv Wv
  ops_.matmul_dx(lanes_, g.dx.data(), g.dq.data(), H * hd, weight(param_index(layer, q_proj)), H * hd,  //
                 g.dk.data(), K * hd, weight(param_index(layer, k_proj)), K * hd,                       //
                 g.dv.data(), K * hd, weight(param_index(layer, v_proj)), K * hd, seq_, D, leaves_);
  return g;
}

template <class T>
void Model<T>::attention_weight_gradient(i64 layer, const Tensor<T>& x, const AttentionKept<T>& kept,
                                         const Tensor<T>& dy, const AttentionGrads<T>& g,
                                         BySegment& grads) const {
  linear_weight_gradient(param_index(layer, q_proj), g.dq, x, grads);
  linear_weight_gradient(param_index(layer, k_proj), g.dk, x, grads);
  linear_weight_gradient(param_index(layer, v_proj), g.dv, x, grads);
  linear_weight_gradient(param_index(layer, o_proj), dy, kept.o, grads);
}

// Row r of the embedding collects dx[t] wherever tokens[t] = r.
template <class T>
void Model<T>::embedding_weight_gradient(const i32* tokens, const Tensor<T>& dx, BySegment& grads) const {
  const i64 D = config_.hidden;
  for_segments(grads, 0, [&](Wide<T>* dw, i64 from) {
    ops_.embed_dw(lanes_, dw, dx.data() + from * D, tokens + from, segment_, D, 0, table_[0].stored_rows,
                  false);
  });
}

// ======== Matrix products ========

// y[T, N] = x[T, K] w[N, K]^T
template <class T>
template <class Y>
Tensor<Y> Model<T>::linear(int param, const Tensor<T>& x, i64 leaves) const {
  const i64 N = table_[static_cast<std::size_t>(param)].stored_rows,
            K = table_[static_cast<std::size_t>(param)].cols;
  Tensor<Y> y = tensor<Y>(seq_, N);
  ops_.matmul(lanes_, y.data(), x.data(), weight(param), seq_, N, K, leaves);
  return y;
}

// dx[T, K] = dy[T, N] w[N, K]
template <class T>
template <class Y>
Tensor<Y> Model<T>::linear_input_gradient(int param, const Tensor<T>& dy, i64 leaves) const {
  const i64 N = table_[static_cast<std::size_t>(param)].stored_rows,
            K = table_[static_cast<std::size_t>(param)].cols;
  Tensor<Y> dx = tensor<Y>(seq_, K);
  ops_.matmul_dx(lanes_, dx.data(), dy.data(), N, weight(param), N, nullptr, 0, nullptr, 0, nullptr, 0,
                 nullptr, 0, seq_, K, leaves);
  return dx;
}

// dw[N, K] = dy[T, N]^T x[T, K], of each segment's tokens
template <class T>
void Model<T>::linear_weight_gradient(int param, const Tensor<T>& dy, const Tensor<T>& x,
                                      BySegment& grads) const {
  const i64 N = table_[static_cast<std::size_t>(param)].stored_rows,
            K = table_[static_cast<std::size_t>(param)].cols;
  for_segments(grads, param, [&](Wide<T>* dw, i64 from) {
    ops_.matmul_dw(lanes_, dw, dy.data() + from * N, x.data() + from * K, segment_, N, K, false);
  });
}

template <class T>
template <class F>
void Model<T>::for_segments(BySegment& grads, int param, F gradient) const {
  for (i64 segment = 0; segment < segments_; ++segment)
    gradient(grads[static_cast<std::size_t>(segment)][static_cast<std::size_t>(param)].data(),
             segment * segment_);
}

// A tied head multiplies with the embedding.
template <class T>
const T* Model<T>::weight(int param) const {
  const int tied_to = table_[static_cast<std::size_t>(param)].tied_to;
  return weights_[static_cast<std::size_t>(tied_to >= 0 ? tied_to : param)].data();
}

template class Model<float>;
template class Model<double>;
template class Model<bf16>;

}  // namespace lockstep
