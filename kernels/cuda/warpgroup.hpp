// What four warps do together on Hopper: products whose right factor, and often the left one, the tensor
// cores read from shared memory by themselves. An environment (warp.hpp) of such kernels has besides:
//
//   void publish()        lets products see what this thread's copies have brought; before a sync
//   void begin()          lets products see the registers written before
//   void multiply<columns, down>(Sums (&sums)[columns / 8], left, const Operand& right, bool keep)
//                         wgmma.m64nNk16: sums = left right, added to what they hold if `keep`.
//                         left: an Operand, or this warp's 16 rows as Words<4>.
//                         down: the right factor's k are rows of shared memory
//   void commit_products()
//   void wait_products<n>()     returns when all but the last n commits are done
//   void settle(registers...)   the compiler moves no use of them across this: before begin() for those
//                               written by then, after wait_products() for those that products wrote
//
// A warp w of the four has rows 16 w to 16 w + 15 of the 64; within them a lane has what mma.m16n8k16 gives
// it. PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once
#include "kernels/cuda/warp.hpp"

namespace lockstep::cuda {

// A factor's 16 k in shared memory, swizzled by 128 bytes: bits 4 to 6 of an address are those XOR bits 7
// to 9. Its rows (of the right factor: the product's columns) of eight, or its k of eight if they are `down`,
// are `stride` bytes apart; 64 columns that lie side by side are followed by the next 64 `leading` bytes
// further. It begins at base + offset, of which the offset is known to the compiler.
struct Operand {
  const char* base;
  int offset;
  int leading, stride;
};

// kRows rows of kHead bf16, 64 columns (128 bytes) beside each other, swizzled. `at` is a multiple of 1024
// bytes.
template <int kHead, int kRows>
struct SwizzledRows {
  static constexpr int kChunks = kHead / 8, kBand = kRows * 128;
  static_assert(kHead % 64 == 0 && kRows % 16 == 0);
  static constexpr i64 kBytes = i64{kHead} * 2 * kRows;
  char* at;
  LOCKSTEP_ANYWHERE char* chunk(int row, int c) const {
    return at + c / 8 * kBand + row * 128 + ((c % 8) ^ (row & 7)) * 16;
  }
  // Columns 16 k and on are the product's k, rows from `row` on its rows or columns.
  LOCKSTEP_ANYWHERE Operand across(int row, int k) const {
    return {at + row * 128, k / 4 * kBand + k % 4 * 32, 16, 1024};
  }
  // The 16 rows from `row` on are the product's k, all columns its columns.
  LOCKSTEP_ANYWHERE Operand down(int row) const { return {at, row * 128, kBand, 1024}; }
};

// As fetch() of warp.hpp.
template <int kThreads, int kHead, int kRows, class Env>
LOCKSTEP_ANYWHERE void fetch(Env& env, const SwizzledRows<kHead, kRows>& to, const bf16* from, i64 stride,
                             i64 first, i64 end) {
  constexpr int kChunks = kHead / 8, kStep = kThreads / kChunks;
  static_assert(kStep % 8 == 0 && kRows % kStep == 0);
  const int row = env.thread() / kChunks, c = env.thread() % kChunks;
  const int left = static_cast<int>(lesser(end - first, kRows)) - row;
  char* const place = to.chunk(row, c);
  const bf16* source = from + (first + row) * stride + c * 8;
  LOCKSTEP_UNROLL
  for (int r = 0; r < kRows; r += kStep, source += kStep * stride)
    env.copy_async(place + r * 128, source, r < left);
}

// sums[64 x kColumns] = rows of a from `row` on times the first kColumns rows of b, over the head.
template <int kColumns, int kHead, int kRows, int kOthers, class Env>
LOCKSTEP_ANYWHERE void multiply_heads(Env& env, Sums (&sums)[kColumns / 8],
                                      const SwizzledRows<kHead, kRows>& a, int row,
                                      const SwizzledRows<kHead, kOthers>& b) {
  LOCKSTEP_UNROLL
  for (int k = 0; k < kHead / 16; ++k)
    env.template multiply<kColumns, false>(sums, a.across(row, k), b.across(0, k), k > 0);
}

// sums[64 x kHead] += left[64 x 16 n] times the rows of b.
template <int kHead, int kRows, class Env>
LOCKSTEP_ANYWHERE void multiply_down(Env& env, Sums (&sums)[kHead / 8], const Words<4> (&left)[kRows / 16],
                                     const SwizzledRows<kHead, kRows>& b) {
  LOCKSTEP_UNROLL
  for (int n = 0; n < kRows / 16; ++n)
    env.template multiply<kHead, true>(sums, left[n], b.down(16 * n), true);
}

// A warp's part of a 64 x kColumns matrix as left factors.
template <int kColumns>
LOCKSTEP_ANYWHERE void as_lefts(Words<4> (&left)[kColumns / 16], const Sums (&x)[kColumns / 8]) {
  LOCKSTEP_UNROLL
  for (int n = 0; n < kColumns / 16; ++n) left[n] = as_left(x[2 * n], x[2 * n + 1]);
}

}  // namespace lockstep::cuda
