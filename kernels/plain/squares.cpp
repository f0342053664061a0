// The exact sum of squares: integers have no rounding, hence no order. ops.hpp says the format.
// The idea of a long fixed-point accumulator: Kulisch, "Computer Arithmetic and Validity" (2008), ch. 8.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

constexpr int kLowestBit = -448;        // limb 0 counts units of 2^-448
constexpr double kTooLarge = 0x1p+160;  // its square does not fit; no float comes near

// A float's mantissa ends in zeros when it is widened to double; without them its square fits a word.
template <class Real>
constexpr int kZeros = std::is_same_v<Real, float> ? 52 - 23 : 0;
template <class Real>
using SquareOf = std::conditional_t<std::is_same_v<Real, float>, std::uint64_t, unsigned __int128>;

// A square's bits below 2^-448 are dropped, each square by itself: only doubles below 2^-171 have any.
template <class Real>
void add_square(i64* words, Real x) {
  const double wide = x;
  if (!(std::abs(wide) < kTooLarge)) {  // NaN too
    ++words[kSquareLimbs];
    return;
  }
  const auto bits = std::bit_cast<std::uint64_t>(wide);
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff);
  if (exponent == 0) return;  // zero, or a denormal double, whose square is far too small
  // |x| = mantissa * 2^(exponent - 1075 + kZeros<Real>)
  const std::uint64_t mantissa = ((bits & 0xfffffffffffff) | std::uint64_t{1} << 52) >> kZeros<Real>;
  auto square = static_cast<SquareOf<Real>>(mantissa) * mantissa;
  int place = -kLowestBit + 2 * (exponent - 1075 + kZeros<Real>);
  if (place < 0) {
    square = place > -128 ? square >> -place : 0;
    place = 0;
  }
  for (int limb = place / 32; square != 0; ++limb, square >>= 32) {
    const std::uint64_t part = static_cast<std::uint64_t>(square & 0xffffffff) << (place % 32);
    words[limb] += static_cast<i64>(part & 0xffffffff);
    if (part >> 32) words[limb + 1] += static_cast<i64>(part >> 32);
  }
}

template <class Real>
void add_squares(Lanes& lanes, i64* words, const Real* x, i64 n) {
  for (int lane = 0; lane < lanes.count(); ++lane)
    std::fill_n(scratch<i64>(lanes, lane), kSquareWords, i64{0});
  lanes.split(n, kElementGrain, [&](i64 begin, i64 end, int lane) {
    i64* mine = scratch<i64>(lanes, lane);
    for (i64 i = begin; i < end; ++i) add_square(mine, x[i]);
  });
  for (int lane = 0; lane < lanes.count(); ++lane)
    for (int i = 0; i < kSquareWords; ++i) words[i] += scratch<i64>(lanes, lane)[i];
}

}  // namespace

template <class Real>
void fill_squares(Ops<Real>& ops) {
  ops.add_squares.call = add_squares<Real>;
}
template void fill_squares(Ops<float>&);
template void fill_squares(Ops<double>&);

}  // namespace lockstep::plain
