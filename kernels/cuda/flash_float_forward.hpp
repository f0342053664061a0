// Causal attention in float32, in one pass over the keys: Dao, "FlashAttention-2" (2023), algorithm 1. A
// block has 128 queries of one head, four warps with 32 each, and goes through the keys 64 at a time. While
// scores are made the values are on their way, and the next keys while values are weighed.
#pragma once
#include "kernels/cuda/flash_float.hpp"

namespace lockstep::cuda {

template <int kHead>
struct FloatForward {
  static constexpr int kThreads = 128, kQueries = 128, kKeys = 64, kRows = 8, kColumns = 8;
  // Of a lane's columns, whose probabilities lie in shared memory at once.
  static constexpr int kPart = kColumns / 2;
  using Shared = FloatRows<kHead>;
  using Probabilities = Weights<kQueries>;
  static constexpr i64 kTile = Shared::floats(kKeys);
  static constexpr i64 kShared =
      (Shared::floats(kQueries) + 2 * kTile + Probabilities::floats(8 * kPart)) * sizeof(float);
  float *o, *lse;
  const float *q, *k, *v;
  AttentionShape s;
  float scale;

  i64 blocks() const { return HeadQueries<kQueries, kKeys>::blocks(s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const HeadQueries<kQueries, kKeys> block(s, env.block());
    const i64 b = block.b, h = block.h, first = block.first;
    const int tiles = block.tiles;
    const Shared queries{reinterpret_cast<float*>(env.shared())}, keys{queries.row(kQueries)},
        values{keys.row(kKeys)};
    const Probabilities probabilities{values.row(kKeys)};
    const auto fetch_tile = [&](const Shared& to, const float* from, int tile) {
      if (tile < tiles)
        fetch<kThreads, kKeys>(env, to, from + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
      env.commit();
    };
    fetch<kThreads, kQueries>(env, queries, q + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch_tile(keys, k, 0);
    fetch_tile(values, v, 0);

    const int warp = env.thread() / 32, lane = env.thread() % 32, column = lane % 8;
    const int row = warp * 4 * kRows + lane / 8, place = warp * 4 * kRows + lane / 8 * kRows;
    float out[kRows][kHead / 8] = {}, max[kRows], sum[kRows] = {};
    for (float& m : max) m = -std::numeric_limits<float>::infinity();
    for (int tile = 0; tile < tiles; ++tile) {
      env.template wait<1>();
      env.sync();
      float score[kRows][kColumns] = {};
      multiply_rows(score, queries, row, keys, column);
      env.sync();
      fetch_tile(keys, k, tile + 1);
      soften(env, score, max, sum, out, static_cast<int>(first - i64{tile} * kKeys) + row - column);
      env.template wait<1>();
      env.sync();
      LOCKSTEP_UNROLL
      for (int part = 0; part < kColumns; part += kPart) {
        probabilities.template put<kPart>(score, part, place, column);
        env.sync_warp();
        multiply_columns(out, probabilities, place, values, 8 * part, 8 * kPart, column);
        env.sync_warp();
      }
      env.sync();
      fetch_tile(values, v, tile + 1);
    }
    LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const i64 query = first + row + 4 * i;
      const float total = sum_of_row(env, sum[i]);
      if (query >= s.T) continue;
      write_row(o + s.query(b, query, h), out[i], 1 / total, column);
      if (column == 0) lse[(b * s.H + h) * s.T + query] = max[i] * scale + std::log(total);
    }
  }

 private:
  // Scores become probabilities under each row's new maximum, and what was summed before shrinks. Row i sees
  // the columns n with 8 n <= seen + 4 i.
  template <class Env>
  LOCKSTEP_ANYWHERE void soften(Env& env, float (&score)[kRows][kColumns], float (&max)[kRows],
                                float (&sum)[kRows], float (&out)[kRows][kHead / 8], int seen) const {
    const float rate = scale * kLog2E;
    LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; ++i) {
      float most = max[i];
      LOCKSTEP_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        if (8 * n > seen + 4 * i) score[i][n] = -std::numeric_limits<float>::infinity();
        most = std::fmax(most, score[i][n]);
      }
      LOCKSTEP_UNROLL
      for (int mask = 1; mask < 8; mask *= 2) most = std::fmax(most, env.across(most, mask));
      const float shrink = env.exp2((max[i] - most) * rate);
      max[i] = most;
      sum[i] *= shrink;
      LOCKSTEP_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        score[i][n] = env.exp2((score[i][n] - most) * rate);
        sum[i] += score[i][n];
      }
      LOCKSTEP_UNROLL
      for (float& x : out[i]) x *= shrink;
    }
  }
};

}  // namespace lockstep::cuda
