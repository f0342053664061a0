// The gradients of causal attention, block by block: probabilities are computed anew from the log-sum-exp of
// each row (Dao et al., "FlashAttention", 2022, appendix B). One lane has a key/value head with its group of
// query heads.
//
// For each block of keys, in ascending order, all queries that see it: chains of dk and dv over queries begin
// and end there, and dq's over keys go on from block to block. float32 has these in place. bf16 cannot: there
// they wait in scratch, or where that has no room for all queries of the group, dq is made first, by itself.
#pragma once
#include "kernels/cpu/attention.hpp"

namespace lockstep::simd {

// A key/value head of one sequence and its query heads. Rows are q_stride and k_stride apart.
template <class X, class Dkv>
struct Group {
  X* dq;
  Dkv *dk, *dv;
  const X *dO, *q, *k, *v, *o;
  const float* lse;  // of the first query head; T of each
  i64 T, heads, q_stride, k_stride, hd;
};

struct BackwardPlan {
  i64 queries, keys;  // per block
  i64 score_stride, head_stride;
  i64 gradient;                                              // floats of one query head's dk, and of its dv
  float *keys_transposed, *values_transposed, *keys_packed;  // one block of keys
  float *queries_packed, *grads_packed;                      // one block of queries: q, dO
  float *queries_wide, *grads_wide;                          // the same as rows, of bf16
  float *p, *ds;                                             // [queries, keys]
  float* stack;  // subtrees of the query heads' tree, each dk then dv; the last is the head in progress
  float* dq;     // of bf16: chains of all queries of the group, or of a block of them
  i64 dq_stride;
  bool dq_first, fits;
};

template <class V, class X>
BackwardPlan plan_backward(float* scratch, i64 T, i64 heads, i64 hd) {
  constexpr bool kWidens = !std::is_same_v<X, float>;
  BackwardPlan p;
  p.queries = 96;
  p.head_stride = round_up(hd, V::kWidth);
  p.dq_stride = round_up(heads * hd, V::kWidth);
  p.fits = false;
  for (int first = 0; first <= kWidens; ++first)
    for (i64 keys = T <= 96 ? round_up(T, 48) : 192; keys >= 48 && !p.fits; keys /= 2) {
      p.dq_first = first != 0;
      p.keys = keys;
      p.score_stride = p.keys + 16;
      p.gradient = p.keys * p.head_stride;
      float* at = scratch;
      const auto take = [&](i64 n) {
        float* here = at;
        at += n;
        return here;
      };
      p.keys_transposed = take(p.keys * hd);
      p.values_transposed = take(p.keys * hd);
      p.keys_packed = take(p.gradient);
      p.queries_packed = take(p.queries * p.head_stride);
      p.grads_packed = take(p.queries * p.head_stride);
      p.queries_wide = take(kWidens ? p.queries * p.head_stride : 0);
      p.grads_wide = take(kWidens ? p.queries * p.head_stride : 0);
      p.p = take(p.queries * p.score_stride);
      p.ds = take(p.queries * p.score_stride);
      p.stack = take((tree_depth(heads) + 1) * 2 * p.gradient);
      p.dq = take(kWidens ? (p.dq_first ? p.queries : T) * p.dq_stride : 0);
      p.fits = at - scratch <= i64(Lanes::kScratchBytes / sizeof(float));
    }
  return p;
}

// p = exp(s - lse), ds = p * (dp - delta) for the n keys that the row sees; +0 for the rest.
template <class V>
LOCKSTEP_INLINE void gradient_row(float* p, float* ds, i64 n, i64 keys, float lse, float delta) {
  i64 j = 0;
  for (; j < n && j < keys; j += V::kWidth) {
    typename V::Mask m = V::first(n - j);
    V x = V::select(m, exp(V::load(p + j) - V::all(lse)), V::zero());
    V d = V::select(m, x * (V::load(ds + j) - V::all(delta)), V::zero());
    x.store(p + j);
    d.store(ds + j);
  }
  for (; j < keys; j += V::kWidth) {
    V::zero().store(p + j);
    V::zero().store(ds + j);
  }
}

template <class V, class G>
void pack_keys(const BackwardPlan& p, const G& g, i64 key, i64 keys) {
  pack_panels<V>(p.keys_transposed, g.k + key * g.k_stride, g.k_stride, g.hd, keys, true);
  pack_panels<V>(p.values_transposed, g.v + key * g.k_stride, g.k_stride, g.hd, keys, true);
  pack_panels<V>(p.keys_packed, g.k + key * g.k_stride, g.k_stride, keys, g.hd, false);
}

// p and ds of query head h, queries [first, first + queries), by the packed keys [key, key + keys).
template <class V, class G>
void probabilities(const BackwardPlan& p, const G& g, i64 h, i64 first, i64 queries, i64 key, i64 keys) {
  const i64 offset = first - key;  // query i of the block sees keys 0 .. offset + i of the block
  const i64 at = first * g.q_stride + h * g.hd;
  const Rows q = wide_rows<V>(g.q + at, g.q_stride, queries, g.hd, p.queries_wide, p.head_stride);
  const Rows dO = wide_rows<V>(g.dO + at, g.q_stride, queries, g.hd, p.grads_wide, p.head_stride);
  scores<V>(p.p, p.score_stride, q, queries, p.keys_transposed, keys, g.hd, offset,
            attention_scale<float>(g.hd));
  scores<V>(p.ds, p.score_stride, dO, queries, p.values_transposed, keys, g.hd, offset, 1.0f);
  for (i64 i = 0; i < queries; ++i) {
    const float delta = lane_dot<V>(g.dO + at + i * g.q_stride, g.o + at + i * g.q_stride, g.hd);
    gradient_row<V>(p.p + i * p.score_stride, p.ds + i * p.score_stride, offset + i + 1, keys,
                    g.lse[h * g.T + first + i], delta);
  }
}

// dq[queries, hd] goes on with ds k.
template <class V>
void continue_dq(const BackwardPlan& p, float* dq, i64 stride, i64 queries, i64 offset, i64 keys, i64 hd) {
  for (i64 d = 0; d < hd;) {
    const i64 vectors = panel_vectors<V>(hd - d), width = vectors * V::kWidth;
    for (i64 i = 0; i < queries; i += V::kTileRows) {
      const i64 seen = offset + i + V::kTileRows < keys ? offset + i + V::kTileRows : keys;
      if (seen <= 0) continue;
      with_vectors<V>(vectors, [&](auto n) {
        Tile<V, n> t;
        float* sum = dq + i * stride + d;
        t.load(sum, stride, queries - i, hd - d);
        t.chain({p.ds + i * p.score_stride, p.score_stride, 1, queries - i}, p.keys_packed + d * keys, width,
                seen);
        t.store(sum, stride, queries - i, hd - d, false);
      });
    }
    d += width;
  }
}

// dk[keys, hd] goes on with dsT q, dv with pT dO. Key j is seen from query j - offset on.
template <class V, class G>
void continue_dk_dv(const BackwardPlan& p, const G& g, float* dk, i64 h, i64 first, i64 queries, i64 key,
                    i64 keys) {
  const i64 offset = first - key, at = first * g.q_stride + h * g.hd;
  const auto from = [&](i64 j) { return j > offset ? j - offset : i64{0}; };
  const auto to = [&](i64) { return queries; };
  pack_panels<V>(p.queries_packed, g.q + at, g.q_stride, queries, g.hd, false);
  pack_panels<V>(p.grads_packed, g.dO + at, g.q_stride, queries, g.hd, false);
  accumulate<V>(dk, p.head_stride, p.ds, 1, p.score_stride, p.queries_packed, keys, g.hd, queries, from, to);
  accumulate<V>(dk + p.gradient, p.head_stride, p.p, 1, p.score_stride, p.grads_packed, keys, g.hd, queries,
                from, to);
}

// dq's chains of some queries, a row for the group's heads side by side: zero at first, scaled at last.
template <class V>
void clear_dq(float* sums, i64 stride, i64 rows, i64 width) {
  for (i64 i = 0; i < rows; ++i)
    for (i64 d = 0; d < width; d += V::kWidth) V::zero().store(sums + i * stride + d, V::first(width - d));
}
template <class V, class X>
void finish_dq(X* dq, i64 dq_stride, const float* sums, i64 stride, i64 rows, i64 width, float scale) {
  for (i64 i = 0; i < rows; ++i)
    for (i64 d = 0; d < width; d += V::kWidth) {
      const typename V::Mask m = V::first(width - d);
      (V::all(scale) * V::load(sums + i * stride + d, m)).store(dq + i * dq_stride + d, m);
    }
}

template <class V, class G>
void dq_alone(const BackwardPlan& p, const G& g) {
  for (i64 first = 0; first < g.T; first += p.queries) {
    const i64 queries = first + p.queries < g.T ? p.queries : g.T - first;
    clear_dq<V>(p.dq, p.dq_stride, queries, g.heads * g.hd);
    for (i64 key = 0; key < first + queries; key += p.keys) {
      const i64 keys = key + p.keys < g.T ? p.keys : g.T - key;
      pack_keys<V>(p, g, key, keys);
      for (i64 h = 0; h < g.heads; ++h) {
        probabilities<V>(p, g, h, first, queries, key, keys);
        continue_dq<V>(p, p.dq + h * g.hd, p.dq_stride, queries, first - key, keys, g.hd);
      }
    }
    finish_dq<V>(g.dq + first * g.q_stride, g.q_stride, p.dq, p.dq_stride, queries, g.heads * g.hd,
                 attention_scale<float>(g.hd));
  }
}

// dk and dv of the keys [key, key + keys), and their part of dq where its chains are kept (not null).
template <class V, class G>
void attention_dx_keys(const BackwardPlan& p, const G& g, i64 key, float* dq, i64 dq_stride) {
  const i64 keys = key + p.keys < g.T ? p.keys : g.T - key;
  pack_keys<V>(p, g, key, keys);
  float* top = p.stack;
  for (i64 h = 0; h < g.heads; ++h) {
    for (i64 i = 0; i < 2 * p.gradient; i += V::kWidth) V::zero().store(top + i);
    for (i64 first = key / p.queries * p.queries; first < g.T; first += p.queries) {
      const i64 queries = first + p.queries < g.T ? p.queries : g.T - first;
      probabilities<V>(p, g, h, first, queries, key, keys);
      if (dq)
        continue_dq<V>(p, dq + first * dq_stride + h * g.hd, dq_stride, queries, first - key, keys, g.hd);
      continue_dk_dv<V>(p, g, top, h, first, queries, key, keys);
    }
    const V scale = V::all(attention_scale<float>(g.hd));
    for (i64 i = 0; i < p.gradient; i += V::kWidth) (scale * V::load(top + i)).store(top + i);
    for (int n = merges_after(h, g.heads); n > 0; --n) {
      float* left = top - 2 * p.gradient;
      for (i64 i = 0; i < 2 * p.gradient; i += V::kWidth)
        (V::load(left + i) + V::load(top + i)).store(left + i);
      top = left;
    }
    top += 2 * p.gradient;
  }
  for (i64 j = 0; j < keys; ++j)
    for (i64 d = 0; d < g.hd; d += V::kWidth) {
      const float* sum = p.stack + j * p.head_stride + d;
      const typename V::Mask m = V::first(g.hd - d);
      V::load(sum).store(g.dk + (key + j) * g.k_stride + d, m);
      V::load(sum + p.gradient).store(g.dv + (key + j) * g.k_stride + d, m);
    }
}

template <class V, class X, class Dkv>
void attention_dx_group(const BackwardPlan& p, const Group<X, Dkv>& g) {
  const i64 width = g.heads * g.hd;
  float* sums = p.dq;
  i64 stride = p.dq_stride;
  if constexpr (std::is_same_v<X, float>) sums = g.dq, stride = g.q_stride;
  if (p.dq_first)
    dq_alone<V>(p, g);
  else
    clear_dq<V>(sums, stride, g.T, width);
  for (i64 key = 0; key < g.T; key += p.keys)
    attention_dx_keys<V>(p, g, key, p.dq_first ? nullptr : sums, stride);
  if (!p.dq_first) finish_dq<V>(g.dq, g.q_stride, sums, stride, g.T, width, attention_scale<float>(g.hd));
}

template <class V, class X, class Dkv>
void attention_dx(Lanes& lanes, X* dq, Dkv* dk, Dkv* dv, const X* dO, const X* q, const X* k, const X* v,
                  const X* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd) {
  const i64 heads = H / K;
  if (!plan_backward<V, X>(static_cast<float*>(lanes.scratch(0)), T, heads, hd).fits)
    return Fallback<V>::attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
  lanes.split(B * K, 1, [&](i64 begin, i64 end, int lane) {
    const BackwardPlan plan = plan_backward<V, X>(static_cast<float*>(lanes.scratch(lane)), T, heads, hd);
    for (i64 u = begin; u < end; ++u) {
      const i64 b = u / K, kv = u % K, h = kv * heads;
      const i64 q_at = (b * T * H + h) * hd, k_at = (b * T * K + kv) * hd;
      attention_dx_group<V>(
          plan, Group<X, Dkv>{dq + q_at, dk + k_at, dv + k_at, dO + q_at, q + q_at, k + k_at, v + k_at,
                              o + q_at, lse + (b * H + h) * T, T, heads, H * hd, K * hd, hd});
    }
  });
}

}  // namespace lockstep::simd
