// Cross entropy over this rank's columns of the vocabulary (ops.hpp, EXACT.md).
#pragma once
#include "kernels/cpu/rows.hpp"

namespace lockstep::simd {

// The label's column on this rank, or -1 where the label is ignored or elsewhere.
LOCKSTEP_INLINE i64 label_column(i32 label, i64 first, i64 valid) {
  const i64 column = label - first;
  return label >= 0 && 0 <= column && column < valid ? column : -1;
}

template <class V, class X>
void ce_max(Lanes& lanes, float* max, const X* logits, i64 M, i64 vocabulary, i64 valid) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const X* row = logits + m * vocabulary;
      V top = V::all(-__builtin_inff());
      for_row<V>(valid, [&](i64 n, typename V::Mask k) {
        top = V::max(V::select(k, V::load(row + n, k), top), top);
      });
      max[m] = top.largest();
    }
  });
}

template <class V, class X>
void ce_sum(Lanes& lanes, float* sum, float* target, const X* logits, const float* max, const i32* labels,
            i64 M, i64 vocabulary, i64 valid, i64 first, i64 leaves) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const X* row = logits + m * vocabulary;
      sum[m] = tree_sum(0, leaves, [&](i64 r) {
        const i64 lo = leaf_begin(r, vocabulary, leaves), next = leaf_begin(r + 1, vocabulary, leaves);
        const i64 hi = valid < next ? valid : next;
        Lanes16<V> leaf;
        for_lanes16<V>(hi - lo, [&](i64 n, int j, typename V::Mask k) {
          V p = exp(V::load(row + lo + n, k) - V::all(max[m]));
          leaf.lane[j] = leaf.lane[j] + V::select(k, p, V::zero());
        });
        return leaf.total();
      });
      const i64 column = label_column(labels[m], first, valid);
      target[m] = column < 0 ? 0.0f : float{row[column]};
    }
  });
}

template <class V, class X>
void ce_dx(Lanes& lanes, X* logits, const float* max, const float* sum, const i32* labels, i64 M,
           i64 vocabulary, i64 valid, i64 first, float scale) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      X* row = logits + m * vocabulary;
      const i64 exist = labels[m] < 0 ? 0 : valid;
      const i64 column = label_column(labels[m], first, valid);
      const float label_logit = column < 0 ? 0.0f : float{row[column]};
      for_row<V>(exist, [&](i64 n, typename V::Mask k) {
        V p = exp(V::load(row + n, k) - V::all(max[m])) / V::all(sum[m]);
        (p * V::all(scale)).store(row + n, k);
      });
      if (column >= 0)
        row[column] = static_cast<X>((exact_exp(label_logit - max[m]) / sum[m] - 1.0f) * scale);
      for_row<V>(vocabulary - exist, [&](i64 n, typename V::Mask k) { V::zero().store(row + exist + n, k); });
    }
  });
}

}  // namespace lockstep::simd
