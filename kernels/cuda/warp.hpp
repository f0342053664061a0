// How kernels on tensor cores are written: as a block of threads that call an environment for all that they
// do together. On a GPU that is `Warp` (warp.cuh), a few instructions of PTX; in tests it is a block of
// fibers on the host, which does the same lane by lane (suites/tests/warp_fibers.hpp). So one source runs on
// both.
//
//   int thread(), i64 block(), char* shared()
//   void sync()                                     all threads of the block
//   void sync_warp()                                all lanes of the warp
//   float across(float x, int mask)                 x of lane ^ mask
//   int same(int x)                                 x, which all lanes of the warp have, known to be the same
//   void copy_async(shared, global, bool there)     16 bytes; zeros where not there. Then commit(); wait<n>()
//   returns when
//                                                   all but the last n commits have landed, for this thread
//   void load_matrix(Words<4>&, const void* row)    ldmatrix.x4: lane l gives row l % 8 of matrix l / 8
//   void load_transposed(Words<4>&, const void* row)
//   void multiply(Sums&, const Words<4>& a, uint32 b0, uint32 b1)     mma.m16n8k16: bf16, sums in float32
//   float exp2(float)
//
// Who holds what of a matrix: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix". With g = lane / 4
// and t = lane % 4, a lane has of the sums' 16 x 8 rows g and g + 8, columns 2t and 2t + 1.
#pragma once
#include <cstdint>

#include "kernels/cuda/frame.hpp"
#include "kernels/cuda/pack.hpp"

#ifdef __CUDA_ARCH__  // host compilers know no such pragma
#define LOCKSTEP_UNROLL _Pragma("unroll")
#define LOCKSTEP_ROLLED _Pragma("unroll 1")
#define LOCKSTEP_TWICE _Pragma("unroll 2")
#else
#define LOCKSTEP_UNROLL
#define LOCKSTEP_ROLLED
#define LOCKSTEP_TWICE
#endif

namespace lockstep::cuda {

template <int n>
struct Words {
  std::uint32_t at[n];
};
struct Sums {
  float at[4] = {};
};

// Rows of kHead bf16 in shared memory. Their 16-byte chunks are permuted, so that the same chunk of eight
// rows, which ldmatrix reads together, lies in all banks.
template <int kHead>
struct SharedRows {
  static constexpr int kChunks = kHead / 8;
  static_assert(kChunks % 8 == 0);
  char* at;
  static constexpr i64 bytes(int rows) { return i64{rows} * kHead * 2; }
  LOCKSTEP_ANYWHERE char* chunk(int row, int c) const { return at + (row * kChunks + (c ^ (row & 7))) * 16; }
};

// kFetched x kHead numbers from global rows first, first + 1, ..., `stride` elements apart; zeros from row
// `end` on. A thread has the same chunk of every kStep-th row: multiples of eight rows apart, where chunks
// are permuted alike, so that places differ by constants.
template <int kThreads, int kFetched, int kHead, class Env>
LOCKSTEP_ANYWHERE void fetch(Env& env, const SharedRows<kHead>& to, const bf16* from, i64 stride, i64 first,
                             i64 end) {
  constexpr int kChunks = SharedRows<kHead>::kChunks, kStep = kThreads / kChunks;
  static_assert(kStep % 8 == 0 && kFetched % kStep == 0);
  const int row = env.thread() / kChunks, c = env.thread() % kChunks;
  const int left = static_cast<int>(lesser(end - first, kFetched)) - row;
  char* const place = to.chunk(row, c);
  const bf16* source = from + (first + row) * stride + c * 8;
  LOCKSTEP_UNROLL
  for (int r = 0; r < kFetched; r += kStep, source += kStep * stride)
    env.copy_async(place + SharedRows<kHead>::bytes(r), source, r < left);
}

// A 16 x 16 piece of rows from `row` on, as the left factor.
template <int kHead, class Env>
LOCKSTEP_ANYWHERE void left_factor(Env& env, Words<4>& a, const SharedRows<kHead>& rows, int row, int chunk) {
  const int lane = env.thread() % 32;
  env.load_matrix(a, rows.chunk(row + lane % 16, chunk + lane / 16));
}

// sums[r][n] += a rows[16 r + 16 x kHead] times b rows[8 n + 8 x kHead] transposed.
template <int kHead, int kRows, int kColumns, class Env>
LOCKSTEP_ANYWHERE void multiply_rows(Env& env, Sums (&sums)[kRows][kColumns], const SharedRows<kHead>& a,
                                     int row, const SharedRows<kHead>& b, int column) {
  const int lane = env.thread() % 32;
  LOCKSTEP_TWICE  // more, and the addresses of all steps take the registers of sums
      for (int k = 0; k < kHead / 16; ++k) {
    Words<4> left[kRows];
    LOCKSTEP_UNROLL
    for (int r = 0; r < kRows; ++r) left_factor(env, left[r], a, row + 16 * r, 2 * k);
    LOCKSTEP_UNROLL
    for (int n = 0; n < kColumns; n += 2) {
      Words<4> right;  // of columns n: k 0-7, k 8-15; of columns n + 1: the same
      env.load_matrix(right, b.chunk(column + 8 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
      LOCKSTEP_UNROLL
      for (int r = 0; r < kRows; ++r) {
        env.multiply(sums[r][n], left[r], right.at[0], right.at[1]);
        env.multiply(sums[r][n + 1], left[r], right.at[2], right.at[3]);
      }
    }
  }
}

// sums[r][n] += left[r], 16 x 16, times 16 rows of b from `row` on, whose columns are the sums'.
template <int kHead, int kRows, class Env>
LOCKSTEP_ANYWHERE void multiply_columns(Env& env, Sums (&sums)[kRows][kHead / 8],
                                        const Words<4> (&left)[kRows], const SharedRows<kHead>& b, int row) {
  const int lane = env.thread() % 32;
  LOCKSTEP_UNROLL
  for (int n = 0; n < kHead / 8; n += 2) {
    Words<4> right;  // of columns n: rows 0-7, rows 8-15; of columns n + 1: the same
    env.load_transposed(right, b.chunk(row + lane % 16, n + lane / 16));
    LOCKSTEP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      env.multiply(sums[r][n], left[r], right.at[0], right.at[1]);
      env.multiply(sums[r][n + 1], left[r], right.at[2], right.at[3]);
    }
  }
}

// Two neighbouring blocks of sums, 16 x 8 each, as a left factor of 16 x 16.
LOCKSTEP_ANYWHERE inline Words<4> as_left(const Sums& x, const Sums& y) {
  return {{pack(x.at[0], x.at[1]), pack(x.at[2], x.at[3]), pack(y.at[0], y.at[1]), pack(y.at[2], y.at[3])}};
}

template <class Env>
LOCKSTEP_ANYWHERE float sum_of_quad(Env& env, float x) {
  x += env.across(x, 1);
  return x + env.across(x, 2);
}

}  // namespace lockstep::cuda
