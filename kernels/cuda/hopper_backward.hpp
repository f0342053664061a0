// The gradient of attention for Hopper: the two kernels of flash_backward.hpp, each with two warpgroups.
// Probabilities are made while the tensor cores go on with dp, and ds while they go on with dv.
#pragma once
#include "kernels/cuda/flash_backward.hpp"
#include "kernels/cuda/hopper_forward.hpp"

namespace lockstep::cuda {

// dq: 128 queries of one head, over the keys 64 at a time. With heads of 128 a tile's part of dq is waited
// for only when the next tile's scores are there, so that a third tile has its place, and tiles that every
// query sees have a branch without masks, before which ptxas cannot move the wait for dp. The registers that
// this takes would leave, with heads of 64, one block on an SM where there are two.
template <int kHead>
struct HopperQueryGradient {
  static constexpr int kThreads = 256, kQueries = 128, kKeys = 64, kStages = kHead == 128 ? 3 : 2;
  using Queries = SwizzledRows<kHead, kQueries>;
  using Keys = SwizzledRows<kHead, kKeys>;
  static constexpr i64 kShared = 2 * Queries::kBytes + 2 * kStages * Keys::kBytes;
  static_assert(Keys::kBytes * 2 == Queries::kBytes, "o waits where keys come to lie");
  bf16* dq;
  FlashOperands in;

  i64 blocks() const { return HeadQueries<kQueries, kKeys>::blocks(in.s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const AttentionShape& s = in.s;
    const HeadQueries<kQueries, kKeys> block(s, env.block());
    const i64 b = block.b, h = block.h, first = block.first;
    const int tiles = block.tiles;
    const Queries queries{env.shared()}, gradients{queries.at + Queries::kBytes};
    char* const moving = gradients.at + Queries::kBytes;
    const Queries outputs{moving + 2 * Keys::kBytes};
    const auto keys = [&](int tile) { return Keys{moving + tile % kStages * 2 * Keys::kBytes}; };
    const auto values = [&](int tile) { return Keys{keys(tile).at + Keys::kBytes}; };
    const auto fetch_tile = [&](int tile) {
      fetch<kThreads>(env, keys(tile), in.k + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
      fetch<kThreads>(env, values(tile), in.v + s.key(b, 0, h), s.K * kHead, i64{tile} * kKeys, s.T);
      env.commit();
    };
    const int group = env.same(env.thread() / 128) * 64, row = env.thread() / 32 * 16,
              lane = env.thread() % 32;
    fetch<kThreads>(env, queries, in.q + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch<kThreads>(env, gradients, in.dO + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch<kThreads>(env, outputs, in.o + s.query(b, 0, h), s.H * kHead, first, s.T);
    fetch_tile(0);
    env.template wait<0>();
    env.sync();
    float delta[2], lse[2];
    LOCKSTEP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int mine = row + lane / 4 + 8 * half;
      delta[half] = delta_of(env, gradients, outputs, mine, lane % 4);
      lse[half] = first + mine < s.T ? in.lse[(b * s.H + h) * s.T + first + mine] * kLog2E : 0.0f;
    }
    Sums out[kHead / 8] = {}, score[kKeys / 8], ds[kKeys / 8];
    Words<4> left[kKeys / 16];
    for (int tile = 0; tile < tiles; ++tile) {
      env.template wait<0>();
      env.publish();
      env.sync();
      env.settle(score, ds);
      env.begin();
      multiply_heads<kKeys>(env, score, queries, group, keys(tile));
      env.commit_products();
      multiply_heads<kKeys>(env, ds, gradients, group, values(tile));
      env.commit_products();
      if (tile + 1 < tiles) fetch_tile(tile + 1);
      env.template wait_products<1>();
      env.settle(score, out, left);
      // The last of these keys that this lane's upper query sees, counted from the lane's first.
      const int seen = static_cast<int>(first - i64{tile} * kKeys) + row + lane / 4 - lane % 4 * 2;
      const auto probable = [&](int n, int i) {
        return env.exp2(std::fma(score[n].at[i], in.scale * kLog2E, -lse[i / 2]));
      };
      if (kStages == 2 || i64{tile + 1} * kKeys > first + row) {
        LOCKSTEP_UNROLL
        for (int n = 0; n < kKeys / 8; ++n) LOCKSTEP_UNROLL
        for (int i = 0; i < 4; ++i) score[n].at[i] = 8 * n + i % 2 > seen + i / 2 * 8 ? 0.0f : probable(n, i);
      } else {
        LOCKSTEP_UNROLL
        for (int n = 0; n < kKeys / 8; ++n) LOCKSTEP_UNROLL
        for (int i = 0; i < 4; ++i) score[n].at[i] = probable(n, i);
      }
      env.template wait_products<0>();
      env.settle(ds);
      LOCKSTEP_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) LOCKSTEP_UNROLL
      for (int i = 0; i < 4; ++i) ds[n].at[i] = score[n].at[i] * (ds[n].at[i] - delta[i / 2]);
      as_lefts<kKeys>(left, ds);
      env.settle(out, left);
      env.begin();
      multiply_down(env, out, left, keys(tile));
      env.commit_products();
      if constexpr (kStages == 2) {
        env.template wait_products<0>();
        env.settle(out, left);
      }
    }
    env.template wait_products<0>();
    env.settle(out, left);
    LOCKSTEP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const i64 query = first + row + lane / 4 + 8 * half;
      if (query >= s.T) continue;
      auto* to = reinterpret_cast<std::uint32_t*>(dq + s.query(b, query, h)) + lane % 4;
      LOCKSTEP_UNROLL
      for (int n = 0; n < kHead / 8; ++n)
        to[4 * n] = pack(in.scale * out[n].at[2 * half], in.scale * out[n].at[2 * half + 1]);
    }
  }
};

// dk and dv: 128 keys of one key head, over the queries of its query heads 64 at a time. Scores are made
// transposed, keys by queries, so that they are at once the left factor of dv = p^T dO and dk = ds^T q.
template <int kHead, class Y>
struct HopperKeyGradient {
  static constexpr int kThreads = 256, kKeys = 128, kQueries = 64;
  using Keys = SwizzledRows<kHead, kKeys>;
  using Queries = SwizzledRows<kHead, kQueries>;
  static constexpr i64 kShared = 2 * Keys::kBytes + 6 * Queries::kBytes + 2 * kQueries * sizeof(float);
  Y *dk, *dv;
  FlashOperands in;

  i64 blocks() const { return HeadKeys<kKeys>::blocks(in.s); }

  template <class Env>
  LOCKSTEP_ANYWHERE void operator()(Env& env) const {
    const AttentionShape& s = in.s;
    const HeadKeys<kKeys> block(s, env.block());
    const i64 b = block.b, kv = block.kv, per_key = block.group, first = block.first;
    const int per_head = static_cast<int>(blocks_for(s.T - first, kQueries)),
              tiles = per_head * static_cast<int>(per_key);
    const Keys keys{env.shared()}, values{keys.at + Keys::kBytes};
    char* const moving = values.at + Keys::kBytes;
    const auto queries = [&](int tile) { return Queries{moving + tile % 2 * 3 * Queries::kBytes}; };
    const auto gradients = [&](int tile) { return Queries{queries(tile).at + Queries::kBytes}; };
    const auto outputs = [&](int tile) { return Queries{queries(tile).at + 2 * Queries::kBytes}; };
    auto* const delta = reinterpret_cast<float*>(moving + 6 * Queries::kBytes);
    float* const lse = delta + kQueries;
    const auto head_of = [&](int tile) { return kv * per_key + tile / per_head; };
    const auto from = [&](int tile) { return first + i64{tile % per_head} * kQueries; };
    const auto fetch_tile = [&](int tile) {
      const i64 at = s.query(b, 0, head_of(tile)), stride = s.H * kHead;
      fetch<kThreads>(env, queries(tile), in.q + at, stride, from(tile), s.T);
      fetch<kThreads>(env, gradients(tile), in.dO + at, stride, from(tile), s.T);
      fetch<kThreads>(env, outputs(tile), in.o + at, stride, from(tile), s.T);
      env.commit();
    };
    const i64 at = s.key(b, 0, kv * per_key);
    fetch<kThreads>(env, keys, in.k + at, s.K * kHead, first, s.T);
    fetch<kThreads>(env, values, in.v + at, s.K * kHead, first, s.T);
    fetch_tile(0);
    const auto lse_of = [&](int tile) {
      const i64 query = from(tile) + env.thread() / 4;
      return query < s.T ? in.lse[(b * s.H + head_of(tile)) * s.T + query] : 0.0f;
    };
    float coming = lse_of(0);

    const int group = env.same(env.thread() / 128) * 64, row = env.thread() / 32 * 16,
              lane = env.thread() % 32;
    Sums sum_k[kHead / 8] = {}, sum_v[kHead / 8] = {}, p[kQueries / 8], ds[kQueries / 8];
    for (int tile = 0; tile < tiles; ++tile) {
      env.template wait<0>();
      env.publish();
      env.sync();
      env.settle(p, ds);
      env.begin();
      multiply_heads<kQueries>(env, p, keys, group, queries(tile));
      env.commit_products();
      multiply_heads<kQueries>(env, ds, values, group, gradients(tile));
      env.commit_products();
      if (tile + 1 < tiles) fetch_tile(tile + 1);
      {
        const int mine = env.thread() / 4;
        const float sum = delta_of(env, gradients(tile), outputs(tile), mine, env.thread() % 4);
        if (env.thread() % 4 == 0) delta[mine] = sum, lse[mine] = coming * kLog2E;
        if (tile + 1 < tiles) coming = lse_of(tile + 1);
      }
      env.sync();
      env.template wait_products<1>();
      env.settle(p);
      // The first of these queries that sees this lane's upper key, counted from the lane's first.
      const int sees = static_cast<int>(first - from(tile)) + row + lane / 4 - lane % 4 * 2;
      LOCKSTEP_UNROLL
      for (int n = 0; n < kQueries / 8; ++n) {
        const float* const of_two = lse + 8 * n + lane % 4 * 2;
        const float shift[2] = {of_two[0], of_two[1]};
        LOCKSTEP_UNROLL
        for (int i = 0; i < 4; ++i)
          p[n].at[i] = env.exp2(std::fma(p[n].at[i], in.scale * kLog2E, -shift[i % 2]));
      }
      if (from(tile) < first + row + 16) LOCKSTEP_UNROLL
      for (int n = 0; n < kQueries / 8; ++n) LOCKSTEP_UNROLL
      for (int i = 0; i < 4; ++i)
        if (8 * n + i % 2 < sees + i / 2 * 8) p[n].at[i] = 0.0f;
      Words<4> left[kQueries / 16];
      as_lefts<kQueries>(left, p);
      env.template wait_products<0>();
      env.settle(ds, sum_v, left);
      env.begin();
      multiply_down(env, sum_v, left, gradients(tile));
      env.commit_products();
      LOCKSTEP_UNROLL
      for (int n = 0; n < kQueries / 8; ++n) LOCKSTEP_UNROLL
      for (int i = 0; i < 4; ++i)
        ds[n].at[i] = p[n].at[i] * (ds[n].at[i] - delta[8 * n + lane % 4 * 2 + i % 2]);
      Words<4> other[kQueries / 16];
      as_lefts<kQueries>(other, ds);
      env.settle(sum_k, other);
      env.begin();
      multiply_down(env, sum_k, other, queries(tile));
      env.commit_products();
      env.template wait_products<0>();
      env.settle(sum_v, sum_k);
    }
    write_key_gradients(dk, dv, in, b, first + row + lane / 4, kv * per_key, lane % 4, sum_k, sum_v);
  }
};

struct HopperKernels {
  template <int kHead>
  using Forward = HopperForward<kHead>;
  template <int kHead>
  using QueryGradient = HopperQueryGradient<kHead>;
  template <int kHead, class Y>
  using KeyGradient = HopperKeyGradient<kHead, Y>;
};

}  // namespace lockstep::cuda
