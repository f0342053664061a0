// Causal attention over blocks of queries and keys: Dao et al., "FlashAttention" (2022), with the exact
// softmax of a whole row instead of the running one, because EXACT.md takes the row's maximum first.
//
// A query's chain over keys goes on from block to block in memory. Blocks and vectors above the diagonal are
// skipped; what is left of them inside a tile is +0.
#pragma once
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/vec_math.hpp"

namespace lockstep::simd {

LOCKSTEP_INLINE i64 round_up(i64 n, i64 unit) { return (n + unit - 1) / unit * unit; }

// Rows of q or dO, `row` numbers apart, of which a tile reads number by number.
struct Rows {
  const float* p;
  i64 row;
};
template <class V>
LOCKSTEP_INLINE Rows wide_rows(const float* x, i64 stride, i64, i64, float*, i64) {
  return {x, stride};
}
template <class V>
LOCKSTEP_INLINE Rows wide_rows(const bf16* x, i64 stride, i64 rows, i64 hd, float* wide, i64 wide_stride) {
  copy_rows<V>(wide, wide_stride, x, stride, rows, hd);
  return {wide, wide_stride};
}

// s[queries, keys] = scale * q kT. Query i sees the keys 0 .. first_key + i of the block; vectors that
// none of a tile's queries sees are not written.
template <class V>
void scores(float* s, i64 lds, const Rows& q, i64 queries, const float* packed_k, i64 keys, i64 hd,
            i64 first_key, float scale) {
  for (i64 j = 0; j < keys;) {
    i64 vectors = panel_vectors<V>(keys - j), width = vectors * V::kWidth;
    for (i64 i = 0; i < queries; i += V::kTileRows) {
      i64 seen = first_key + i + V::kTileRows - j;
      if (seen <= 0) continue;
      i64 needed = (seen + V::kWidth - 1) / V::kWidth;
      with_vectors<V>(needed < vectors ? needed : vectors, [&](auto n) {
        Tile<V, n> t;
        t.clear();
        t.chain({q.p + i * q.row, q.row, 1, queries - i}, packed_k + j * hd, width, hd);
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

template <class V, class X>
void attention_head(const ForwardPlan& p, X* o, float* lse, const X* q, const X* k, const X* v, i64 T,
                    i64 q_stride, i64 k_stride, i64 hd) {
  const float scale = attention_scale<float>(hd);
  const bool one_block = p.keys >= T;
  for (i64 first = 0; first < T; first += p.queries) {
    const i64 queries = first + p.queries < T ? p.queries : T - first;
    const i64 seen = first + queries;  // keys that the last query sees

    // Widened where the output's chains will be, which begin when the scores are there.
    const Rows rows = wide_rows<V>(q + first * q_stride, q_stride, queries, hd, p.acc, p.head_stride);
    for (i64 key = 0; key < seen; key += p.keys) {
      i64 keys = key + p.keys < T ? p.keys : T - key;
      if (!one_block || first == 0)
        pack_panels<V>(p.keys_packed, k + key * k_stride, k_stride, hd, keys, true);
      scores<V>(p.scores + key, p.score_stride, rows, queries, p.keys_packed, keys, hd, first - key, scale);
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
      X* out = o + (first + i) * q_stride;
      for (i64 d = 0; d < hd; d += V::kWidth)
        (V::load(p.acc + i * p.head_stride + d) / V::all(sum[i])).store(out + d, V::first(hd - d));
      lse[first + i] = max[i] + exact_log(sum[i]);
    }
  }
}

// The kernels that take over where a block does not fit in scratch: T above 48000, or hd above 2000; backward
// of a group of heads of so many numbers together that their tree does not.
template <class V>
struct Fallback {
  static inline decltype(Ops<float>::attention) attention{};
  static inline decltype(Ops<float>::attention_dx) attention_dx{};
};

template <class V, class X>
void attention(Lanes& lanes, X* o, float* lse, const X* q, const X* k, const X* v, i64 B, i64 T, i64 H, i64 K,
               i64 hd) {
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

}  // namespace lockstep::simd
