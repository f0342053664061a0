// What the tests of kernels share: reproducible inputs, comparison within a bound or to the bit.
#pragma once
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/ops.hpp"

namespace lockstep::kernel_test {

using Reals = ::testing::Types<float, double>;

template <class Real>
inline constexpr long double kEps = std::numeric_limits<Real>::epsilon();

// Uniform in [-1, 1), the same on every machine (splitmix64, Steele et al. 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(static_cast<i64>(bits()) >> 11) * 0x1p-52; }
  i64 below(i64 n) { return static_cast<i64>(bits() % static_cast<std::uint64_t>(n)); }

 private:
  std::uint64_t state_;
};

template <class Real>
std::vector<Real> random_vector(i64 n, std::uint64_t seed, double size = 1.0) {
  Random random(seed);
  std::vector<Real> v(static_cast<std::size_t>(n));
  for (Real& x : v) x = static_cast<Real>(size * random.uniform());
  return v;
}

// -0 and +0 count as equal; a NaN equals nothing.
template <class Real>
void expect_same_bits(const std::vector<Real>& got, const std::vector<Real>& want, const char* what = "") {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_TRUE(got[i] == want[i]) << what << "[" << i << "] is " << got[i] << ", not " << want[i];
}

template <class Real>
void expect_close(const std::vector<Real>& got, const std::vector<long double>& want, long double bound,
                  const char* what = "") {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_LE(std::fabs(static_cast<long double>(got[i]) - want[i]), bound)
        << what << "[" << i << "] is " << got[i] << ", not " << want[i];
}

// Runs f with 1, 2 and 3 lanes, expects the same bits, and returns them.
template <class Real>
std::vector<Real> on_lanes(const std::function<std::vector<Real>(Lanes&)>& f) {
  static Lanes one(1), two(2), three(3);
  std::vector<Real> first;
  for (Lanes* lanes : {&one, &two, &three}) {
    // What scratch holds before a call is garbage: here, NaNs in its first pages.
    for (int lane = 0; lane < lanes->count(); ++lane) std::memset(lanes->scratch(lane), 0xff, 1 << 16);
    std::vector<Real> got = f(*lanes);
    if (lanes == &one)
      first = got;
    else
      expect_same_bits(got, first, "another number of lanes");
  }
  return first;
}

// Columns [first, first + width) of a row-major array with `stride` columns.
template <class Real>
std::vector<Real> columns(const std::vector<Real>& a, i64 stride, i64 first, i64 width) {
  std::vector<Real> out;
  for (i64 row = 0; row < static_cast<i64>(a.size()) / stride; ++row)
    out.insert(out.end(), a.begin() + row * stride + first, a.begin() + row * stride + first + width);
  return out;
}

// Rows [first, first + count).
template <class Real>
std::vector<Real> rows(const std::vector<Real>& a, i64 stride, i64 first, i64 count) {
  return {a.begin() + first * stride, a.begin() + (first + count) * stride};
}

// B, M, N, W of swap_axes: an axis of one, a number a row, rows of whole 16 bytes and not, work for lanes.
using Four = std::array<i64, 4>;
inline const std::vector<Four> kSwaps{{1, 1, 1, 1}, {1, 1, 5, 3}, {1, 5, 1, 3},   {2, 3, 4, 1},
                                      {3, 2, 5, 7}, {2, 4, 3, 8}, {1, 3, 2, 16},  {2, 6, 2, 20},
                                      {1, 2, 3, 4}, {5, 1, 4, 9}, {2, 40, 8, 32}, {3, 300, 4, 5}};

// N, R, W of repeat_rows and sum_rows.
inline const std::vector<std::array<i64, 3>> kRepeats{{1, 1, 1}, {3, 2, 5}, {2, 4, 8},   {5, 8, 1},
                                                      {7, 3, 6}, {2, 5, 4}, {300, 4, 16}};

// (first half) + (second half), each likewise; of an odd number the second is the longer.
template <class Real>
Real in_halves(const std::vector<Real>& a) {
  if (a.size() == 1) return a[0];
  const auto middle = a.begin() + static_cast<std::ptrdiff_t>(a.size() / 2);
  return in_halves(std::vector<Real>(a.begin(), middle)) + in_halves(std::vector<Real>(middle, a.end()));
}

// The tree over the parts of a sum that ranks of a power-of-two axis hold.
template <class Real>
std::vector<Real> add_parts(std::vector<std::vector<Real>> parts) {
  while (parts.size() > 1) {
    std::vector<std::vector<Real>> half;
    for (std::size_t p = 0; p < parts.size(); p += 2) {
      half.push_back(parts[p]);
      for (std::size_t i = 0; i < parts[p].size(); ++i) half.back()[i] = parts[p][i] + parts[p + 1][i];
    }
    parts = half;
  }
  return parts[0];
}

// d/dh of sum(weight * f(x + h * direction)) at h = 0, by central differences with one extrapolation.
inline double slope(const std::function<std::vector<double>(const std::vector<double>&)>& f,
                    const std::vector<double>& x, const std::vector<double>& direction,
                    const std::vector<double>& weight) {
  const auto at = [&](double h) {
    std::vector<double> moved = x;
    for (std::size_t i = 0; i < x.size(); ++i) moved[i] += h * direction[i];
    const std::vector<double> y = f(moved);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += weight[i] * y[i];
    return sum;
  };
  const double h = 1e-3;
  const double wide = (at(2 * h) - at(-2 * h)) / (4 * h), narrow = (at(h) - at(-h)) / (2 * h);
  return (4 * narrow - wide) / 3;
}

inline double inner(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The gradient that a backward op gives against differences of the forward op.
inline void expect_gradient(const std::function<std::vector<double>(const std::vector<double>&)>& f,
                            const std::vector<double>& x, const std::vector<double>& dy,
                            const std::vector<double>& dx, const char* what) {
  ASSERT_EQ(dx.size(), x.size()) << what;
  for (std::uint64_t seed = 100; seed < 103; ++seed) {
    const auto direction = random_vector<double>(static_cast<i64>(x.size()), seed);
    const double want = slope(f, x, direction, dy), got = inner(dx, direction);
    EXPECT_NEAR(got, want, 1e-8 * (1 + std::fabs(want))) << what;
  }
}

}  // namespace lockstep::kernel_test
