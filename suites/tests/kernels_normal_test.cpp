// Normal numbers against Box and Muller's formula in long double, and the same bits by fma's instruction, by
// the C library's and eight at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/cpu/sets.hpp"
#include "kernels/normal.hpp"
#include "kernels/plain/plain.hpp"
#include "kernels/random.hpp"

namespace lockstep {
namespace {

constexpr std::uint64_t kKey = 77, kFirst = 1000;
constexpr std::size_t kN = 20000;

std::vector<float> made_by(decltype(&normal_numbers) numbers) {
  std::vector<float> values(kN);
  numbers(kKey, kFirst, kN, 0.02, values.data());
  return values;
}

TEST(Normal, IsBoxAndMullers) {
  const std::vector<float> values = made_by(normal_numbers);
  for (std::size_t i = 0; i < kN; ++i) {
    const long double u = 1 - static_cast<long double>(unit_interval(random_word(kKey, 2 * (kFirst + i))));
    const long double v = unit_interval(random_word(kKey, 2 * (kFirst + i) + 1));
    const long double z = std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi_v<long double> * v);
    ASSERT_NEAR(static_cast<double>(values[i]), static_cast<double>(0.02L * z),
                0.02 * 1e-7 * std::max(1.0, std::abs(static_cast<double>(z))))
        << i;
  }
}

TEST(Normal, HasTheSameBitsOnEveryMachine) {
  const std::vector<float> plain = made_by(plain::normal_numbers);
  EXPECT_EQ(made_by(normal_numbers), plain);
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return;
  EXPECT_EQ(made_by(simd::normal_numbers_avx2), plain);
  if (!__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) return;
  EXPECT_EQ(made_by(simd::normal_numbers_avx512), plain);
#endif
}

TEST(Normal, APartHasTheWholesNumbers) {
  const std::vector<float> all = made_by(normal_numbers);
  for (i64 n = 0; n <= 17; ++n) {
    std::vector<float> part(18, -1), expected(18, -1);  // and nothing behind it is touched
    normal_numbers(kKey, kFirst + 123, n, 0.02, part.data());
    std::copy_n(all.begin() + 123, n, expected.begin());
    EXPECT_EQ(part, expected);
  }
}

}  // namespace
}  // namespace lockstep
