// Causal attention for Hopper: as flash_forward.hpp, with two warpgroups of 64 queries each. While the tensor
// cores make the scores of one tile of keys and the products with the last tile's values, the softmax of the
// one before goes on (Shah et al., "FlashAttention-3" (2024), algorithm 2).
#pragma once
#include "kernels/cuda/flash_forward.hpp"
#include "kernels/cuda/warpgroup.hpp"

namespace lockstep::cuda {

template <int kHead>
struct HopperForward {
  static constexpr int kThreads = 256, kQueries = 128, kKeys = 128;
  using Queries = SwizzledRows<kHead, kQueries>;
  using Keys = SwizzledRows<kHead, kKeys>;
  static constexpr i64 kShared = Queries::kBytes + 4 * Keys::kBytes;
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
    const Queries queries{env.shared()};
    const auto keys = [&](int tile) { return Keys{queries.at + Queries::kBytes + tile % 2 * Keys::kBytes}; };
    const auto values = [&](int tile) {
      return Keys{queries.at + Queries::kBytes + (2 + tile % 2) * Keys::kBytes};
    };
    const auto fetch_tile = [&](const Keys& to, const bf16* from, int tile) {
      fetch<kThreads>(env, to, from + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
    };
    const auto arrive = [&] {
      env.template wait<0>();
      env.publish();
      env.sync();
    };
    fetch<kThreads>(env, queries, q + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch_tile(keys(0), k, 0);
    env.commit();

    const int group = env.same(env.thread() / 128) * 64, row = env.thread() / 32 * 16,
              lane = env.thread() % 32;
    Sums out[kHead / 8] = {}, score[kKeys / 8];
    Words<4> left[kKeys / 16];
    float max[2], sum[2] = {}, shrink[2];
    max[0] = max[1] = -std::numeric_limits<float>::infinity();
    // Scores of this tile become probabilities.
    const auto soften = [&](int tile) {
      const int seen = static_cast<int>(first - i64{tile} * kKeys) + row + lane / 4 - lane % 4 * 2;
      if (i64{tile + 1} * kKeys > first + row) LOCKSTEP_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) LOCKSTEP_UNROLL
      for (int i = 0; i < 4; ++i)
        if (8 * n + i % 2 > seen + i / 2 * 8) score[n].at[i] = -std::numeric_limits<float>::infinity();
      LOCKSTEP_UNROLL
      for (int half = 0; half < 2; ++half)
        shrink[half] = soften_row(env, score, max[half], sum[half], half, scale);
    };

    arrive();
    fetch_tile(values(0), v, 0);
    if (tiles > 1) fetch_tile(keys(1), k, 1);
    env.commit();
    env.begin();
    multiply_heads<kKeys>(env, score, queries, group, keys(0));
    env.commit_products();
    env.template wait_products<0>();
    env.settle(score);
    soften(0);
    // At the loop's head, for ptxas moves a wait up to the softmax before it, but not over a branch.
    const auto settle_last = [&] {
      env.template wait_products<0>();
      env.settle(out, left);
      LOCKSTEP_UNROLL
      for (int n = 0; n < kHead / 8; ++n) LOCKSTEP_UNROLL
      for (int i = 0; i < 4; ++i) out[n].at[i] *= shrink[i / 2];
      as_lefts<kKeys>(left, score);
    };
    for (int tile = 1; tile < tiles; ++tile) {
      settle_last();
      arrive();  // keys of this tile and values of the last
      env.settle(score, out, left);
      env.begin();
      multiply_heads<kKeys>(env, score, queries, group, keys(tile));
      env.commit_products();
      multiply_down(env, out, left, values(tile - 1));
      env.commit_products();
      fetch_tile(values(tile), v, tile);
      if (tile + 1 < tiles) fetch_tile(keys(tile + 1), k, tile + 1);
      env.commit();
      env.template wait_products<1>();
      env.settle(score);
      soften(tile);
    }
    settle_last();
    arrive();
    env.settle(out, left);
    env.begin();
    multiply_down(env, out, left, values(tiles - 1));
    env.commit_products();
    env.template wait_products<0>();
    env.settle(out);

    LOCKSTEP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const i64 query = first + row + lane / 4 + 8 * half;
      const float total = sum_of_quad(env, sum[half]), rate = 1.0f / total;
      if (query >= s.T) continue;
      auto* to = reinterpret_cast<std::uint32_t*>(o + s.query(b, query, h)) + lane % 4;
      LOCKSTEP_UNROLL
      for (int n = 0; n < kHead / 8; ++n)
        to[4 * n] = pack(out[n].at[2 * half] * rate, out[n].at[2 * half + 1] * rate);
      if (lane % 4 == 0) lse[(b * s.H + h) * s.T + query] = max[half] * scale + std::log(total);
    }
  }
};

}  // namespace lockstep::cuda
