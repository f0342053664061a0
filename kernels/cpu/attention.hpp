// Causal attention over blocks of queries and keys: Dao et al., "FlashAttention" (2022), with the exact
// softmax of a whole row instead of the running one, because EXACT.md takes the row's maximum first.
//
// Chains over keys (o, dq) and over queries (dk, dv) go on from block to block in memory. Blocks and
// vectors above the diagonal are skipped; what is left of them inside a tile is +0.
#pragma once
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/vec_math.hpp"

namespace lockstep::simd {

LOCKSTEP_INLINE i64 round_up(i64 n, i64 unit) { return (n + unit - 1) / unit * unit; }

// s[queries, keys] = scale * q kT. Query i sees the keys 0 .. first_key + i of the block; vectors that
// none of a tile's queries sees are not written.
template <class V>
void scores(float* s, i64 lds, const float* q, i64 q_stride, i64 queries, const float* packed_k, i64 keys,
            i64 hd, i64 first_key, float scale) {
  for (i64 j = 0; j < keys;) {
    i64 vectors = panel_vectors<V>(keys - j), width = vectors * V::kWidth;
    for (i64 i = 0; i < queries; i += V::kTileRows) {
      i64 seen = first_key + i + V::kTileRows - j;
      if (seen <= 0) continue;
      i64 needed = (seen + V::kWidth - 1) / V::kWidth;
      with_vectors<V>(needed < vectors ? needed : vectors, [&](auto n) {
        Tile<V, n> t;
        t.clear();
        t.chain({q + i * q_stride, q_stride, 1, queries - i}, packed_k + j * hd, width, hd);
        t.multiply(scale);
        t.store(s + i * lds + j, lds);
      });
    }
    j += width;
  }
}

// acc[rows, cols] goes on with A B, B packed with `depth` rows, of which a tile at row i runs over
// [from(i), to(i)). A(i, k) = a[i * a_row + k * a_col].
template <class V, class From, class To>
void accumulate(float* acc, i64 ld, const float* a, i64 a_row, i64 a_col, const float* packed, i64 rows,
                i64 cols, i64 depth, From from, To to) {
  for (i64 j = 0; j < cols;) {
    i64 vectors = panel_vectors<V>(cols - j), width = vectors * V::kWidth;
    for (i64 i = 0; i < rows; i += V::kTileRows) {
      i64 begin = from(i), end = to(i);
      if (begin >= end) continue;
      with_vectors<V>(vectors, [&](auto n) {
        Tile<V, n> t;
        t.load(acc + i * ld + j, ld);
        t.chain({a + i * a_row + begin * a_col, a_row, a_col, rows - i}, packed + j * depth + begin * width,
                width, end - begin);
        t.store(acc + i * ld + j, ld);
      });
    }
    j += width;
  }
}

// ---- forward

// How a lane's scratch is shared out: scores of a block of queries against all keys, one block of keys and
// values packed, and the output's chains.
struct ForwardPlan {
  i64 queries, keys;  // per block
  i64 score_stride, head_stride;
  float *scores, *keys_packed, *values_packed, *acc;
  bool fits;
};

template <class V>
ForwardPlan plan_forward(float* scratch, i64 T, i64 hd) {
  constexpr i64 kScores = 3 << 17, kPacked = 1 << 18, kAcc = 1 << 17;
  static_assert(kScores + 2 * kPacked + kAcc <= i64(Lanes::kScratchBytes / sizeof(float)));
  ForwardPlan p;
  p.head_stride = round_up(hd, V::kWidth);
  p.score_stride = round_up(T, 16) + 16;  // odd number of lines: rows do not fall on the same cache sets
  p.queries = kScores / p.score_stride / V::kTileRows * V::kTileRows;
  const i64 most = 64 / V::kTileRows * V::kTileRows;
  if (p.queries > most) p.queries = most;
  p.keys = kPacked / p.head_stride;
  p.keys =
      p.keys >= round_up(T, V::kWidth) ? T : p.keys / 48 * 48;  // whole panels, unless it is the only block
  p.scores = scratch;
  p.keys_packed = p.scores + kScores;
  p.values_packed = p.keys_packed + kPacked;
  p.acc = p.values_packed + kPacked;
  p.fits = p.queries > 0 && p.keys > 0 && p.queries * p.head_stride <= kAcc;
  return p;
}

// A row of scores becomes exp(s - max), +0 beyond the n keys it sees up to `end`.
template <class V>
LOCKSTEP_INLINE void softmax_row(float* s, i64 n, i64 end, float& max, float& sum) {
  V top = V::all(-std::numeric_limits<float>::infinity());
  i64 i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) top = V::max(V::load(s + i), top);
  if (i < n) top = V::max(V::select(V::first(n - i), V::load(s + i), top), top);
  max = top.largest();
  Lanes16<V> lanes;
  for_lanes16<V>(n, [&](i64 k, int j, typename V::Mask m) {
    V p = V::select(m, exp(V::load(s + k) - V::all(max)), V::zero());
    p.store(s + k);
    lanes.lane[j] = lanes.lane[j] + p;
  });
  for (i = round_up(n, 16); i < end; i += V::kWidth) V::zero().store(s + i);
  sum = lanes.total();
}

template <class V>
void attention_head(const ForwardPlan& p, float* o, float* lse, const float* q, const float* k,
                    const float* v, i64 T, i64 q_stride, i64 k_stride, i64 hd) {
  const float scale = attention_scale<float>(hd);
  const bool one_block = p.keys >= T;
  for (i64 first = 0; first < T; first += p.queries) {
    const i64 queries = first + p.queries < T ? p.queries : T - first;
    const i64 seen = first + queries;  // keys that the last query sees

    for (i64 key = 0; key < seen; key += p.keys) {
      i64 keys = key + p.keys < T ? p.keys : T - key;
      if (!one_block || first == 0)
        pack_panels<V>(p.keys_packed, k + key * k_stride, k_stride, hd, keys, true);
      scores<V>(p.scores + key, p.score_stride, q + first * q_stride, q_stride, queries, p.keys_packed, keys,
                hd, first - key, scale);
    }

    float max[64], sum[64];
    for (i64 i = 0; i < queries; ++i) {
      i64 tile_end = first + i / V::kTileRows * V::kTileRows + V::kTileRows;
      softmax_row<V>(p.scores + i * p.score_stride, first + i + 1, tile_end, max[i], sum[i]);
    }

    for (i64 i = 0; i < round_up(queries, V::kTileRows) * p.head_stride; i += V::kWidth)
      V::zero().store(p.acc + i);
    for (i64 key = 0; key < seen; key += p.keys) {
      i64 keys = key + p.keys < T ? p.keys : T - key;
      if (!one_block || first == 0)
        pack_panels<V>(p.values_packed, v + key * k_stride, k_stride, keys, hd, false);
      accumulate<V>(
          p.acc, p.head_stride, p.scores + key, p.score_stride, 1, p.values_packed, queries, hd, keys,
          [](i64) { return i64{0}; },
          [&](i64 i) {
            i64 end = first + i + V::kTileRows - key;
            return end < keys ? end : keys;
          });
    }

    for (i64 i = 0; i < queries; ++i) {
      float* out = o + (first + i) * q_stride;
      for (i64 d = 0; d < hd; d += V::kWidth)
        (V::load(p.acc + i * p.head_stride + d) / V::all(sum[i])).store(out + d, V::first(hd - d));
      lse[first + i] = max[i] + exact_log(sum[i]);
    }
  }
}

// The kernel that takes over where a block does not fit in scratch (T above 48000, or hd above 2000).
template <class V>
struct Fallback {
  static inline decltype(Ops<float>::attention.call) attention = nullptr;
  static inline decltype(Ops<float>::attention_dx.call) attention_dx = nullptr;
};

template <class V>
void attention(Lanes& lanes, float* o, float* lse, const float* q, const float* k, const float* v, i64 B,
               i64 T, i64 H, i64 K, i64 hd) {
  if (!plan_forward<V>(static_cast<float*>(lanes.scratch(0)), T, hd).fits)
    return Fallback<V>::attention(lanes, o, lse, q, k, v, B, T, H, K, hd);
  lanes.split(B * H, 1, [&](i64 begin, i64 end, int lane) {
    const ForwardPlan plan = plan_forward<V>(static_cast<float*>(lanes.scratch(lane)), T, hd);
    for (i64 u = begin; u < end; ++u) {
      i64 b = u / H, h = u % H, kv = h / (H / K);
      i64 q_at = (b * T * H + h) * hd, k_at = (b * T * K + kv) * hd;
      attention_head<V>(plan, o + q_at, lse + u * T, q + q_at, k + k_at, v + k_at, T, H * hd, K * hd, hd);
    }
  });
}

// ---- backward

struct BackwardPlan {
  i64 queries, keys;  // per block
  i64 score_stride, head_stride;
  i64 gradient;                                              // floats of one query head's dk, and of its dv
  float *keys_transposed, *values_transposed, *keys_packed;  // one block of keys
  float *queries_packed, *grads_packed;                      // one block of queries: q, dO
  float *p, *ds;                                             // [queries, keys]
  float* stack;  // subtrees of the query heads' tree, each dk then dv; the last is the head in progress
  bool fits;
};

template <class V>
BackwardPlan plan_backward(float* scratch, i64 T, i64 group, i64 hd) {
  BackwardPlan p;
  p.queries = 96;
  p.head_stride = round_up(hd, V::kWidth);
  p.fits = false;
  for (i64 keys = T <= 96 ? round_up(T, 48) : 192; keys >= 48 && !p.fits; keys /= 2) {
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
    p.p = take(p.queries * p.score_stride);
    p.ds = take(p.queries * p.score_stride);
    p.stack = take((tree_depth(group) + 1) * 2 * p.gradient);
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

// One query head against the block of keys [key, key + keys): its dk, dv into `dk`, and its part of dq.
template <class V>
void attention_dx_block(const BackwardPlan& p, float* dk, float* dq, const float* dO, const float* q,
                        const float* o, const float* lse, i64 T, i64 key, i64 keys, i64 stride, i64 hd) {
  const float scale = attention_scale<float>(hd);
  float* dv = dk + p.gradient;
  for (i64 i = 0; i < 2 * p.gradient; i += V::kWidth) V::zero().store(dk + i);

  for (i64 first = key / p.queries * p.queries; first < T; first += p.queries) {
    const i64 queries = first + p.queries < T ? p.queries : T - first;
    const i64 offset = first - key;  // query i of the block sees keys 0 .. offset + i of the block
    const i64 at = first * stride;
    scores<V>(p.p, p.score_stride, q + at, stride, queries, p.keys_transposed, keys, hd, offset, scale);
    scores<V>(p.ds, p.score_stride, dO + at, stride, queries, p.values_transposed, keys, hd, offset, 1.0f);
    for (i64 i = 0; i < queries; ++i) {
      float delta = lane_dot<V>(dO + at + i * stride, o + at + i * stride, hd);
      gradient_row<V>(p.p + i * p.score_stride, p.ds + i * p.score_stride, offset + i + 1, keys,
                      lse[first + i], delta);
    }

    // dq[queries, hd] goes on with ds k, in place.
    for (i64 d = 0; d < hd;) {
      i64 vectors = panel_vectors<V>(hd - d), width = vectors * V::kWidth;
      for (i64 i = 0; i < queries; i += V::kTileRows) {
        i64 seen = offset + i + V::kTileRows < keys ? offset + i + V::kTileRows : keys;
        if (seen <= 0) continue;
        with_vectors<V>(vectors, [&](auto n) {
          Tile<V, n> t;
          t.load(dq + at + i * stride + d, stride, queries - i, hd - d);
          t.chain({p.ds + i * p.score_stride, p.score_stride, 1, queries - i}, p.keys_packed + d * keys,
                  width, seen);
          t.store(dq + at + i * stride + d, stride, queries - i, hd - d, false);
        });
      }
      d += width;
    }

    // dk[keys, hd] goes on with dsT q, dv with pT dO. Key j is seen from query j - offset on.
    const auto from = [&](i64 j) { return j > offset ? j - offset : i64{0}; };
    const auto to = [&](i64) { return queries; };
    pack_panels<V>(p.queries_packed, q + at, stride, queries, hd, false);
    pack_panels<V>(p.grads_packed, dO + at, stride, queries, hd, false);
    accumulate<V>(dk, p.head_stride, p.ds, 1, p.score_stride, p.queries_packed, keys, hd, queries, from, to);
    accumulate<V>(dv, p.head_stride, p.p, 1, p.score_stride, p.grads_packed, keys, hd, queries, from, to);
  }
  for (i64 i = 0; i < p.gradient; i += V::kWidth) (V::all(scale) * V::load(dk + i)).store(dk + i);
}

// One kv head with its group of query heads. Pointers are at sequence b; lse at its first query head.
template <class V>
void attention_dx_group(const BackwardPlan& p, float* dq, float* dk, float* dv, const float* dO,
                        const float* q, const float* k, const float* v, const float* o, const float* lse,
                        i64 T, i64 group, i64 q_stride, i64 k_stride, i64 hd) {
  const auto for_dq = [&](auto f) {
    for (i64 i = 0; i < T; ++i)
      for (i64 d = 0; d < group * hd; d += V::kWidth) f(dq + i * q_stride + d, V::first(group * hd - d));
  };
  for_dq([](float* at, typename V::Mask m) { V::zero().store(at, m); });

  for (i64 key = 0; key < T; key += p.keys) {
    const i64 keys = key + p.keys < T ? p.keys : T - key;
    pack_panels<V>(p.keys_transposed, k + key * k_stride, k_stride, hd, keys, true);
    pack_panels<V>(p.values_transposed, v + key * k_stride, k_stride, hd, keys, true);
    pack_panels<V>(p.keys_packed, k + key * k_stride, k_stride, keys, hd, false);

    float* top = p.stack;
    for (i64 h = 0; h < group; ++h) {
      const i64 at = h * hd;
      attention_dx_block<V>(p, top, dq + at, dO + at, q + at, o + at, lse + h * T, T, key, keys, q_stride,
                            hd);
      for (int n = merges_after(h, group); n > 0; --n) {
        float* left = top - 2 * p.gradient;
        for (i64 i = 0; i < 2 * p.gradient; i += V::kWidth)
          (V::load(left + i) + V::load(top + i)).store(left + i);
        top = left;
      }
      top += 2 * p.gradient;
    }

    for (i64 j = 0; j < keys; ++j)
      for (i64 d = 0; d < hd; d += V::kWidth) {
        const float* sum = p.stack + j * p.head_stride + d;
        V::load(sum).store(dk + (key + j) * k_stride + d, V::first(hd - d));
        V::load(sum + p.gradient).store(dv + (key + j) * k_stride + d, V::first(hd - d));
      }
  }
  const float scale = attention_scale<float>(hd);
  for_dq([&](float* at, typename V::Mask m) { (V::all(scale) * V::load(at, m)).store(at, m); });
}

template <class V>
void attention_dx(Lanes& lanes, float* dq, float* dk, float* dv, const float* dO, const float* q,
                  const float* k, const float* v, const float* o, const float* lse, i64 B, i64 T, i64 H,
                  i64 K, i64 hd) {
  const i64 group = H / K;
  if (!plan_backward<V>(static_cast<float*>(lanes.scratch(0)), T, group, hd).fits)
    return Fallback<V>::attention_dx(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
  lanes.split(B * K, 1, [&](i64 begin, i64 end, int lane) {
    const BackwardPlan plan = plan_backward<V>(static_cast<float*>(lanes.scratch(lane)), T, group, hd);
    for (i64 u = begin; u < end; ++u) {
      i64 b = u / K, kv = u % K, h = kv * group;
      i64 q_at = (b * T * H + h) * hd, k_at = (b * T * K + kv) * hd;
      attention_dx_group<V>(plan, dq + q_at, dk + k_at, dv + k_at, dO + q_at, q + q_at, k + k_at, v + k_at,
                            o + q_at, lse + (b * H + h) * T, T, group, H * hd, K * hd, hd);
    }
  });
}

}  // namespace lockstep::simd
