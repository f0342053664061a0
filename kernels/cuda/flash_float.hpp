// What fast attention in float32 is made of, for which tensor cores are too coarse: products of tiles in
// shared memory by fused multiply-adds, each of whose operands serves several (eight rows by eight columns a
// lane, where there are registers for it). Lanes of a warp lie 4 x 8: lane / 8 is a lane's first row, and
// every fourth from there are its rows; lane % 8 its first column, and so on by eight.
#pragma once
#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/warp.hpp"

namespace lockstep::cuda {

struct alignas(16) Four {
  float at[4];
};
LOCKSTEP_ANYWHERE inline Four& four(float* at) { return *reinterpret_cast<Four*>(at); }
LOCKSTEP_ANYWHERE inline const Four& four(const float* at) { return *reinterpret_cast<const Four*>(at); }

// Rows of kHead numbers in shared memory. They are four more apart, so that the same four of eight rows,
// which eight lanes read together, lie in all banks.
template <int kHead>
struct FloatRows {
  static constexpr int kPitch = kHead + 4;
  float* at;
  static constexpr i64 floats(int rows) { return i64{rows} * kPitch; }
  LOCKSTEP_ANYWHERE float* row(int r) const { return at + r * kPitch; }
};

// As fetch of rows in bf16 (warp.hpp).
template <int kThreads, int kFetched, int kHead, class Env>
LOCKSTEP_ANYWHERE void fetch(Env& env, const FloatRows<kHead>& to, const float* from, i64 stride, i64 first,
                             i64 end) {
  constexpr int kFours = kHead / 4, kStep = kThreads / kFours;
  static_assert(kThreads % kFours == 0 && kFetched % kStep == 0);
  const int row = env.thread() / kFours, c = env.thread() % kFours * 4;
  const int left = static_cast<int>(lesser(end - first, kFetched)) - row;
  float* const place = to.row(row) + c;
  const float* source = from + (first + row) * stride + c;
  LOCKSTEP_UNROLL
  for (int r = 0; r < kFetched; r += kStep, source += kStep * stride)
    env.copy_async(place + FloatRows<kHead>::floats(r), source, r < left);
}

// sums[i][n] += row + 4 i of a times row column + 8 n of b.
template <int kHead, int kRows, int kColumns>
LOCKSTEP_ANYWHERE void multiply_rows(float (&sums)[kRows][kColumns], const FloatRows<kHead>& a, int row,
                                     const FloatRows<kHead>& b, int column) {
  LOCKSTEP_TWICE
  for (int d = 0; d < kHead; d += 4) {
    Four left[kRows];
    LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; ++i) left[i] = four(a.row(row + 4 * i) + d);
    LOCKSTEP_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      const Four right = four(b.row(column + 8 * n) + d);
      LOCKSTEP_UNROLL
      for (int e = 0; e < 4; ++e) LOCKSTEP_UNROLL
      for (int i = 0; i < kRows; ++i) sums[i][n] = std::fma(left[i].at[e], right.at[e], sums[i][n]);
    }
  }
}

// What a warp's rows weigh, for the product with what its columns stand for: a column's weights one after
// another, a lane's rows side by side, and columns four more apart than there are rows, again for the banks.
template <int kBlockRows>
struct Weights {
  static constexpr int kPitch = kBlockRows + 4;
  float* at;
  static constexpr i64 floats(int columns) { return i64{columns} * kPitch; }

  // This lane's, of columns column + 8 n for n from `from` on, at column - 8 from. `first`: its place among
  // rows.
  template <int kCount, int kRows, int kColumns>
  LOCKSTEP_ANYWHERE void put(const float (&w)[kRows][kColumns], int from, int first, int column) const {
    LOCKSTEP_UNROLL
    for (int n = 0; n < kCount; ++n) LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; i += 4)
      four(at + (column + 8 * n) * kPitch + first +
           i) = {{w[i][from + n], w[i + 1][from + n], w[i + 2][from + n], w[i + 3][from + n]}};
  }
};

// sums[i][4 m + e] += weights of this lane's row i times `count` rows of b from `row` on, numbers
// 4 (column + 8 m) + e.
template <int kHead, int kRows, int kBlockRows>
LOCKSTEP_ANYWHERE void multiply_columns(float (&sums)[kRows][kHead / 8], const Weights<kBlockRows>& weights,
                                        int first, const FloatRows<kHead>& b, int row, int count,
                                        int column) {
  LOCKSTEP_TWICE
  for (int j = 0; j < count; ++j) {
    float w[kRows];
    LOCKSTEP_UNROLL
    for (int i = 0; i < kRows; i += 4) {
      const Four four_rows = four(weights.at + j * weights.kPitch + first + i);
      LOCKSTEP_UNROLL
      for (int e = 0; e < 4; ++e) w[i + e] = four_rows.at[e];
    }
    LOCKSTEP_UNROLL
    for (int m = 0; m < kHead / 32; ++m) {
      const Four right = four(b.row(row + j) + 4 * (column + 8 * m));
      LOCKSTEP_UNROLL
      for (int e = 0; e < 4; ++e) LOCKSTEP_UNROLL
      for (int i = 0; i < kRows; ++i) sums[i][4 * m + e] = std::fma(w[i], right.at[e], sums[i][4 * m + e]);
    }
  }
}

// This lane's part of a row of results, times `scale`.
template <int kSums>
LOCKSTEP_ANYWHERE void write_row(float* to, const float (&sums)[kSums], float scale, int column) {
  LOCKSTEP_UNROLL
  for (int m = 0; m < kSums / 4; ++m)
    four(to + 4 * (column + 8 * m)) = {
        {scale * sums[4 * m], scale * sums[4 * m + 1], scale * sums[4 * m + 2], scale * sums[4 * m + 3]}};
}

// Of the eight lanes that have a row.
template <class Env>
LOCKSTEP_ANYWHERE float sum_of_row(Env& env, float x) {
  x += env.across(x, 1);
  x += env.across(x, 2);
  return x + env.across(x, 4);
}

// Sum of dO o over a row's head, by its eight lanes; 0 for a row that is not there.
template <int kHead, class Env>
LOCKSTEP_ANYWHERE float delta_of(Env& env, const AttentionOperands<float>& in, i64 row, bool there,
                                 int column) {
  float sum = 0;
  if (there) LOCKSTEP_UNROLL
  for (int m = 0; m < kHead / 32; ++m) {
    const Four a = four(in.dO + row + 4 * (column + 8 * m)), b = four(in.o + row + 4 * (column + 8 * m));
    LOCKSTEP_UNROLL
    for (int e = 0; e < 4; ++e) sum = std::fma(a.at[e], b.at[e], sum);
  }
  return sum_of_row(env, sum);
}

}  // namespace lockstep::cuda
