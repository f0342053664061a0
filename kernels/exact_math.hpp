// Functions and sums that give the same bits on every machine: integer operations and IEEE
// + - * / sqrt fma only, each rounded once and to nearest. Needs -ffp-contract=off. See EXACT.md.
//
//   exact_exp(float), exact_exp(double)    exact_log(float), exact_log(double)
//   exact_sin(double), exact_cos(double)   exact_pow(double, double)
//   attention_scale<Real>(head size)       tree_sum, tree_rows, LaneSum, leaf_begin
//
// Accuracy, as tests hold it: float below 1 ulp, double exp, log, sin, cos below 4e-16 relative.
// Source of the range reductions: Cody and Waite, Software Manual for the Elementary Functions (1980).
#pragma once
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

// What kernels of an accelerator call too.
#ifdef __CUDACC__
#define LOCKSTEP_ANYWHERE __host__ __device__
#else
#define LOCKSTEP_ANYWHERE
#endif

namespace lockstep {

using i64 = std::int64_t;

// Internal linkage on purpose: files are compiled for different instruction sets, and a linker that
// merged their copies could hand AVX code to a machine without it.
namespace {

// ---- exp in float, to be transcribed lane by lane. Exactly these operations in this order:
//   x = min(x, 89); x = max(x, -104)             limits where the result is inf and 0; NaN passes
//   t = fma(x, log2e, 1.5 * 2^23)                rounds x / ln 2 to an integer in the low bits of t
//   n = bits(t) - bits(1.5 * 2^23)               as a wrapping 32-bit integer, -150 .. 128
//   t = t - 1.5 * 2^23                           n as a float
//   r = fma(t, -ln2_high, x)                     exact: ln2_high has 15 bits, n has 8
//   r = fma(t, -ln2_low, r)                      |r| <= ln 2 / 2
//   q = c6; q = fma(q, r, c5); ... fma(q, r, c2)
//   p = fma(r * r, q, r) + 1                     e^r
//   h = n >> 1 (arithmetic)                      2^n in two factors: 2^128 and denormals need it
//   (p * 2^h) * 2^(n - h)                        2^i = float with bits (i + 127) << 23
// Only the last product can be inexact, so an instruction that scales by 2^n with one rounding will do.
// min is `limit < x ? limit : x` and max is `limit > x ? limit : x`, as minps(limit, x), maxps(limit, x).
struct ExpFloat {
  static constexpr float high_limit = 89.0f, low_limit = -104.0f;
  static constexpr float log2e = 0x1.715476p+0f;
  static constexpr float shifter = 0x1.8p+23f;  // adding it drops the fraction
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  // Least maximum of |1 - p(r) / e^r| over |r| <= ln 2 / 2 (Remez; 3.1e-9), rounded to float.
  static constexpr float c2 = 0x1.fffffcp-2f, c3 = 0x1.555492p-3f, c4 = 0x1.5558f2p-5f, c5 = 0x1.1239e2p-7f,
                         c6 = 0x1.6a2434p-10f;
};

LOCKSTEP_ANYWHERE inline float exact_exp(float x) {
  using E = ExpFloat;
  x = E::high_limit < x ? E::high_limit : x;
  x = E::low_limit > x ? E::low_limit : x;
  float t = std::fma(x, E::log2e, E::shifter);
  const auto n =
      static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(t) - std::bit_cast<std::uint32_t>(E::shifter));
  t = t - E::shifter;
  float r = std::fma(t, -E::ln2_high, x);
  r = std::fma(t, -E::ln2_low, r);
  float q = E::c6;
  q = std::fma(q, r, E::c5);
  q = std::fma(q, r, E::c4);
  q = std::fma(q, r, E::c3);
  q = std::fma(q, r, E::c2);
  const float p = std::fma(r * r, q, r) + 1.0f;
  const auto power_of_two = [](std::int32_t i) {
    return std::bit_cast<float>((static_cast<std::uint32_t>(i) + 127u) << 23);
  };
  const std::int32_t h = n >> 1;
  return (p * power_of_two(h)) * power_of_two(n - h);
}

inline constexpr double kLn2High = 0x1.62e42fefa2p-1;  // 40 bits: a product with an 11-bit integer is exact
inline constexpr double kLn2Low = 0x1.9ef35793c7673p-41;
inline constexpr double kHalfRoot = 0x1.6a09e667f3bcdp-1;  // sqrt(1/2)
inline constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
inline constexpr double kHalfPi[] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54,
                                     -0x1.f1976b7ed8fbcp-110};  // a sum

// 1/0!, 1/1!, 1/2!, ...: the factorials up to 18! are exact in double, so each entry is rounded once.
inline constexpr auto kInverseFactorial = [] {
  std::array<double, 19> table{1.0};
  double factorial = 1.0;
  for (int i = 1; i < 19; ++i) {
    factorial *= i;
    table[static_cast<std::size_t>(i)] = 1.0 / factorial;
  }
  return table;
}();

// The same in double, with Taylor's series up to r^13 / 13! (the next term is below 5e-18).
inline double exact_exp(double x) {
  x = 710.0 < x ? 710.0 : x;
  x = -746.0 > x ? -746.0 : x;
  constexpr double shifter = 0x1.8p+52;
  double t = std::fma(x, 0x1.71547652b82fep+0, shifter);
  const auto n = static_cast<i64>(std::bit_cast<std::uint64_t>(t) - std::bit_cast<std::uint64_t>(shifter));
  t = t - shifter;
  double r = std::fma(t, -kLn2High, x);
  r = std::fma(t, -kLn2Low, r);
  double q = kInverseFactorial[13];
  for (std::size_t i = 12; i >= 2; --i) q = std::fma(q, r, kInverseFactorial[i]);
  const double p = std::fma(r * r, q, r) + 1.0;
  const auto power_of_two = [](i64 i) {
    return std::bit_cast<double>((static_cast<std::uint64_t>(i) + 1023u) << 52);
  };
  const i64 h = n >> 1;
  return (p * power_of_two(h)) * power_of_two(n - h);
}

// Natural logarithm: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), and with s = (m - 1) / (m + 1)
// log m = 2 * (s + s^3 / 3 + s^5 / 5 + ...), cut after s^21 / 21. log(0) = -inf, NaN below 0.
LOCKSTEP_ANYWHERE inline double exact_log(double x) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  if (!(x > 0.0)) return x == 0.0 ? -inf : std::numeric_limits<double>::quiet_NaN();
  if (x == inf) return x;
  i64 e = 0;
  if (x < std::numeric_limits<double>::min()) {  // denormal
    x = x * 0x1p+54;
    e = -54;
  }
  // Counting from the bits of sqrt(1/2) puts the step between two exponents where m wants it.
  constexpr auto half_root = std::bit_cast<i64>(kHalfRoot);
  const i64 bits = std::bit_cast<i64>(x);
  const i64 step = (bits - half_root) >> 52;
  const double m = std::bit_cast<double>(bits - (step << 52));
  e += step;
  const double f = m - 1.0;  // exact
  const double s = f / (2.0 + f);
  const double z = s * s;
  double q = 2.0 / 21.0;
  for (int i = 19; i >= 3; i -= 2) q = std::fma(q, z, 2.0 / i);
  const double log_m = std::fma(s * z, q, s + s);
  const double exponent = static_cast<double>(e);
  return std::fma(exponent, kLn2High, std::fma(exponent, kLn2Low, log_m));
}

// One per row of a softmax, never in an inner loop: the double result, rounded once.
LOCKSTEP_ANYWHERE inline float exact_log(float x) {
  return static_cast<float>(exact_log(static_cast<double>(x)));
}

// x^y for x > 0; the relative error grows as |y log x| * 2^-53.
inline double exact_pow(double x, double y) { return exact_exp(y * exact_log(x)); }

// sin(x + quarter * pi / 2), x in radians, |x| <= 2^30 (NaN for infinities): x = n * pi / 2 + r with
// |r| <= pi / 4, then Taylor's series of sin (up to r^17) or cos (up to r^18) by the parity of n.
inline double exact_sin_shifted(double x, i64 quarter) {
  constexpr double shifter = 0x1.8p+52;
  double t = std::fma(x, kTwoOverPi, shifter);
  const std::uint64_t n = std::bit_cast<std::uint64_t>(t) + static_cast<std::uint64_t>(quarter);
  t = t - shifter;
  double r = std::fma(t, -kHalfPi[0], x);  // exact: a multiple of 2^-53 below 1
  r = std::fma(t, -kHalfPi[1], r);
  r = std::fma(t, -kHalfPi[2], r);
  const double z = r * r;
  const bool is_cos = n & 1;
  const std::size_t last = is_cos ? 18 : 17;
  const std::size_t first = is_cos ? 4 : 3;
  double q = kInverseFactorial[last];
  for (std::size_t i = last - 2; i >= first; i -= 2) q = std::fma(-z, q, kInverseFactorial[i]);
  const double y = is_cos ? std::fma(z * z, q, std::fma(z, -0.5, 1.0)) : std::fma(-(z * r), q, r);
  return n & 2 ? -y : y;
}

inline double exact_sin(double x) { return exact_sin_shifted(x, 0); }
inline double exact_cos(double x) { return exact_sin_shifted(x, 1); }

// 1 / sqrt(head size), computed in double and rounded once.
template <class Real>
inline Real attention_scale(i64 hd) {
  return static_cast<Real>(1.0 / std::sqrt(static_cast<double>(hd)));
}

// ---- sums

// Leaf r of n terms cut in `leaves` covers [leaf_begin(r, n, leaves), leaf_begin(r + 1, n, leaves)).
LOCKSTEP_ANYWHERE inline i64 leaf_begin(i64 r, i64 n, i64 leaves) { return r * n / leaves; }

// tree(lo, hi) of scalars; leaf(i) gives leaf i. lo < hi.
template <class Leaf>
inline auto tree_sum(i64 lo, i64 hi, const Leaf& leaf) -> decltype(leaf(lo)) {
  if (hi - lo == 1) return leaf(lo);
  const i64 mid = lo + (hi - lo) / 2;
  const auto left = tree_sum(lo, mid, leaf);
  const auto right = tree_sum(mid, hi, leaf);
  return left + right;
}

// Depth of tree(0, leaves): as many spare rows does tree_rows need.
LOCKSTEP_ANYWHERE inline i64 tree_depth(i64 leaves) {
  i64 depth = 0;
  while ((i64{1} << depth) < leaves) ++depth;
  return depth;
}

// tree(lo, hi) of rows of n: leaf(i, row) writes leaf i, `sum` gets the tree,
// `spare` has room for tree_depth(hi - lo) rows of n.
template <class Real, class Leaf>
inline void tree_rows(i64 lo, i64 hi, i64 n, Real* sum, Real* spare, const Leaf& leaf) {
  if (hi - lo == 1) return leaf(lo, sum);
  const i64 mid = lo + (hi - lo) / 2;
  tree_rows(lo, mid, n, sum, spare, leaf);
  tree_rows(mid, hi, n, spare, spare + n, leaf);
  for (i64 i = 0; i < n; ++i) sum[i] = sum[i] + spare[i];
}

// The lane sum: 16 chains, term i on chain i mod 16, then folded in halves.
template <class Real>
struct LaneSum {
  Real lane[16] = {};
  void add(i64 i, Real a) { lane[i % 16] = lane[i % 16] + a; }
  void add_product(i64 i, Real a, Real b) { lane[i % 16] = std::fma(a, b, lane[i % 16]); }
  Real total() const {
    Real fold[16];
    for (int i = 0; i < 16; ++i) fold[i] = lane[i];
    for (int half = 8; half >= 1; half /= 2)
      for (int i = 0; i < half; ++i) fold[i] = fold[i] + fold[i + half];
    return fold[0];
  }
};

}  // namespace
}  // namespace lockstep
