// Causal attention in one pass over the keys, on tensor cores: Dao, "FlashAttention-2" (2023), algorithm 1. A
// block has 128 queries of one head, four warps with 32 each, and goes through the keys 64 at a time; the
// next 64 are on their way meanwhile. bf16 operands, sums and softmax in float32, probabilities rounded to
// bf16 for the second product.
#pragma once
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/warp.hpp"

namespace lockstep::cuda {

// One row of this lane's: scores become probabilities under the new maximum. Returns by how much what was
// summed before shrinks.
template <class Env, int kTiles>
LOCKSTEP_ANYWHERE float soften_row(Env& env, Sums (&score)[kTiles], float& max, float& sum, int half,
                                   float scale) {
  float most = max;
  LOCKSTEP_UNROLL
  for (int n = 0; n < kTiles; ++n)
    most = std::fmax(most, std::fmax(score[n].at[2 * half], score[n].at[2 * half + 1]));
  most = std::fmax(most, env.across(most, 1));
  most = std::fmax(most, env.across(most, 2));
  const float rate = scale * kLog2E, shrink = env.exp2((max - most) * rate), shift = most * rate;
  max = most;
  sum *= shrink;
  LOCKSTEP_UNROLL
  for (int n = 0; n < kTiles; ++n) LOCKSTEP_UNROLL
  for (int i = 2 * half; i < 2 * half + 2; ++i) {
    score[n].at[i] = env.exp2(std::fma(score[n].at[i], rate, -shift));
    sum += score[n].at[i];
  }
  return shrink;
}

template <int kHead>
struct FlashForward {
  static constexpr int kThreads = 128, kQueries = 128, kKeys = 64, kRows = 2;
  using Shared = SharedRows<kHead>;
  static constexpr i64 kTile = Shared::bytes(kKeys);
  static constexpr i64 kShared = Shared::bytes(kQueries) + 4 * kTile;
  bf16* o;
  float* lse;
  const bf16 *q, *k, *v;
  AttentionShape s;
  float scale;

  i64 blocks() const { return HeadQueries<kQueries, kKeys>::blocks(s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const HeadQueries<kQueries, kKeys> block(s, env.block());
    const i64 b = block.b, h = block.h, first = block.first;
    const int tiles = block.tiles;
    const Shared queries{env.shared()};
    const auto keys = [&](int tile) {
      return Shared{env.shared() + Shared::bytes(kQueries) + tile % 2 * 2 * kTile};
    };
    const auto values = [&](int tile) { return Shared{keys(tile).at + kTile}; };
    const auto fetch_tile = [&](int tile) {
      fetch<kThreads, kKeys>(env, keys(tile), k + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
      fetch<kThreads, kKeys>(env, values(tile), v + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
      env.commit();
    };
    fetch<kThreads, kQueries>(env, queries, q + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch_tile(0);

    const int row = env.thread() / 32 * 16 * kRows, lane = env.thread() % 32;
    Sums out[kRows][kHead / 8] = {};
    float max[kRows][2], sum[kRows][2] = {};
    for (auto& of_tile : max) of_tile[0] = of_tile[1] = -std::numeric_limits<float>::infinity();
    for (int tile = 0; tile < tiles; ++tile) {
      if (tile + 1 < tiles) {
        fetch_tile(tile + 1);
        env.template wait<1>();
      } else {
        env.template wait<0>();
      }
      env.sync();
      Sums score[kRows][kKeys / 8] = {};
      multiply_rows(env, score, queries, row, keys(tile), 0);
      // Rows whose queries do not see all of these keys.
      const int seen = static_cast<int>(first - i64{tile} * kKeys) + row + lane / 4 - lane % 4 * 2;
      if (i64{tile + 1} * kKeys > first + row) LOCKSTEP_UNROLL
      for (int r = 0; r < kRows; ++r) LOCKSTEP_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) LOCKSTEP_UNROLL
      for (int i = 0; i < 4; ++i)
        if (8 * n + i % 2 > seen + 16 * r + i / 2 * 8)
          score[r][n].at[i] = -std::numeric_limits<float>::infinity();
      LOCKSTEP_UNROLL
      for (int r = 0; r < kRows; ++r) LOCKSTEP_UNROLL
      for (int half = 0; half < 2; ++half) {
        const float shrink = soften_row(env, score[r], max[r][half], sum[r][half], half, scale);
        LOCKSTEP_UNROLL
        for (int n = 0; n < kHead / 8; ++n)
          out[r][n].at[2 * half] *= shrink, out[r][n].at[2 * half + 1] *= shrink;
      }
      LOCKSTEP_UNROLL
      for (int n = 0; n < kKeys / 8; n += 2) {
        Words<4> left[kRows];
        LOCKSTEP_UNROLL
        for (int r = 0; r < kRows; ++r) left[r] = as_left(score[r][n], score[r][n + 1]);
        multiply_columns(env, out, left, values(tile), 8 * n);
      }
      env.sync();  // before these places are filled again
    }
    LOCKSTEP_UNROLL
    for (int r = 0; r < kRows; ++r) LOCKSTEP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const i64 query = first + row + 16 * r + lane / 4 + 8 * half;
      const float total = sum_of_quad(env, sum[r][half]);
      if (query >= s.T) continue;
      auto* to = reinterpret_cast<std::uint32_t*>(o + s.query(b, query, h)) + lane % 4;
      LOCKSTEP_UNROLL
      for (int n = 0; n < kHead / 8; ++n)
        to[4 * n] = pack(out[r][n].at[2 * half] / total, out[r][n].at[2 * half + 1] / total);
      if (lane % 4 == 0) lse[(b * s.H + h) * s.T + query] = max[r][half] * scale + std::log(total);
    }
  }
};

}  // namespace lockstep::cuda
