#include <algorithm>
#include <limits>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

// The label's column on this rank, or -1 where the label is ignored or elsewhere.
i64 label_column(i32 label, i64 first, i64 valid) {
  const i64 column = label - first;  // negative too where the label is
  return 0 <= column && column < valid ? column : -1;
}

template <class Real, class X>
void ce_max(Lanes& lanes, Real* max, const X* logits, i64 M, i64 V, i64 valid) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      max[m] = -std::numeric_limits<Real>::infinity();
      for (i64 n = 0; n < valid; ++n) max[m] = std::max(max[m], Real{logits[m * V + n]});
    }
  });
}

template <class Real, class X>
void ce_sum(Lanes& lanes, Real* sum, Real* target, const X* logits, const Real* max, const i32* labels, i64 M,
            i64 V, i64 valid, i64 first, i64 leaves) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const X* row = logits + m * V;
      sum[m] = tree_sum(0, leaves, [&](i64 r) {
        const i64 lo = leaf_begin(r, V, leaves), hi = std::min(valid, leaf_begin(r + 1, V, leaves));
        LaneSum<Real> leaf;  // pads would add +0
        for (i64 n = lo; n < hi; ++n) leaf.add(n - lo, exact_exp(row[n] - max[m]));
        return leaf.total();
      });
      const i64 column = label_column(labels[m], first, valid);
      target[m] = column < 0 ? Real{0} : Real{row[column]};
    }
  });
}

template <class Real>
void ce_loss(Lanes& lanes, double* loss, const Real* sum, const Real* max, const Real* target,
             const i32* labels, i64 B, i64 T) {
  lanes.split(B, 1, [&](i64 begin, i64 end, int) {
    for (i64 b = begin; b < end; ++b) {
      loss[b] = 0.0;
      for (i64 m = b * T; m < (b + 1) * T; ++m) {
        if (labels[m] < 0) continue;
        const double log_sum = exact_log(sum[m]);
        loss[b] = loss[b] + (log_sum + static_cast<double>(max[m]) - static_cast<double>(target[m]));
      }
    }
  });
}

template <class Real, class X>
void ce_dx(Lanes& lanes, X* logits, const Real* max, const Real* sum, const i32* labels, i64 M, i64 V,
           i64 valid, i64 first, Real scale) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      X* row = logits + m * V;
      if (labels[m] < 0) {
        std::fill_n(row, V, X(0));
        continue;
      }
      const i64 column = label_column(labels[m], first, valid);
      for (i64 n = 0; n < valid; ++n) {
        const Real one_hot = n == column ? 1 : 0;
        row[n] = static_cast<X>((exact_exp(row[n] - max[m]) / sum[m] - one_hot) * scale);
      }
      std::fill(row + valid, row + V, X(0));
    }
  });
}

}  // namespace

template <class Real>
void fill_cross_entropy(Ops<Real>& ops) {
  ops.ce_max.call = ce_max<Real, Real>;
  ops.ce_sum.call = ce_sum<Real, Real>;
  ops.ce_loss.call = ce_loss<Real>;
  ops.ce_dx.call = ce_dx<Real, Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<ce_max<float, bf16>>(ops.ce_max);
    set_mixed<ce_sum<float, bf16>>(ops.ce_sum);
    set_mixed<ce_dx<float, bf16>>(ops.ce_dx);
  }
}
template void fill_cross_entropy(Ops<float>&);
template void fill_cross_entropy(Ops<double>&);

}  // namespace lockstep::plain
