// Kernels over rows: RMSNorm and cross entropy. Sixteen threads make the lane sums of a row.
#pragma once
#include <limits>

#include "kernels/cuda/frame.hpp"

namespace lockstep::cuda {

inline constexpr int kRows = 8;  // of a block
inline constexpr int kRowThreads = kRows * kLanes;

// Two phases over [M, .]: first(m, lane) of each lane, then finish(m, lane, the row's sixteen).
template <class First, class Finish>
struct Rows {
  struct State {};
  i64 M;
  First first;
  Finish finish;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 2; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State&) const {
    const i64 m = at.block * kRows + at.thread / kLanes;
    const int lane = at.thread % kLanes;
    if (m >= M) return;
    if (p == 0)
      at.shared[at.thread] = first(m, lane);
    else
      finish(m, lane, at.shared + at.thread - lane);
  }
};
template <class On, class First, class Finish>
void rows(Lanes& lanes, i64 M, const First& first, const Finish& finish) {
  if (M > 0)
    On::launch(lanes, Rows<First, Finish>{M, first, finish}, blocks_for(M, kRows), kRowThreads, kRowThreads);
}

template <class On, class X>
void rms_norm(Lanes& lanes, X* y, float* rstd, const X* x, const X* w, i64 M, i64 D, double eps) {
  rows<On>(
      lanes, M,
      [=] LOCKSTEP_ANYWHERE(i64 m, int lane) {
        float sum = 0.0f;
        for (i64 d = lane; d < D; d += kLanes) sum = std::fma(float{x[m * D + d]}, float{x[m * D + d]}, sum);
        return sum;
      },
      [=] LOCKSTEP_ANYWHERE(i64 m, int lane, const float* sums) {
        const float mean = fold_lanes(sums) / static_cast<float>(D);
        const float rs = 1.0f / std::sqrt(mean + static_cast<float>(eps));
        if (lane == 0) rstd[m] = rs;
        for (i64 d = lane; d < D; d += kLanes) y[m * D + d] = static_cast<X>(w[d] * (x[m * D + d] * rs));
      });
}

template <class On, class X, class Dy>
void rms_norm_dx(Lanes& lanes, X* dx, const Dy* dy, const X* x, const float* rstd, const X* w, i64 M, i64 D) {
  rows<On>(
      lanes, M,
      [=] LOCKSTEP_ANYWHERE(i64 m, int lane) {
        float sum = 0.0f;
        for (i64 i = m * D + lane, d = lane; d < D; i += kLanes, d += kLanes)
          sum = std::fma(dy[i] * w[d], x[i] * rstd[m], sum);
        return sum;
      },
      [=] LOCKSTEP_ANYWHERE(i64 m, int lane, const float* sums) {
        const float mean = fold_lanes(sums) / static_cast<float>(D);
        for (i64 i = m * D + lane, d = lane; d < D; i += kLanes, d += kLanes)
          dx[i] = static_cast<X>(rstd[m] * (dy[i] * w[d] - (x[i] * rstd[m]) * mean));
      });
}

// A block makes 32 columns: eight threads each their leaves' chains, then one their tree.
template <class X, class Dy>
struct NormGradient {
  static constexpr int kColumns = 32;
  struct State {};
  float* dw;
  const Dy* dy;
  const X* x;
  const float* rstd;
  i64 T, D, leaves;
  bool add;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 2; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State&) const {
    const int column = at.thread % kColumns;
    const i64 d = at.block * kColumns + column;
    if (d >= D) return;
    if (p == 0) {
      for (i64 r = at.thread / kColumns; r < leaves; r += at.threads / kColumns) {
        float sum = 0.0f;
        for (i64 t = leaf_begin(r, T, leaves); t < leaf_begin(r + 1, T, leaves); ++t)
          sum = std::fma(float{dy[t * D + d]}, x[t * D + d] * rstd[t], sum);
        at.shared[r * kColumns + column] = sum;
      }
    } else if (at.thread < kColumns) {
      const float sum = tree_on_stack(leaves, [&](i64 r) { return at.shared[r * kColumns + column]; });
      dw[d] = add ? dw[d] + sum : sum;
    }
  }
};
template <class On, class X, class Dy>
void rms_norm_dw(Lanes& lanes, float* dw, const Dy* dy, const X* x, const float* rstd, i64 T, i64 D,
                 i64 leaves, bool add) {
  check_leaves(leaves);
  using Kernel = NormGradient<X, Dy>;
  const int columns = Kernel::kColumns;
  On::launch(lanes, Kernel{dw, dy, x, rstd, T, D, leaves, add}, blocks_for(D, columns), kThreads,
             columns * leaves);
}

// ---- cross entropy

LOCKSTEP_ANYWHERE inline float greater(float a, float b) { return a < b ? b : a; }

template <class On, class X>
void ce_max(Lanes& lanes, float* max, const X* logits, i64 M, i64 V, i64 valid) {
  const float lowest = -std::numeric_limits<float>::infinity();
  rows<On>(
      lanes, M,
      [=] LOCKSTEP_ANYWHERE(i64 m, int lane) {
        float most = lowest;
        for (i64 n = lane; n < valid; n += kLanes) most = greater(most, logits[m * V + n]);
        return most;
      },
      [=] LOCKSTEP_ANYWHERE(i64 m, int lane, const float* lane_max) {
        if (lane > 0) return;
        float most = lane_max[0];
        for (int i = 1; i < kLanes; ++i) most = greater(most, lane_max[i]);
        max[m] = most;
      });
}

// The label's column on this rank, or -1 where the label is ignored or elsewhere.
LOCKSTEP_ANYWHERE inline i64 label_column(i32 label, i64 first, i64 valid) {
  const i64 column = label - first;
  return 0 <= column && column < valid ? column : -1;
}

// One block a row; its threads are the leaves' lanes, in turn if there are more.
template <class X>
struct SumOfExponentials {
  struct State {};
  float *sum, *target;
  const X* logits;
  const float* max;
  const i32* labels;
  i64 V, valid, first, leaves;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 2; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State&) const {
    const i64 m = at.block;
    const X* row = logits + m * V;
    if (p == 0) {
      for (i64 i = at.thread; i < leaves * kLanes; i += at.threads) {
        const i64 r = i / kLanes, end = lesser(valid, leaf_begin(r + 1, V, leaves));
        float lane = 0.0f;
        for (i64 n = leaf_begin(r, V, leaves) + i % kLanes; n < end; n += kLanes)
          lane = lane + exact_exp(row[n] - max[m]);
        at.shared[i] = lane;
      }
    } else if (at.thread == 0) {
      sum[m] = tree_on_stack(leaves, [&](i64 r) { return fold_lanes(at.shared + r * kLanes); });
      const i64 column = label_column(labels[m], first, valid);
      target[m] = column < 0 ? 0.0f : float{row[column]};
    }
  }
};
template <class On, class X>
void ce_sum(Lanes& lanes, float* sum, float* target, const X* logits, const float* max, const i32* labels,
            i64 M, i64 V, i64 valid, i64 first, i64 leaves) {
  check_leaves(leaves);
  if (M < 1) return;
  const int threads = leaves < 2 ? 32 : 128;
  On::launch(lanes, SumOfExponentials<X>{sum, target, logits, max, labels, V, valid, first, leaves}, M,
             threads, leaves * kLanes);
}

// One block a sequence: all threads make terms, the first adds them in order.
struct LossOfSequence {
  struct State {
    double loss = 0.0;
  };
  double* loss;
  const float *sum, *max, *target;
  const i32* labels;
  i64 T;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 2 * blocks_for(T, kThreads) + 1; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& s) const {
    double* terms = reinterpret_cast<double*>(at.shared);
    const i64 begin = p / 2 * kThreads, row = at.block * T;
    if (begin >= T) {
      if (at.thread == 0) loss[at.block] = s.loss;
    } else if (p % 2 == 0) {
      const i64 m = row + begin + at.thread;
      if (begin + at.thread >= T || labels[m] < 0) return;
      const double log_sum = exact_log(sum[m]);
      terms[at.thread] = log_sum + static_cast<double>(max[m]) - static_cast<double>(target[m]);
    } else if (at.thread == 0) {
      for (i64 i = 0; i < lesser(kThreads, T - begin); ++i)
        if (labels[row + begin + i] >= 0) s.loss = s.loss + terms[i];
    }
  }
};
template <class On>
void ce_loss(Lanes& lanes, double* loss, const float* sum, const float* max, const float* target,
             const i32* labels, i64 B, i64 T) {
  if (B > 0) On::launch(lanes, LossOfSequence{loss, sum, max, target, labels, T}, B, kThreads, 2 * kThreads);
}

template <class On, class X>
void ce_dx(Lanes& lanes, X* logits, const float* max, const float* sum, const i32* labels, i64 M, i64 V,
           i64 valid, i64 first, float scale) {
  each<On>(lanes, M * V, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const i64 m = i / V, n = i % V;
    if (labels[m] < 0 || n >= valid) {
      logits[i] = X(0);
      return;
    }
    const float one_hot = n == label_column(labels[m], first, valid) ? 1.0f : 0.0f;
    logits[i] = static_cast<X>((exact_exp(logits[i] - max[m]) / sum[m] - one_hot) * scale);
  });
}

}  // namespace lockstep::cuda
