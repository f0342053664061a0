// The table of operations a training step is made of. Row-major arrays; orders and roundings: EXACT.md.
//
// Symbols: B sequences, T tokens per sequence, M = B*T rows, D width, H heads, K kv heads, hd head size,
// F ffn width, V vocabulary (this rank's columns), R leaves.
// A table starts as the plain kernels; faster sets override entries, a missing one stays right.
// Weights, activations and their gradients may also be stored as bf16; what a kernel sums up for others to go
// on with (a weight's gradient, a statistic of a row, a rank's part of a matmul) is float32 then.
#pragma once
#include <string>
#include <vector>

#include "kernels/bf16.hpp"
#include "kernels/lanes.hpp"

namespace lockstep {

template <class... A>
struct Op {
  const char* name;
  void (*call)(Lanes&, A...) = nullptr;
  // For operands in host memory, where `call` is an accelerator's; null: `call` is for those too.
  void (*on_host)(Lanes&, A...) = nullptr;
  // The same arithmetic on operands of which some are stored as bf16: argument i points to such if bit i of
  // `halves` is set. They are widened exactly, and results rounded once. std::logic_error: no kernel for
  // these.
  void (*mixed)(Lanes&, unsigned halves, A...) = nullptr;
  void (*mixed_on_host)(Lanes&, unsigned halves, A...) = nullptr;  // as on_host is to call
  // Inlined, because files that call them are compiled for different instruction sets.
  [[gnu::always_inline]] void operator()(Lanes& lanes, A... a) const { call(lanes, a...); }
  template <class... B>
  requires(kHalves<B...> != 0) [[gnu::always_inline]] void operator()(Lanes& lanes, B... b) const {
    mixed(lanes, kHalves<B...>, retyped<A>(b)...);
  }
};

// The scalars of one AdamW step, computed in double and rounded once to T.
template <class T>
struct AdamWStep {
  T keep;        // 1 - lr * decay (1 for tensors without decay)
  T b1, c1;      // beta1, 1 - beta1
  T b2, c2;      // beta2, 1 - beta2
  T root_bias2;  // sqrt(1 - beta2^t)
  T eps;
  T rate;  // lr / (1 - beta1^t)
};

// Sum of squares as a fixed-point integer: limb i weighs 2^(32*i - 448); the last entry counts
// infinities and NaNs. Limbs are signed and may exceed 32 bits; up to 2^30 additions are safe.
inline constexpr int kSquareLimbs = 24;
inline constexpr int kSquareWords = kSquareLimbs + 1;
double root_of_squares(const i64* words);  // sqrt of the sum, NaN if any entry was not finite

template <class T>
struct Ops {
  // ---- matmul. Weights are [out, in] as Hugging Face stores them.
  // y[M,N] = x[M,K] w[N,K]^T, k cut in `leaves`.              (M, N, K, leaves)
  Op<T*, const T*, const T*, i64, i64, i64, i64> matmul{"matmul"};
  // dx[M,K] = sum over three pieces of dy_i[M,N_i] w_i[N_i,K]; leaf r = one chain over its columns of
  // piece 0, then 1, then 2. ld_i: elements between rows of dy_i. N_i = 0 (null) leaves a piece out.
  // (dx, dy0, ld0, w0, N0, dy1, ld1, w1, N1, dy2, ld2, w2, N2, M, K, leaves)
  Op<T*, const T*, i64, const T*, i64, const T*, i64, const T*, i64, const T*, i64, const T*, i64, i64, i64,
     i64>
      matmul_dx{"matmul_dx"};
  // dw[N,K] = dy[T,N]^T x[T,K] over one sequence, chain over tokens; add: dw = dw + chain. (T, N, K, add)
  Op<T*, const T*, const T*, i64, i64, i64, bool> matmul_dw{"matmul_dw"};

  // ---- embedding. This rank holds table rows [first, first + rows).
  // y[M,D] = table[ids - first], 0 where another rank holds the row.  (M, D, first, rows)
  Op<T*, const T*, const i32*, i64, i64, i64, i64> embed{"embed"};
  // dtable[rows,D] = sum over one sequence's tokens, in order; add: touched rows += their sum, others
  // stay; not add: others become 0.                            (T, D, first, rows, add)
  Op<T*, const T*, const i32*, i64, i64, i64, i64, bool> embed_dw{"embed_dw"};

  // ---- RMSNorm: y[M,D], rstd[M] from x[M,D], w[D].            (M, D, eps)
  Op<T*, T*, const T*, const T*, i64, i64, double> rms_norm{"rms_norm"};
  // dx[M,D] from dy, x, rstd, w.                                (M, D)
  Op<T*, const T*, const T*, const T*, const T*, i64, i64> rms_norm_dx{"rms_norm_dx"};
  // dw[D] from dy[T,D], x[T,D], rstd[T] of one sequence: chain of fma(dy, xhat, .) over the tokens of
  // each of `leaves` chunks, tree over chunks; add: dw = dw + tree.   (T, D, leaves, add)
  Op<T*, const T*, const T*, const T*, i64, i64, i64, bool> rms_norm_dw{"rms_norm_dw"};

  // ---- rotary embedding in place on x[M, heads*hd], rotate-half form; cos, sin [T, hd/2]; position =
  // row mod T; per pair (a = x[j], b = x[j+hd/2]): a' = fma(-b, s, a*c), b' = fma(a, s, b*c).
  // inverse: s -> -s.                                           (M, T, heads, hd, inverse)
  Op<T*, const T*, const T*, i64, i64, i64, i64, bool> rope{"rope"};

  // ---- causal attention, scale = 1/sqrt(hd), query head h uses kv head h / (H/K).
  // o[M,H*hd], lse[B,H,T] from q[M,H*hd], k[M,K*hd], v[M,K*hd].  (B, T, H, K, hd)
  Op<T*, T*, const T*, const T*, const T*, i64, i64, i64, i64, i64> attention{"attention"};
  // dq, dk, dv from dO, q, k, v, o, lse.                        (B, T, H, K, hd)
  Op<T*, T*, T*, const T*, const T*, const T*, const T*, const T*, const T*, i64, i64, i64, i64, i64>
      attention_dx{"attention_dx"};

  // ---- SwiGLU: a = silu(g) * u, silu(g) = g * sg, sg = 1 / (1 + exp(-g)).    (n)
  Op<T*, const T*, const T*, i64> swiglu{"swiglu"};
  // dg = (da * u) * (sg * (1 + g * (1 - sg))), du = da * silu(g): (dg, du, da, g, u, n)
  Op<T*, T*, const T*, const T*, const T*, i64> swiglu_dx{"swiglu_dx"};

  // ---- cross entropy over logits[M,V]; this rank holds vocabulary columns [first, first + V), of which
  // the first `valid` exist and the rest are padding. labels[M]: token id, or negative = ignored.
  // max[M] over valid columns (-inf if none).                   (M, V, valid)
  Op<T*, const T*, i64, i64, i64> ce_max{"ce_max"};
  // sum[M] = tree over `leaves` of lane sums of exp(l - max); target[M] = the label's logit, or 0 if the
  // label is ignored or elsewhere.                              (M, V, valid, first, leaves)
  Op<T*, T*, const T*, const T*, const i32*, i64, i64, i64, i64, i64> ce_sum{"ce_sum"};
  // loss[b] from sum, max, target, labels, in double = sum over the sequence's valid tokens, in order, of
  // (double)log(sum) + (double)max - (double)target, log in T.  (loss, sum, max, target, labels, B, T)
  Op<double*, const T*, const T*, const T*, const i32*, i64, i64> ce_loss{"ce_loss"};
  // logits -> gradient, in place; pads and ignored rows become 0. (M, V, valid, first, scale)
  Op<T*, const T*, const T*, const i32*, i64, i64, i64, i64, T> ce_dx{"ce_dx"};

  // ---- element by element                                     (n)
  Op<T*, const T*, const T*, i64> add{"add"};  // y = a + b (y may be a or b)
  Op<T*, const T*, i64> copy{"copy"};          // y = x
  Op<T*, i64> zero{"zero"};                    // y = 0
  // y[B,N,M,W] from x[B,M,N,W]: the two middle axes change places.  (B, M, N, W)
  Op<T*, const T*, i64, i64, i64, i64> swap_axes{"swap_axes"};
  // y[N,R,W] from x[N,W]: each row R times. The reverse: y[N,W] = tree over R of x[N,R,W].   (N, R, W)
  Op<T*, const T*, i64, i64, i64> repeat_rows{"repeat_rows"}, sum_rows{"sum_rows"};
  Op<i64*, const T*, i64> add_squares{"add_squares"};  // words += x*x, exactly
  // w, m, v from g: c = clip*g; m = b1*m + c1*c; v = b2*v + (c2*c)*c; d = sqrt(v)/root_bias2 + eps;
  // w = w*keep - rate*(m/d). Every operation rounds.            (w, m, v, g, n, clip, step)
  Op<T*, T*, T*, const T*, i64, T, AdamWStep<T>> adamw{"adamw"};
};

// Every entry filled by the plain kernels: the specification in code.
template <class T>
Ops<T> plain_ops();
Ops<double> double_ops();  // the plain ones' bits in double, as fast as this machine has them

// A set of faster kernels, registered by its own file (`static const KernelSet set{...};`).
struct KernelSet {
  const char* name;  // "avx2"
  int speed;         // "auto" starts from plain and applies, slowest first, what runs here
  bool (*runs_here)();
  void (*apply)(Ops<float>&);
  KernelSet(const char* name, int speed, bool (*runs_here)(), void (*apply)(Ops<float>&));
};
const std::vector<const KernelSet*>& kernel_sets();  // slowest first
// What `isa` can be on this architecture, or on this machine alone: "auto, plain, ..."
std::string isa_names(bool here = false);

// isa: "auto", "plain" or a set's name (that set on top of the slower ones). Unknown or not supported
// here: std::invalid_argument with one clear sentence.
Ops<float> cpu_ops(const std::string& isa = "auto");

}  // namespace lockstep
