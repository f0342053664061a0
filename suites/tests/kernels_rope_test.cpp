#include <complex>

#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

template <class Real>
class Rope : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();
  static constexpr i64 M = 15, T = 5, heads = 3, hd = 6;

  Rope() {
    for (i64 t = 0; t < T; ++t)
      for (i64 j = 0; j < hd / 2; ++j) {
        const double angle = static_cast<double>(t) * std::pow(10000.0, -2.0 * static_cast<double>(j) / hd);
        cos.push_back(static_cast<Real>(std::cos(angle)));
        sin.push_back(static_cast<Real>(std::sin(angle)));
      }
  }
  std::vector<Real> turn(std::vector<Real> x, bool inverse) const {
    return on_lanes<Real>([&](Lanes& lanes) {
      std::vector<Real> y = x;
      ops.rope(lanes, y.data(), cos.data(), sin.data(), M, T, heads, hd, inverse);
      return y;
    });
  }
  std::vector<Real> cos, sin;
};
TYPED_TEST_SUITE(Rope, Reals);

// Rotation is multiplication by exp(i * angle) in the complex plane.
TYPED_TEST(Rope, TurnsPairsAsComplexNumbers) {
  const auto x = random_vector<TypeParam>(this->M * this->heads * this->hd, 1);
  for (const bool inverse : {false, true}) {
    const auto y = this->turn(x, inverse);
    for (i64 row = 0; row < this->M * this->heads; ++row)
      for (i64 j = 0; j < this->hd / 2; ++j) {
        const i64 low = row * this->hd + j, high = low + this->hd / 2;
        const long double position = static_cast<long double>(row / this->heads % this->T);
        const long double angle =
            position * std::pow(10000.0L, -2.0L * static_cast<long double>(j) / this->hd);
        const auto want =
            std::complex<long double>(x[low], x[high]) * std::polar(1.0L, inverse ? -angle : angle);
        ASSERT_NEAR(y[low], static_cast<double>(want.real()), 4 * kEps<TypeParam>);
        ASSERT_NEAR(y[high], static_cast<double>(want.imag()), 4 * kEps<TypeParam>);
      }
  }
}

// A rotation's gradient is the opposite rotation: <y(x), dy> = <x, inverse(dy)>.
TYPED_TEST(Rope, InverseIsTheGradient) {
  const i64 n = this->M * this->heads * this->hd;
  const auto x = random_vector<TypeParam>(n, 1), dy = random_vector<TypeParam>(n, 2);
  const auto y = this->turn(x, false), dx = this->turn(dy, true);
  long double left = 0, right = 0;
  for (i64 i = 0; i < n; ++i) {
    left += static_cast<long double>(y[i]) * dy[i];
    right += static_cast<long double>(x[i]) * dx[i];
  }
  EXPECT_NEAR(static_cast<double>(left), static_cast<double>(right), kEps<TypeParam> * n);
}

}  // namespace
}  // namespace lockstep::kernel_test
