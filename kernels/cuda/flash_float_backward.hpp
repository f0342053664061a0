// The gradient of attention in float32, as flash_backward.hpp makes that in bf16: one kernel by queries for
// dq, one by keys for dk and dv, without atomic additions or memory of their own. Four warps with 16 rows
// each, and tiles of 64 columns; what the first product of a tile reads is fetched first.
#pragma once
#include "kernels/cuda/flash_float_forward.hpp"

namespace lockstep::cuda {

// What both have: 64 rows of a block that stay, 64 rows a tile that move, and weights between them.
template <int kHead>
struct FloatGradient {
  static constexpr int kThreads = 128, kSide = 64, kRows = 4, kColumns = 8;
  using Shared = FloatRows<kHead>;
  using Factor = Weights<kSide>;
  static constexpr i64 kFloats = 4 * Shared::floats(kSide) + Factor::floats(kSide);
  using Tile = float[kRows][kColumns];
};

template <int kHead>
struct FloatQueryGradient : FloatGradient<kHead> {
  using Base = FloatGradient<kHead>;
  using Base::kColumns, Base::kRows, Base::kSide, Base::kThreads;
  using typename Base::Factor;
  using typename Base::Shared;
  static constexpr i64 kShared = Base::kFloats * sizeof(float);
  float* dq;
  AttentionOperands<float> in;

  FloatQueryGradient(float* to, const AttentionOperands<float>& from) : dq(to), in(from) {}
  i64 blocks() const { return HeadQueries<kSide, kSide>::blocks(in.s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const AttentionShape& s = in.s;
    const HeadQueries<kSide, kSide> block(s, env.block());
    const i64 b = block.b, h = block.h, first = block.first;
    const int tiles = block.tiles;
    const Shared queries{reinterpret_cast<float*>(env.shared())}, gradients{queries.row(kSide)},
        keys{gradients.row(kSide)}, values{keys.row(kSide)};
    const Factor factor{values.row(kSide)};
    const auto fetch_tile = [&](const Shared& to, const float* from, int tile) {
      if (tile < tiles)
        fetch<kThreads, kSide>(env, to, from + s.key(b, 0, h), s.K * kHead, i64{tile} * kSide, s.T);
      env.commit();
    };
    fetch<kThreads, kSide>(env, gradients, in.dO + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch_tile(values, in.v, 0);
    fetch<kThreads, kSide>(env, queries, in.q + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch_tile(keys, in.k, 0);

    const int warp = env.thread() / 32, lane = env.thread() % 32, column = lane % 8;
    const int row = warp * 4 * kRows + lane / 8, place = warp * 4 * kRows + lane / 8 * kRows;
    float delta[kRows], lse[kRows], out[kRows][kHead / 8] = {};
    LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const i64 query = first + row + 4 * i;
      const bool there = query < s.T;
      delta[i] = delta_of<kHead>(env, in, s.query(b, query, h), there, column);
      lse[i] = there ? in.lse[(b * s.H + h) * s.T + query] : 0.0f;
    }
    for (int tile = 0; tile < tiles; ++tile) {
      env.template wait<1>();
      env.sync();
      typename Base::Tile ds = {}, score = {};
      multiply_rows(ds, gradients, row, values, column);
      env.template wait<0>();
      env.sync();
      fetch_tile(values, in.v, tile + 1);
      multiply_rows(score, queries, row, keys, column);
      const int seen = static_cast<int>(first - i64{tile} * kSide) + row - column;
      LOCKSTEP_UNROLL
      for (int i = 0; i < kRows; ++i) LOCKSTEP_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        const float p =
            8 * n > seen + 4 * i ? 0.0f : env.exp2(kLog2E * std::fma(score[i][n], in.scale, -lse[i]));
        ds[i][n] = p * (ds[i][n] - delta[i]);
      }
      factor.template put<kColumns>(ds, 0, place, column);
      env.sync_warp();
      multiply_columns(out, factor, place, keys, 0, kSide, column);
      env.sync();
      fetch_tile(keys, in.k, tile + 1);
    }
    LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; ++i)
      if (const i64 query = first + row + 4 * i; query < s.T)
        write_row(dq + s.query(b, query, h), out[i], in.scale, column);
  }
};

// A block goes through the query heads of its key head's group, and through their queries from its first key
// on.
template <int kHead, class Y>
struct FloatKeyGradient : FloatGradient<kHead> {
  using Base = FloatGradient<kHead>;
  using Base::kColumns, Base::kRows, Base::kSide, Base::kThreads;
  using typename Base::Factor;
  using typename Base::Shared;
  static constexpr i64 kShared = (Base::kFloats + 2 * kSide) * sizeof(float);
  Y *dk, *dv;
  AttentionOperands<float> in;

  FloatKeyGradient(Y* to_k, Y* to_v, const AttentionOperands<float>& from) : dk(to_k), dv(to_v), in(from) {}
  i64 blocks() const { return HeadKeys<kSide>::blocks(in.s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const AttentionShape& s = in.s;
    const HeadKeys<kSide> block(s, env.block());
    const i64 b = block.b, kv = block.kv, group = block.group, first = block.first;
    const int per_head = static_cast<int>(blocks_for(s.T - first, kSide)),
              tiles = per_head * static_cast<int>(group);
    const Shared keys{reinterpret_cast<float*>(env.shared())}, values{keys.row(kSide)},
        queries{values.row(kSide)}, gradients{queries.row(kSide)};
    const Factor factor{gradients.row(kSide)};
    float *const delta = factor.at + Factor::floats(kSide), *const lse = delta + kSide;
    const auto head_of = [&](int tile) { return kv * group + tile / per_head; };
    const auto from = [&](int tile) { return first + i64{tile % per_head} * kSide; };
    const auto fetch_tile = [&](const Shared& to, const float* rows, int tile) {
      if (tile < tiles)
        fetch<kThreads, kSide>(env, to, rows + s.query(b, 0, head_of(tile)), s.H * kHead, from(tile), s.T);
      env.commit();
    };
    const i64 at = s.key(b, 0, kv * group);
    fetch<kThreads, kSide>(env, values, in.v + at, s.K * kHead, first, s.T);
    fetch_tile(gradients, in.dO, 0);
    fetch<kThreads, kSide>(env, keys, in.k + at, s.K * kHead, first, s.T);
    fetch_tile(queries, in.q, 0);

    const int warp = env.thread() / 32, lane = env.thread() % 32, column = lane % 8;
    const int row = warp * 4 * kRows + lane / 8, place = warp * 4 * kRows + lane / 8 * kRows;
    float sum_k[kRows][kHead / 8] = {}, sum_v[kRows][kHead / 8] = {};
    for (int tile = 0; tile < tiles; ++tile) {
      LOCKSTEP_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const i64 query = from(tile) + row + 4 * i;
        const bool there = query < s.T;
        const float sum = delta_of<kHead>(env, in, s.query(b, query, head_of(tile)), there, column);
        if (column > 0) continue;
        delta[row + 4 * i] = sum;
        lse[row + 4 * i] = there ? in.lse[(b * s.H + head_of(tile)) * s.T + query] : 0.0f;
      }
      env.template wait<1>();
      env.sync();
      typename Base::Tile ds = {}, p = {};
      multiply_rows(ds, values, row, gradients, column);
      env.template wait<0>();
      env.sync();
      multiply_rows(p, keys, row, queries, column);
      // Query column + 8 n sees key row + 4 i if it is not before it.
      const int sees = static_cast<int>(first - from(tile)) + row - column;
      LOCKSTEP_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        const float of_query = delta[column + 8 * n], shift = lse[column + 8 * n];
        LOCKSTEP_UNROLL
        for (int i = 0; i < kRows; ++i) {
          p[i][n] = 8 * n >= sees + 4 * i ? env.exp2(kLog2E * std::fma(p[i][n], in.scale, -shift)) : 0.0f;
          ds[i][n] = p[i][n] * (ds[i][n] - of_query);
        }
      }
      factor.template put<kColumns>(p, 0, place, column);
      env.sync_warp();
      multiply_columns(sum_v, factor, place, gradients, 0, kSide, column);
      env.sync();
      fetch_tile(gradients, in.dO, tile + 1);
      factor.template put<kColumns>(ds, 0, place, column);
      env.sync_warp();
      multiply_columns(sum_k, factor, place, queries, 0, kSide, column);
      env.sync();
      fetch_tile(queries, in.q, tile + 1);
    }
    LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const i64 key = first + row + 4 * i;
      if (key >= s.T) continue;
      write_row(dk + s.key(b, key, kv * group), sum_k[i], in.scale, column);
      write_row(dv + s.key(b, key, kv * group), sum_v[i], 1.0f, column);
    }
  }
};

struct FloatKernels {
  template <int kHead>
  using Forward = FloatForward<kHead>;
  template <int kHead>
  using QueryGradient = FloatQueryGradient<kHead>;
  template <int kHead, class Y>
  using KeyGradient = FloatKeyGradient<kHead, Y>;
};

}  // namespace lockstep::cuda
