// The exact sum of squares (ops.hpp says the format): integers have no order, so threads add as they come.
#pragma once
#include <bit>

#include "kernels/cuda/frame.hpp"

namespace lockstep::cuda {

LOCKSTEP_ANYWHERE inline void add_to(i64* word, i64 n) {
#ifdef __CUDA_ARCH__
  atomicAdd(reinterpret_cast<unsigned long long*>(word), static_cast<unsigned long long>(n));
#else
  *word += n;
#endif
}

struct Squares {
  struct State {
    i64 words[kSquareWords] = {};
  };
  i64* words;
  const float* x;
  i64 n, threads;  // of all blocks
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 3; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& s) const {
    i64* block = reinterpret_cast<i64*>(at.shared);
    if (p == 0) {
      if (at.thread < kSquareWords) block[at.thread] = 0;
      for (i64 i = at.block * at.threads + at.thread; i < n; i += threads) square(s.words, x[i]);
    } else if (p == 1) {
      for (int i = 0; i < kSquareWords; ++i)
        if (s.words[i]) add_to(block + i, s.words[i]);
    } else if (at.thread < kSquareWords && block[at.thread]) {
      add_to(words + at.thread, block[at.thread]);
    }
  }

 private:
  // |x| = mantissa * 2^(exponent - 150) with 24 bits: its square, of 48, lies in three limbs at most.
  LOCKSTEP_ANYWHERE static void square(i64* limbs, float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const int biased = static_cast<int>(bits >> 23 & 0xff);
    if (biased == 0xff) {
      ++limbs[kSquareLimbs];
      return;
    }
    const std::uint64_t mantissa = (bits & 0x7fffff) | (biased > 0 ? 0x800000u : 0u);
    const int place = 2 * ((biased > 0 ? biased : 1) - 150) + 448, limb = place / 32, shift = place % 32;
    const std::uint64_t exact = mantissa * mantissa, low = (exact & 0xffffffff) << shift,
                        high = (exact >> 32) << shift;
    limbs[limb] += static_cast<i64>(low & 0xffffffff);
    limbs[limb + 1] += static_cast<i64>((low >> 32) + (high & 0xffffffff));
    limbs[limb + 2] += static_cast<i64>(high >> 32);
  }
};

template <class On>
void add_squares(Lanes& lanes, i64* words, const float* x, i64 n) {
  if (n < 1) return;
  const i64 blocks = lesser(blocks_for(n, 16 * kThreads), 1024);
  On::launch(lanes, Squares{words, x, n, blocks * kThreads}, blocks, kThreads, 2 * kSquareWords);
}

}  // namespace lockstep::cuda
