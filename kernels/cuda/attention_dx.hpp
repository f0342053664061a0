// The gradient of attention: one kernel for dq, by queries, and one for dk and dv, by keys. Both compute the
// probabilities again from lse: Dao et al., "FlashAttention" (2022), algorithm 4.
#pragma once
#include "kernels/cuda/attention.hpp"

namespace lockstep::cuda {

// dq: a block has 16 queries of one head and goes through the keys they see.
template <class X>
struct QueryGradient {
  static constexpr int kPer = kKeys / kLanes, kOutputs = kWidth / kLanes;
  struct State {
    float score[kPer], dp[kPer], out[kOutputs];
    float delta, lse;
  };
  X* dq;
  AttentionOperands<X> in;

  struct Shared {
    float *q, *dO, *k, *v, *columns, *ds, *lane;
    LOCKSTEP_ANYWHERE explicit Shared(float* at)
        : q(at),
          dO(q + kQueries * kPadded),
          k(dO + kQueries * kPadded),
          v(k + kKeys * kPadded),
          columns(v + kKeys * kPadded),
          ds(columns + kKeys * kWidth),
          lane(ds + kQueries * kKeys) {}
  };
  static constexpr int kShared =
      2 * (kQueries + kKeys) * kPadded + kKeys * kWidth + kQueries * kKeys + kQueries * kLanes;

  LOCKSTEP_ANYWHERE i64 phases(i64 block) const {
    return 1 + QueryBlock(in.s, block).tiles * (2 * in.s.chunks() + 1) + 1;
  }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& state) const {
    const AttentionShape& s = in.s;
    const QueryBlock mine(s, at.block);
    const Shared shared(at.shared);
    const int query = at.thread / kLanes, lane = at.thread % kLanes;
    const i64 i = mine.first + query, row = s.query(mine.b, i, mine.h), a_tile = 2 * s.chunks() + 1;
    const bool there = i < s.T;
    if (p == 0) {
      if (there) shared.lane[at.thread] = in.delta(row, lane);
      return;
    }
    if (p + 1 == phases(at.block)) {
      for (int c = 0; c < kOutputs; ++c) {
        const i64 d = mine.column + lane + c * kLanes;
        if (there && d < s.hd) dq[row + d] = static_cast<X>(in.scale * state.out[c]);
      }
      return;
    }
    if (p == 1) {
      state.delta = there ? fold_lanes(shared.lane + query * kLanes) : 0.0f;
      state.lse = there ? in.lse[(mine.b * s.H + mine.h) * s.T + i] : 0.0f;
      for (int c = 0; c < kOutputs; ++c) state.out[c] = 0.0f;
    }
    const i64 tile = (p - 1) / a_tile, part = (p - 1) % a_tile, first_key = tile * kKeys;
    const i64 keys = there ? lesser(kKeys, i + 1 - first_key) : 0;
    if (part + 1 == a_tile) {
      for (i64 j = 0; j < keys; ++j)
        for (int c = 0; c < kOutputs; ++c)
          state.out[c] = std::fma(shared.ds[query * kKeys + j],
                                  shared.columns[j * kWidth + lane + c * kLanes], state.out[c]);
      return;
    }
    const auto key_row = [&](const X* x) { return [=, &s](i64 j) { return x + s.key(mine.b, j, mine.h); }; };
    const auto query_row = [&](const X* x) {
      return [=, &s](i64 r) { return x + s.query(mine.b, r, mine.h); };
    };
    const i64 d0 = part / 2 * kDimensions;
    if (part % 2 == 0) {
      load_rows(at, shared.q, kQueries, kDimensions, kPadded, mine.first, s.T, d0, s.hd, query_row(in.q));
      load_rows(at, shared.dO, kQueries, kDimensions, kPadded, mine.first, s.T, d0, s.hd, query_row(in.dO));
      load_rows(at, shared.k, kKeys, kDimensions, kPadded, first_key, s.T, d0, s.hd, key_row(in.k));
      load_rows(at, shared.v, kKeys, kDimensions, kPadded, first_key, s.T, d0, s.hd, key_row(in.v));
      if (part == 0)
        load_rows(at, shared.columns, kKeys, kWidth, kWidth, first_key, s.T, mine.column, s.hd,
                  key_row(in.k));
      return;
    }
    for (int j = 0; j < kPer; ++j) {
      const i64 key = lane + j * kLanes, n = lesser(kDimensions, s.hd - d0);
      state.score[j] =
          go_on(d0 == 0 ? 0.0f : state.score[j], shared.q + query * kPadded, shared.k + key * kPadded, n);
      state.dp[j] =
          go_on(d0 == 0 ? 0.0f : state.dp[j], shared.dO + query * kPadded, shared.v + key * kPadded, n);
      if (part + 2 < a_tile || key >= keys) continue;
      const float p_j = exact_exp(in.scale * state.score[j] - state.lse);
      shared.ds[query * kKeys + key] = p_j * (state.dp[j] - state.delta);
    }
  }
};

// dk and dv: a block has 16 keys of one key head. It goes through the query heads of the group, and through
// their queries from the first key on, 32 at a time; a query head's sums are a leaf of the group's tree.
template <class X, class Y>
struct KeyGradient {
  static constexpr int kKeysHere = 16, kQueriesHere = 32, kColumns = 64;
  static constexpr int kPer = kQueriesHere / kLanes, kOutputs = kColumns / kLanes;
  struct State {
    float score[kPer], dp[kPer];
    float out[2 * kOutputs];  // dk, then dv
    float stack[kDepth][2 * kOutputs];
    int top;
  };
  Y *dk, *dv;
  AttentionOperands<X> in;

  struct Shared {
    float *q, *dO, *k, *v, *q_columns, *dO_columns, *p, *ds, *lane;
    LOCKSTEP_ANYWHERE explicit Shared(float* at)
        : q(at),
          dO(q + kQueriesHere * kPadded),
          k(dO + kQueriesHere * kPadded),
          v(k + kKeysHere * kPadded),
          q_columns(v + kKeysHere * kPadded),
          dO_columns(q_columns + kQueriesHere * kColumns),
          p(dO_columns + kQueriesHere * kColumns),
          ds(p + kQueriesHere * kKeysHere),
          lane(ds + kQueriesHere * kKeysHere) {}
  };
  static constexpr int kShared = 2 * (kQueriesHere + kKeysHere) * kPadded + 2 * kQueriesHere * kColumns +
                                 2 * kQueriesHere * kKeysHere + kQueriesHere * kLanes;

  struct Mine {
    i64 b, kv, first, column, tiles, group;
    LOCKSTEP_ANYWHERE Mine(const AttentionShape& s, i64 block) : group(s.H / s.K) {
      const i64 columns = blocks_for(s.hd, kColumns), keys = blocks_for(s.T, kKeysHere);
      column = block % columns * kColumns, block /= columns;
      first = block % keys * kKeysHere, block /= keys;
      kv = block % s.K, b = block / s.K;
      tiles = blocks_for(s.T - first, kQueriesHere);
    }
  };
  static i64 blocks(const AttentionShape& s) {
    return s.B * s.K * blocks_for(s.T, kKeysHere) * blocks_for(s.hd, kColumns);
  }

  LOCKSTEP_ANYWHERE i64 phases(i64 block) const {
    const Mine mine(in.s, block);
    return mine.group * mine.tiles * (2 * in.s.chunks() + 1);
  }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& state) const {
    const AttentionShape& s = in.s;
    const Mine mine(s, at.block);
    const Shared shared(at.shared);
    const i64 a_tile = 2 * s.chunks() + 1, part = p % a_tile;
    const i64 tile = p / a_tile % mine.tiles, member = p / a_tile / mine.tiles;
    const i64 h = mine.kv * mine.group + member, first_query = mine.first + tile * kQueriesHere;
    if (p == 0) state.top = 0;
    if (part == 0 && tile == 0)
      for (float& x : state.out) x = 0.0f;
    if (part + 1 == a_tile) {
      accumulate(first_query, mine, at, shared, state);
      if (tile + 1 == mine.tiles) end_member(member, mine, at, state);
    } else if (part % 2 == 0) {
      load(part, first_query, h, mine, at, shared);
    } else {
      scores(part, first_query, h, mine, at, shared, state);
    }
  }

 private:
  LOCKSTEP_ANYWHERE void load(i64 part, i64 first_query, i64 h, const Mine& mine, const Place& at,
                              const Shared& shared) const {
    const AttentionShape& s = in.s;
    const i64 b = mine.b, d0 = part / 2 * kDimensions;
    const auto key_row = [&](const X* x) { return [=, &s](i64 j) { return x + s.key(b, j, h); }; };
    const auto query_row = [&](const X* x) { return [=, &s](i64 i) { return x + s.query(b, i, h); }; };
    load_rows(at, shared.q, kQueriesHere, kDimensions, kPadded, first_query, s.T, d0, s.hd, query_row(in.q));
    load_rows(at, shared.dO, kQueriesHere, kDimensions, kPadded, first_query, s.T, d0, s.hd,
              query_row(in.dO));
    load_rows(at, shared.k, kKeysHere, kDimensions, kPadded, mine.first, s.T, d0, s.hd, key_row(in.k));
    load_rows(at, shared.v, kKeysHere, kDimensions, kPadded, mine.first, s.T, d0, s.hd, key_row(in.v));
    if (part > 0) return;
    load_rows(at, shared.q_columns, kQueriesHere, kColumns, kColumns, first_query, s.T, mine.column, s.hd,
              query_row(in.q));
    load_rows(at, shared.dO_columns, kQueriesHere, kColumns, kColumns, first_query, s.T, mine.column, s.hd,
              query_row(in.dO));
    for (int e = at.thread; e < kQueriesHere * kLanes; e += at.threads)
      if (first_query + e / kLanes < s.T)
        shared.lane[e] = in.delta(s.query(b, first_query + e / kLanes, h), e % kLanes);
  }
  LOCKSTEP_ANYWHERE void scores(i64 part, i64 first_query, i64 h, const Mine& mine, const Place& at,
                                const Shared& shared, State& state) const {
    const AttentionShape& s = in.s;
    const int key = at.thread / kLanes;
    const i64 d0 = part / 2 * kDimensions, n = lesser(kDimensions, s.hd - d0);
    for (int j = 0; j < kPer; ++j) {
      const i64 query = at.thread % kLanes + j * kLanes, i = first_query + query;
      state.score[j] =
          go_on(d0 == 0 ? 0.0f : state.score[j], shared.q + query * kPadded, shared.k + key * kPadded, n);
      state.dp[j] =
          go_on(d0 == 0 ? 0.0f : state.dp[j], shared.dO + query * kPadded, shared.v + key * kPadded, n);
      if (part + 1 < 2 * s.chunks() || i >= s.T) continue;
      const float p = exact_exp(in.scale * state.score[j] - in.lse[(mine.b * s.H + h) * s.T + i]);
      shared.p[query * kKeysHere + key] = p;
      shared.ds[query * kKeysHere + key] = p * (state.dp[j] - fold_lanes(shared.lane + query * kLanes));
    }
  }
  LOCKSTEP_ANYWHERE void accumulate(i64 first_query, const Mine& mine, const Place& at, const Shared& shared,
                                    State& state) const {
    const int key = at.thread / kLanes, lane = at.thread % kLanes;
    const i64 own = mine.first + key - first_query;  // a key is seen by the queries from its own on
    for (i64 query = own > 0 ? own : 0; query < lesser(kQueriesHere, in.s.T - first_query); ++query)
      for (int c = 0; c < kOutputs; ++c) {
        const i64 at_column = query * kColumns + lane + c * kLanes;
        const float ds = shared.ds[query * kKeysHere + key], p = shared.p[query * kKeysHere + key];
        state.out[c] = std::fma(ds, shared.q_columns[at_column], state.out[c]);
        state.out[kOutputs + c] = std::fma(p, shared.dO_columns[at_column], state.out[kOutputs + c]);
      }
  }
  LOCKSTEP_ANYWHERE void end_member(i64 member, const Mine& mine, const Place& at, State& state) const {
    for (int c = 0; c < 2 * kOutputs; ++c)
      state.stack[state.top][c] = c < kOutputs ? in.scale * state.out[c] : state.out[c];
    ++state.top;
    for (int m = merges_after(member, mine.group); m > 0; --m, --state.top)
      for (int c = 0; c < 2 * kOutputs; ++c)
        state.stack[state.top - 2][c] = state.stack[state.top - 2][c] + state.stack[state.top - 1][c];
    const i64 j = mine.first + at.thread / kLanes;
    if (member + 1 < mine.group || j >= in.s.T) return;
    const i64 row = ((mine.b * in.s.T + j) * in.s.K + mine.kv) * in.s.hd;
    for (int c = 0; c < kOutputs; ++c) {
      const i64 d = mine.column + at.thread % kLanes + c * kLanes;
      if (d >= in.s.hd) continue;
      dk[row + d] = static_cast<Y>(state.stack[0][c]);
      dv[row + d] = static_cast<Y>(state.stack[0][kOutputs + c]);
    }
  }
};

template <class On, class X, class Y>
void attention_dx(Lanes& lanes, X* dq, Y* dk, Y* dv, const X* dO, const X* q, const X* k, const X* v,
                  const X* o, const float* lse, i64 B, i64 T, i64 H, i64 K, i64 hd) {
  const AttentionOperands<X> in{dO, q, k, v, o, lse, {B, T, H, K, hd}, attention_scale<float>(hd)};
  if (in.s.blocks() == 0) return;
  check_leaves(H / K);
  On::launch(lanes, QueryGradient<X>{dq, in}, in.s.blocks(), kThreads, QueryGradient<X>::kShared);
  On::launch(lanes, KeyGradient<X, Y>{dk, dv, in}, KeyGradient<X, Y>::blocks(in.s), kThreads,
             KeyGradient<X, Y>::kShared);
}

}  // namespace lockstep::cuda
