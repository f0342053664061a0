// The exact sum of squares, rounded: see ops.hpp for the format.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/ops.hpp"

namespace lockstep {

double root_of_squares(const i64* words) {
  if (words[kSquareLimbs] != 0) return std::numeric_limits<double>::quiet_NaN();

  // Carry, so that every limb is a digit of 32 bits. What leaves the last limb takes two more.
  constexpr int kDigits = kSquareLimbs + 2;
  std::uint32_t digit[kDigits];
  i64 carry = 0;
  for (int i = 0; i < kDigits; ++i) {
    // Limb and carry are added by halves: their sum may not fit.
    const i64 limb = i < kSquareLimbs ? words[i] : 0;
    const i64 low = (limb & 0xffffffff) + (carry & 0xffffffff);
    digit[i] = static_cast<std::uint32_t>(low);
    carry = (limb >> 32) + (carry >> 32) + (low >> 32);
  }

  int top = kDigits - 1;
  while (top >= 0 && digit[top] == 0) --top;
  if (top < 0) return 0.0;

  // The leading 64 bits; whatever lies below only says on which side of a tie the sum is.
  const auto at = [&](int i) { return i >= 0 ? std::uint64_t{digit[i]} : 0; };
  const int zeros = std::countl_zero(digit[top]);
  const std::uint64_t high = at(top) << 32 | at(top - 1), low = at(top - 2);
  std::uint64_t leading = high << zeros | (low << zeros) >> 32;
  bool sticky = static_cast<std::uint32_t>(low << zeros) != 0;
  for (int i = top - 3; i >= 0; --i) sticky |= digit[i] != 0;
  if (sticky) leading |= 1;  // bit 0 is far below the last one kept
  const double sum = std::ldexp(static_cast<double>(leading), 32 * (top - 1) - zeros - 448);
  return std::sqrt(sum);
}

}  // namespace lockstep
