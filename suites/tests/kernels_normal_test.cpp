// Normal numbers against Box and Muller's formula in long double, and the same bits by fma's instruction and
// by the C library's.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

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
  EXPECT_EQ(made_by(normal_numbers), made_by(plain::normal_numbers));
}

TEST(Normal, APartHasTheWholesNumbers) {
  const std::vector<float> all = made_by(normal_numbers);
  std::vector<float> part(9);
  normal_numbers(kKey, kFirst + 123, 9, 0.02, part.data());
  EXPECT_EQ(part, std::vector<float>(all.begin() + 123, all.begin() + 132));
}

}  // namespace
}  // namespace lockstep
