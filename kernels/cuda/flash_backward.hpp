// The gradient of attention on tensor cores, after Dao, "FlashAttention-2" (2023), algorithm 2, in two
// kernels that need neither atomic additions nor memory of their own: one by queries for dq, one by keys for
// dk and dv. Both compute the probabilities again from lse (7 products where algorithm 2 has 5), and delta =
// sum of dO o, a number a query.
#pragma once
#include "kernels/cuda/flash.hpp"
#include "kernels/cuda/flash_forward.hpp"

namespace lockstep::cuda {

using FlashOperands = AttentionOperands<bf16>;

// Of one row in shared memory, by four lanes: each a quarter of the head.
template <class Env, class Rows>
LOCKSTEP_ANYWHERE float delta_of(Env& env, const Rows& dO, const Rows& o, int row, int quarter) {
  float sum = 0;
  LOCKSTEP_UNROLL
  for (int c = 0; c < Rows::kChunks / 4; ++c) {
    const auto* a = reinterpret_cast<const bf16*>(dO.chunk(row, 4 * c + quarter));
    const auto* b = reinterpret_cast<const bf16*>(o.chunk(row, 4 * c + quarter));
    LOCKSTEP_UNROLL
    for (int i = 0; i < 8; ++i) sum = std::fma(float{a[i]}, float{b[i]}, sum);
  }
  return sum_of_quad(env, sum);
}

// dq: a block has 128 queries of one head, four warps with 32 each, so that what a warp reads of the keys
// serves two products, and goes through the keys 32 at a time: two blocks fit where shared memory is 227 KiB.
template <int kHead>
struct FlashQueryGradient {
  static constexpr int kThreads = 128, kQueries = 128, kKeys = 32, kRows = 2;
  using Shared = SharedRows<kHead>;
  static constexpr i64 kTile = Shared::bytes(kKeys);
  static constexpr i64 kShared = 2 * Shared::bytes(kQueries) + 4 * kTile;
  static_assert(kTile * 4 >= Shared::bytes(kQueries), "o waits where keys come to lie");
  bf16* dq;
  FlashOperands in;

  i64 blocks() const { return HeadQueries<kQueries, kKeys>::blocks(in.s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const AttentionShape& s = in.s;
    const HeadQueries<kQueries, kKeys> block(s, env.block());
    const i64 b = block.b, h = block.h, first = block.first;
    const int tiles = block.tiles;
    const Shared queries{env.shared()}, gradients{queries.at + Shared::bytes(kQueries)};
    const auto keys = [&](int tile) {
      return Shared{gradients.at + Shared::bytes(kQueries) + tile % 2 * 2 * kTile};
    };
    const auto values = [&](int tile) { return Shared{keys(tile).at + kTile}; };
    const auto fetch_tile = [&](int tile) {
      fetch<kThreads, kKeys>(env, keys(tile), in.k + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
      fetch<kThreads, kKeys>(env, values(tile), in.v + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
      env.commit();
    };
    const int row = env.thread() / 32 * 16 * kRows, lane = env.thread() % 32;
    const Shared outputs{keys(0).at};
    fetch<kThreads, kQueries>(env, queries, in.q + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch<kThreads, kQueries>(env, gradients, in.dO + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch<kThreads, kQueries>(env, outputs, in.o + s.query(b, 0, h), s.H * kHead, first, s.T);
    env.commit();
    env.template wait<0>();
    env.sync();
    float delta[kRows][2], lse[kRows][2];
    LOCKSTEP_UNROLL
    for (int r = 0; r < kRows; ++r) LOCKSTEP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int mine = row + 16 * r + lane / 4 + 8 * half;
      delta[r][half] = delta_of(env, gradients, outputs, mine, lane % 4);
      lse[r][half] = first + mine < s.T ? in.lse[(b * s.H + h) * s.T + first + mine] * kLog2E : 0.0f;
    }
    env.sync();
    fetch_tile(0);
    Sums out[kRows][kHead / 8] = {};
    for (int tile = 0; tile < tiles; ++tile) {
      if (tile + 1 < tiles) {
        fetch_tile(tile + 1);
        env.template wait<1>();
      } else {
        env.template wait<0>();
      }
      env.sync();
      Sums score[kRows][kKeys / 8] = {}, ds[kRows][kKeys / 8] = {};
      multiply_rows(env, score, queries, row, keys(tile), 0);
      multiply_rows(env, ds, gradients, row, values(tile), 0);
      // The last of these keys that this lane's upper query sees, counted from the lane's first.
      const int seen = static_cast<int>(first - i64{tile} * kKeys) + row + lane / 4 - lane % 4 * 2;
      LOCKSTEP_UNROLL
      for (int r = 0; r < kRows; ++r) LOCKSTEP_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) LOCKSTEP_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float p = 8 * n + i % 2 > seen + 16 * r + i / 2 * 8
                            ? 0.0f
                            : env.exp2(std::fma(score[r][n].at[i], in.scale * kLog2E, -lse[r][i / 2]));
        ds[r][n].at[i] = p * (ds[r][n].at[i] - delta[r][i / 2]);
      }
      LOCKSTEP_UNROLL
      for (int n = 0; n < kKeys / 8; n += 2) {
        Words<4> left[kRows];
        LOCKSTEP_UNROLL
        for (int r = 0; r < kRows; ++r) left[r] = as_left(ds[r][n], ds[r][n + 1]);
        multiply_columns(env, out, left, keys(tile), 8 * n);
      }
      env.sync();
    }
    LOCKSTEP_UNROLL
    for (int r = 0; r < kRows; ++r) LOCKSTEP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const i64 query = first + row + 16 * r + lane / 4 + 8 * half;
      if (query >= s.T) continue;
      auto* to = reinterpret_cast<std::uint32_t*>(dq + s.query(b, query, h)) + lane % 4;
      LOCKSTEP_UNROLL
      for (int n = 0; n < kHead / 8; ++n)
        to[4 * n] = pack(in.scale * out[r][n].at[2 * half], in.scale * out[r][n].at[2 * half + 1]);
    }
  }
};

LOCKSTEP_ANYWHERE inline void write_two(bf16* to, float x, float y) {
  *reinterpret_cast<std::uint32_t*>(to) = pack(x, y);
}
LOCKSTEP_ANYWHERE inline void write_two(float* to, float x, float y) {
  struct alignas(8) Two {
    float x, y;
  };
  *reinterpret_cast<Two*>(to) = {x, y};
}

// A lane's sums of keys `key` and key + 8 of query head h's key head.
template <class Y, int kTiles>
LOCKSTEP_ANYWHERE void write_key_gradients(Y* dk, Y* dv, const FlashOperands& in, i64 b, i64 key, i64 h,
                                           int quarter, const Sums (&sum_k)[kTiles],
                                           const Sums (&sum_v)[kTiles]) {
  LOCKSTEP_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (key + 8 * half >= in.s.T) continue;
    const i64 to = in.s.key(b, key + 8 * half, h) + quarter * 2;
    LOCKSTEP_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      write_two(dk + to + 8 * n, in.scale * sum_k[n].at[2 * half], in.scale * sum_k[n].at[2 * half + 1]);
      write_two(dv + to + 8 * n, sum_v[n].at[2 * half], sum_v[n].at[2 * half + 1]);
    }
  }
}

// dk and dv: a block has 128 keys of one key head, eight warps with 16 each. It goes through the query heads
// of the group and through their queries from its first key on, 64 at a time. Scores are made transposed,
// keys by queries, so that they are at once the left factor of dv = p^T dO and dk = ds^T q.
template <int kHead, class Y>
struct FlashKeyGradient {
  static constexpr int kThreads = 256, kKeys = 128, kQueries = 64, kPart = 32;
  using Shared = SharedRows<kHead>;
  static constexpr i64 kTile = Shared::bytes(kQueries);
  static constexpr i64 kShared = 2 * Shared::bytes(kKeys) + 6 * kTile + 2 * kQueries * sizeof(float);
  Y *dk, *dv;
  FlashOperands in;

  i64 blocks() const { return HeadKeys<kKeys>::blocks(in.s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const AttentionShape& s = in.s;
    const HeadKeys<kKeys> block(s, env.block());
    const i64 b = block.b, kv = block.kv, group = block.group, first = block.first;
    const int per_head = static_cast<int>(blocks_for(s.T - first, kQueries)),
              tiles = per_head * static_cast<int>(group);
    const Shared keys{env.shared()}, values{keys.at + Shared::bytes(kKeys)};
    char* const moving = values.at + Shared::bytes(kKeys);
    const auto queries = [&](int tile) { return Shared{moving + tile % 2 * 3 * kTile}; };
    const auto gradients = [&](int tile) { return Shared{queries(tile).at + kTile}; };
    const auto outputs = [&](int tile) { return Shared{queries(tile).at + 2 * kTile}; };
    auto* const delta = reinterpret_cast<float*>(moving + 6 * kTile);
    float* const lse = delta + kQueries;
    const auto head_of = [&](int tile) { return kv * group + tile / per_head; };
    const auto from = [&](int tile) { return first + i64{tile % per_head} * kQueries; };
    const auto fetch_tile = [&](int tile) {
      const i64 at = s.query(b, 0, head_of(tile)), stride = s.H * kHead;
      fetch<kThreads, kQueries>(env, queries(tile), in.q + at, stride, from(tile), s.T);
      fetch<kThreads, kQueries>(env, gradients(tile), in.dO + at, stride, from(tile), s.T);
      fetch<kThreads, kQueries>(env, outputs(tile), in.o + at, stride, from(tile), s.T);
      env.commit();
    };
    const i64 at = s.key(b, 0, kv * group);
    fetch<kThreads, kKeys>(env, keys, in.k + at, s.K * kHead, first, s.T);
    fetch<kThreads, kKeys>(env, values, in.v + at, s.K * kHead, first, s.T);
    fetch_tile(0);

    const int row = env.thread() / 32 * 16, lane = env.thread() % 32;
    Sums sum_k[1][kHead / 8] = {}, sum_v[1][kHead / 8] = {};
    for (int tile = 0; tile < tiles; ++tile) {
      if (tile + 1 < tiles) {
        fetch_tile(tile + 1);
        env.template wait<1>();
      } else {
        env.template wait<0>();
      }
      env.sync();
      {
        const int mine = env.thread() / 4;
        const float sum = delta_of(env, gradients(tile), outputs(tile), mine, env.thread() % 4);
        if (env.thread() % 4 == 0) {
          const i64 query = from(tile) + mine;
          delta[mine] = sum;
          lse[mine] = query < s.T ? in.lse[(b * s.H + head_of(tile)) * s.T + query] * kLog2E : 0.0f;
        }
      }
      env.sync();
      LOCKSTEP_ROLLED
      for (int part = 0; part < kQueries; part += kPart) {
        Sums p[1][kPart / 8] = {}, ds[1][kPart / 8] = {};
        multiply_rows(env, p, keys, row, queries(tile), part);
        multiply_rows(env, ds, values, row, gradients(tile), part);
        // The first of these queries that sees this lane's upper key, counted from the lane's first.
        const int sees = static_cast<int>(first - from(tile)) + row + lane / 4 - part - lane % 4 * 2;
        LOCKSTEP_UNROLL
        for (int n = 0; n < kPart / 8; ++n) LOCKSTEP_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int column = part + 8 * n + lane % 4 * 2 + i % 2;
          p[0][n].at[i] = 8 * n + i % 2 >= sees + i / 2 * 8
                              ? env.exp2(std::fma(p[0][n].at[i], in.scale * kLog2E, -lse[column]))
                              : 0.0f;
          ds[0][n].at[i] = p[0][n].at[i] * (ds[0][n].at[i] - delta[column]);
        }
        LOCKSTEP_UNROLL
        for (int n = 0; n < kPart / 8; n += 2) {
          const Words<4> of_p[1] = {as_left(p[0][n], p[0][n + 1])},
                         of_ds[1] = {as_left(ds[0][n], ds[0][n + 1])};
          multiply_columns(env, sum_v, of_p, gradients(tile), part + 8 * n);
          multiply_columns(env, sum_k, of_ds, queries(tile), part + 8 * n);
        }
      }
      env.sync();
    }
    write_key_gradients(dk, dv, in, b, first + row + lane / 4, kv * group, lane % 4, sum_k[0], sum_v[0]);
  }
};

struct FlashKernels {
  template <int kHead>
  using Forward = FlashForward<kHead>;
  template <int kHead>
  using QueryGradient = FlashQueryGradient<kHead>;
  template <int kHead, class Y>
  using KeyGradient = FlashKeyGradient<kHead, Y>;
};

}  // namespace lockstep::cuda
