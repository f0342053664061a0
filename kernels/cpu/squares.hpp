// The exact sum of squares (ops.hpp), vectorised: a block's squares, exact in double, are cut at fixed bits
// into slices that are whole multiples of one unit each, and few and small enough that doubles add them
// without rounding. Adding 1.5 * 2^52 units to a number and taking them away again leaves its multiple of
// the unit: Demmel and Nguyen, "Parallel Reproducible Summation" (2015), section 2.
// The result is the same integer as the plain kernel's, though its limbs may carry differently.
#pragma once
#include <cstdint>

#include "kernels/cpu/elementwise.hpp"

namespace lockstep::simd {

inline constexpr int kSlices = 3, kSliceBits = 40;
inline constexpr i64 kSquareBlock = 1 << 12;

LOCKSTEP_INLINE std::uint32_t float_bits(float x) {
  std::uint32_t b;
  __builtin_memcpy(&b, &x, sizeof b);
  return b;
}
LOCKSTEP_INLINE double power_of_two(int e) {
  const std::uint64_t b = static_cast<std::uint64_t>(e + 1023) << 52;
  double x;
  __builtin_memcpy(&x, &b, sizeof x);
  return x;
}

// words += magnitude * 2^place, counted from the lowest bit
LOCKSTEP_INLINE void add_integer(i64* words, std::uint64_t magnitude, int place) {
  auto shifted = static_cast<unsigned __int128>(magnitude) << place % 32;
  for (int limb = place / 32; shifted != 0; ++limb, shifted >>= 32)
    words[limb] += static_cast<i64>(shifted & 0xffffffff);
}

// words += x * x, one integer product.
LOCKSTEP_INLINE void add_one_square(i64* words, float x) {
  const std::uint32_t b = float_bits(x), exponent = b >> 23 & 255;
  if (exponent == 255) {
    ++words[kSquareLimbs];
    return;
  }
  // |x| = mantissa * 2^(max(exponent, 1) - 150); limb 0 counts units of 2^-448.
  const std::uint64_t mantissa = (b & 0x7fffff) | std::uint32_t{exponent != 0} << 23;
  add_integer(words, mantissa * mantissa, 2 * (static_cast<int>(exponent == 0 ? 1 : exponent) - 150) + 448);
}

// At most kSquareBlock numbers, a whole number of vectors.
template <class V>
void add_square_block(i64* words, const float* x, i64 n) {
  using D = typename V::Double;
  // A chain's sum of slices, each of 2^kSliceBits units at most, is exact.
  static_assert(kSquareBlock / V::kWidth <= i64{1} << (53 - kSliceBits));
  const std::uint32_t top = V::largest_magnitude(x, n);
  if (top == 0) return;  // zeros: an embedding's gradient has many
  const std::uint32_t exponent = top >> 23;
  // Squares are below 2^(2 * (exponent - 126)); the first slice ends kSliceBits lower, the others follow.
  const int unit0 = 2 * (static_cast<int>(exponent) - 126) - kSliceBits;
  bool done = exponent < 255 && exponent > 0;
  if (done) {
    D anchor[kSlices], sum[kSlices][2], rest = D::zero();
    for (int s = 0; s < kSlices; ++s) {
      anchor[s] = D::all(1.5 * power_of_two(52 + unit0 - s * kSliceBits));
      sum[s][0] = sum[s][1] = D::zero();
    }
    for (i64 i = 0; i < n; i += V::kWidth)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        D a = D::from_floats(x + i + half * V::kWidth / 2);
        D r = a * a;
#pragma GCC unroll 3
        for (int s = 0; s < kSlices; ++s) {
          D slice = (r + anchor[s]) - anchor[s];
          r = r - slice;
          sum[s][half] = sum[s][half] + slice;
        }
        rest = D::either(rest, r);
      }
    done = rest.all_zero();
    if (done)
      for (int s = 0; s < kSlices; ++s)
        for (int half = 0; half < 2; ++half) {
          double slices[V::kWidth / 2];
          sum[s][half].store(slices);
          const int unit = unit0 - s * kSliceBits;
          for (double slice : slices) {
            // Slices may be negative: a number is rounded to its nearest multiple of the unit.
            const double units = slice * power_of_two(-unit);
            const i64 count = static_cast<i64>(units);
            i64 part[kSquareLimbs] = {};
            add_integer(part, static_cast<std::uint64_t>(count < 0 ? -count : count), unit + 448);
            for (int i = 0; i < kSquareLimbs; ++i) words[i] += count < 0 ? -part[i] : part[i];
          }
        }
  }
  // Denormals, infinities, NaNs, or numbers too far apart for three slices.
  if (!done)
    for (i64 i = 0; i < n; ++i) add_one_square(words, x[i]);
}

template <class V>
void add_squares(Lanes& lanes, i64* words, const float* x, i64 n) {
  const auto own = [&](int lane) { return static_cast<i64*>(lanes.scratch(lane)); };
  for (int lane = 0; lane < lanes.count(); ++lane)
    for (int i = 0; i < kSquareWords; ++i) own(lane)[i] = 0;
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int lane) {
    const i64 whole = begin + (end - begin) / V::kWidth * V::kWidth;
    for (i64 i = begin; i < whole; i += kSquareBlock)
      add_square_block<V>(own(lane), x + i, whole - i < kSquareBlock ? whole - i : kSquareBlock);
    for (i64 i = whole; i < end; ++i) add_one_square(own(lane), x[i]);
  });
  for (int lane = 0; lane < lanes.count(); ++lane)
    for (int i = 0; i < kSquareWords; ++i) words[i] += own(lane)[i];
}

}  // namespace lockstep::simd
