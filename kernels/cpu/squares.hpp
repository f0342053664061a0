// The exact sum of squares (ops.hpp): a square of a float is an integer of 48 bits times an even power of
// two that depends on the exponent alone. Each exponent has a bin of 64 bits that holds 2^15 such squares;
// bins are then added to the limbs. Same integer as the plain kernel's, though its limbs may carry
// differently.
#pragma once
#include "kernels/cpu/elementwise.hpp"

namespace lockstep::simd {

struct SquareBins {
  static constexpr i64 kMost = 1 << 15;  // squares per round
  static constexpr int kTables = 4;      // neighbours fall in the same bin: they should not wait for it
  std::uint64_t bin[kTables][256];
  i64 words[kSquareWords];
};

// V only names the instruction set.
template <class V>
void add_square_block(SquareBins& bins, const float* x, i64 n) {
  const auto bits = [&](i64 i) {
    std::uint32_t b;
    __builtin_memcpy(&b, x + i, sizeof b);
    return b;
  };
  for (auto& table : bins.bin)
    for (auto& bin : table) bin = 0;
  for (i64 i = 0; i < n; ++i) {
    const std::uint32_t b = bits(i), exponent = b >> 23 & 255;
    const std::uint64_t mantissa = (b & 0x7fffff) | std::uint32_t{exponent != 0} << 23;
    bins.bin[i % SquareBins::kTables][exponent] += mantissa * mantissa;
  }
  for (int e = 0; e < 255; ++e) {
    std::uint64_t sum = 0;
    for (auto& table : bins.bin) sum += table[e];
    // |x| = mantissa * 2^(max(e, 1) - 150); limb 0 counts units of 2^-448.
    const int place = 2 * ((e == 0 ? 1 : e) - 150) + 448;
    auto shifted = static_cast<unsigned __int128>(sum) << place % 32;
    for (int limb = place / 32; shifted != 0; ++limb, shifted >>= 32)
      bins.words[limb] += static_cast<i64>(shifted & 0xffffffff);
  }
  bool finite = true;
  for (auto& table : bins.bin) finite = finite && table[255] == 0;
  if (!finite)
    for (i64 i = 0; i < n; ++i) bins.words[kSquareLimbs] += (bits(i) >> 23 & 255) == 255;
}

template <class V>
void add_squares(Lanes& lanes, i64* words, const float* x, i64 n) {
  const auto bins = [&](int lane) { return static_cast<SquareBins*>(lanes.scratch(lane)); };
  for (int lane = 0; lane < lanes.count(); ++lane)
    for (i64& word : bins(lane)->words) word = 0;
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int lane) {
    for (i64 i = begin; i < end; i += SquareBins::kMost)
      add_square_block<V>(*bins(lane), x + i, end - i < SquareBins::kMost ? end - i : SquareBins::kMost);
  });
  for (int lane = 0; lane < lanes.count(); ++lane)
    for (int i = 0; i < kSquareWords; ++i) words[i] += bins(lane)->words[i];
}

}  // namespace lockstep::simd
