// Causal attention with grouped query heads. A block makes 16 queries of one head; keys come in tiles, twice:
// for the maximum, then for probabilities and output. Head sizes above kWidth are cut into column blocks,
// each of which computes the scores again. Tiling after Dao et al., "FlashAttention" (2022), algorithm 1.
#pragma once
#include "kernels/cuda/frame.hpp"

namespace lockstep::cuda {

inline constexpr int kQueries = 16, kKeys = 32;  // of a tile
inline constexpr int kDimensions = 64;           // of the head's dimensions in shared memory, for scores
inline constexpr int kPadded = kDimensions + 1;  // so that rows lie in different banks
inline constexpr int kWidth = 128;               // columns of a block's output
inline constexpr float kLog2E = 1.44269504f;     // for who has 2^x and wants e^x

// What the kernels of attention share: rows in [B, T, heads, hd], and a block's share of the work.
struct AttentionShape {
  i64 B, T, H, K, hd;
  LOCKSTEP_ANYWHERE i64 query(i64 b, i64 i, i64 h) const { return ((b * T + i) * H + h) * hd; }
  LOCKSTEP_ANYWHERE i64 key(i64 b, i64 j, i64 h) const { return ((b * T + j) * K + h / (H / K)) * hd; }
  LOCKSTEP_ANYWHERE i64 chunks() const { return blocks_for(hd, kDimensions); }
  LOCKSTEP_ANYWHERE i64 blocks() const { return B * H * blocks_for(T, kQueries) * blocks_for(hd, kWidth); }
};
// What its gradient is made of.
template <class X>
struct AttentionOperands {
  const X *dO, *q, *k, *v, *o;
  const float* lse;
  AttentionShape s;
  float scale;
  // One lane of a query's delta: chain over head dimensions lane, lane + 16, ...
  LOCKSTEP_ANYWHERE float delta(i64 row, int lane) const {
    float sum = 0.0f;
    for (i64 d = lane; d < s.hd; d += kLanes) sum = std::fma(float{dO[row + d]}, float{o[row + d]}, sum);
    return sum;
  }
};
struct QueryBlock {  // 16 queries of one head, and some columns of their output
  i64 b, h, first, column, tiles;
  LOCKSTEP_ANYWHERE QueryBlock(const AttentionShape& s, i64 block) {
    const i64 columns = blocks_for(s.hd, kWidth), queries = blocks_for(s.T, kQueries);
    column = block % columns * kWidth, block /= columns;
    first = block % queries * kQueries, block /= queries;
    h = block % s.H, b = block / s.H;
    tiles = blocks_for(lesser(first + kQueries, s.T), kKeys);  // of keys that they see
  }
};

// A block of fast attention: some queries of one head, and the tiles of keys that they see. Blocks start in
// their order: the queries that see most keys first.
template <int kBlockQueries, int kTileKeys>
struct HeadQueries {
  i64 b, h, first;
  int tiles;
  LOCKSTEP_ANYWHERE HeadQueries(const AttentionShape& s, i64 block) {
    const i64 head = block % (s.B * s.H);
    b = head / s.H, h = head % s.H;
    first = (blocks_for(s.T, kBlockQueries) - 1 - block / (s.B * s.H)) * kBlockQueries;
    tiles = static_cast<int>(blocks_for(lesser(first + kBlockQueries, s.T), kTileKeys));
  }
  static i64 blocks(const AttentionShape& s) { return blocks_for(s.T, kBlockQueries) * s.B * s.H; }
};
// Or some keys of one key head, and how many query heads it serves: the keys that most queries see first.
template <int kBlockKeys>
struct HeadKeys {
  i64 b, kv, group, first;
  LOCKSTEP_ANYWHERE HeadKeys(const AttentionShape& s, i64 block) {
    const i64 head = block % (s.B * s.K);
    b = head / s.K, kv = head % s.K, group = s.H / s.K;
    first = block / (s.B * s.K) * kBlockKeys;
  }
  static i64 blocks(const AttentionShape& s) { return blocks_for(s.T, kBlockKeys) * s.B * s.K; }
};

// shared[i][d] = rows(first + i)[d0 + d], for rows below T and dimensions below hd; width: of a shared row.
template <class RowOf>
LOCKSTEP_ANYWHERE void load_rows(const Place& at, float* shared, int count, int deep, int width, i64 first,
                                 i64 T, i64 d0, i64 hd, const RowOf& row_of) {
  for (int e = at.thread; e < count * deep; e += at.threads) {
    const i64 i = e / deep, d = e % deep;
    if (first + i < T && d0 + d < hd) shared[i * width + d] = row_of(first + i)[d0 + d];
  }
}
// Goes on with a chain over the dimensions in shared memory.
LOCKSTEP_ANYWHERE inline float go_on(float sum, const float* a, const float* b, i64 n) {
  for (i64 d = 0; d < n; ++d) sum = std::fma(a[d], b[d], sum);
  return sum;
}

template <class X>
struct Attention {
  static constexpr int kPer = kKeys / kLanes;       // scores of a thread in a tile
  static constexpr int kOutputs = kWidth / kLanes;  // and its columns
  struct State {
    float score[kPer], out[kOutputs];
    float max, sum;
  };
  X* o;
  float* lse;
  const X *q, *k, *v;
  AttentionShape s;
  float scale;

  struct Shared {
    float *q, *k, *v, *p, *lane;
    LOCKSTEP_ANYWHERE explicit Shared(float* at)
        : q(at),
          k(q + kQueries * kPadded),
          v(k + kKeys * kPadded),
          p(v + kKeys * kWidth),
          lane(p + kQueries * kKeys) {}
  };
  static constexpr int kShared =
      (kQueries + kKeys) * kPadded + kKeys * kWidth + kQueries * kKeys + kQueries * kLanes;

  // For the maximum a tile takes two phases a chunk; then one phase; then one phase more a tile; the end.
  LOCKSTEP_ANYWHERE i64 phases(i64 block) const {
    const i64 tiles = QueryBlock(s, block).tiles;
    return 2 * tiles * s.chunks() + 1 + tiles * (2 * s.chunks() + 1) + 2;
  }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& state) const {
    const QueryBlock mine(s, at.block);
    const Shared shared(at.shared);
    const i64 first_pass = 2 * mine.tiles * s.chunks(), a_tile = 2 * s.chunks() + 1;
    const int query = at.thread / kLanes, lane = at.thread % kLanes;
    if (p == 0) state.max = -std::numeric_limits<float>::infinity();
    if (p < first_pass) {
      const i64 tile = p / (2 * s.chunks());
      scores(p % (2 * s.chunks()), tile, mine, at, shared, state);
      if (p % (2 * s.chunks()) + 1 < 2 * s.chunks()) return;
      for (int j = 0; j < kPer; ++j)
        if (sees(mine, query, tile, lane + j * kLanes))
          state.max = state.max < scale * state.score[j] ? scale * state.score[j] : state.max;
    } else if (p == first_pass) {
      shared.lane[at.thread] = state.max;
    } else if (p < first_pass + 1 + mine.tiles * a_tile) {
      if (p == first_pass + 1) begin(shared, query, state);
      const i64 tile = (p - first_pass - 1) / a_tile, part = (p - first_pass - 1) % a_tile;
      if (part + 1 == a_tile) return accumulate(tile, mine, query, lane, shared, state);
      scores(part, tile, mine, at, shared, state);
      if (part == 0)
        load_rows(at, shared.v, kKeys, kWidth, kWidth, tile * kKeys, s.T, mine.column, s.hd,
                  [&](i64 j) { return v + s.key(mine.b, j, mine.h); });
      if (part + 2 < a_tile) return;
      for (int j = 0; j < kPer; ++j)
        if (sees(mine, query, tile, lane + j * kLanes))
          shared.p[query * kKeys + lane + j * kLanes] = exact_exp(scale * state.score[j] - state.max);
    } else if (p + 2 == phases(at.block)) {
      shared.lane[at.thread] = state.sum;
    } else {
      write(mine, query, lane, shared, state);
    }
  }

 private:
  LOCKSTEP_ANYWHERE bool sees(const QueryBlock& mine, i64 query, i64 tile, i64 key) const {
    return mine.first + query < s.T && tile * kKeys + key <= mine.first + query;
  }
  LOCKSTEP_ANYWHERE void scores(i64 part, i64 tile, const QueryBlock& mine, const Place& at,
                                const Shared& shared, State& state) const {
    const i64 d0 = part / 2 * kDimensions;
    if (part % 2 == 0) {
      load_rows(at, shared.q, kQueries, kDimensions, kPadded, mine.first, s.T, d0, s.hd,
                [&](i64 i) { return q + s.query(mine.b, i, mine.h); });
      load_rows(at, shared.k, kKeys, kDimensions, kPadded, tile * kKeys, s.T, d0, s.hd,
                [&](i64 j) { return k + s.key(mine.b, j, mine.h); });
      return;
    }
    const int query = at.thread / kLanes, lane = at.thread % kLanes;
    for (int j = 0; j < kPer; ++j)
      state.score[j] = go_on(d0 == 0 ? 0.0f : state.score[j], shared.q + query * kPadded,
                             shared.k + (lane + j * kLanes) * kPadded, lesser(kDimensions, s.hd - d0));
  }
  LOCKSTEP_ANYWHERE void begin(const Shared& shared, int query, State& state) const {
    for (int i = 0; i < kLanes; ++i) {
      const float other = shared.lane[query * kLanes + i];
      state.max = state.max < other ? other : state.max;
    }
    state.sum = 0.0f;
    for (int i = 0; i < kOutputs; ++i) state.out[i] = 0.0f;
  }
  // A tile's keys are a multiple of 16, so lane and key go together from tile to tile.
  LOCKSTEP_ANYWHERE void accumulate(i64 tile, const QueryBlock& mine, int query, int lane,
                                    const Shared& shared, State& state) const {
    const float* p = shared.p + query * kKeys;
    const i64 keys = mine.first + query < s.T ? lesser(kKeys, mine.first + query + 1 - tile * kKeys) : 0;
    for (i64 j = lane; j < keys; j += kLanes) state.sum = state.sum + p[j];
    for (i64 j = 0; j < keys; ++j)
      for (int i = 0; i < kOutputs; ++i)
        state.out[i] = std::fma(p[j], shared.v[j * kWidth + lane + i * kLanes], state.out[i]);
  }
  LOCKSTEP_ANYWHERE void write(const QueryBlock& mine, int query, int lane, const Shared& shared,
                               const State& state) const {
    const i64 i = mine.first + query;
    if (i >= s.T) return;
    const float total = fold_lanes(shared.lane + query * kLanes);
    for (int c = 0; c < kOutputs; ++c) {
      const i64 d = mine.column + lane + c * kLanes;
      if (d < s.hd) o[s.query(mine.b, i, mine.h) + d] = static_cast<X>(state.out[c] / total);
    }
    if (lane == 0 && mine.column == 0) lse[(mine.b * s.H + mine.h) * s.T + i] = state.max + exact_log(total);
  }
};

template <class On, class X>
void attention(Lanes& lanes, X* o, float* lse, const X* q, const X* k, const X* v, i64 B, i64 T, i64 H, i64 K,
               i64 hd) {
  const AttentionShape s{B, T, H, K, hd};
  if (s.blocks() > 0)
    On::launch(lanes, Attention<X>{o, lse, q, k, v, s, attention_scale<float>(hd)}, s.blocks(), kThreads,
               Attention<X>::kShared);
}

}  // namespace lockstep::cuda
