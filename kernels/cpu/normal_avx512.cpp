// Normal numbers, eight at a time: exactly the operations of plain/normal.cpp, random.hpp and exact_math.hpp,
// lane by lane, and so their bits. What those decide by a branch is computed both ways here, and chosen; the
// logarithm's argument is a multiple of 2^-53 in (0, 1], so neither zero nor denormal.
#include "kernels/cpu/four.hpp"
#include "kernels/cpu/sets.hpp"
#include "kernels/exact_math.hpp"

namespace lockstep::simd {
namespace {

using Words = __m512i;
using Doubles = __m512d;

Words words(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
Doubles doubles(double x) { return _mm512_set1_pd(x); }

Words mix(Words x) {
  x = _mm512_mullo_epi64(x ^ _mm512_srli_epi64(x, 30), words(0xbf58476d1ce4e5b9u));
  x = _mm512_mullo_epi64(x ^ _mm512_srli_epi64(x, 27), words(0x94d049bb133111ebu));
  return x ^ _mm512_srli_epi64(x, 31);
}

Doubles random_unit(std::uint64_t key, Words position) {
  const Words next = _mm512_add_epi64(position, words(1));
  const Words word = mix(_mm512_add_epi64(words(key), _mm512_mullo_epi64(next, words(0x9e3779b97f4a7c15u))));
  return _mm512_cvtepu64_pd(_mm512_srli_epi64(word, 11)) * doubles(0x1p-53);
}

Doubles log_of(Doubles x) {
  const Words half_root = words(std::bit_cast<std::uint64_t>(kHalfRoot));
  const Words bits = _mm512_castpd_si512(x);
  const Words step = _mm512_srai_epi64(_mm512_sub_epi64(bits, half_root), 52);
  const Doubles m = _mm512_castsi512_pd(_mm512_sub_epi64(bits, _mm512_slli_epi64(step, 52)));
  const Doubles f = m - doubles(1.0);
  const Doubles s = f / (doubles(2.0) + f);
  const Doubles z = s * s;
  Doubles q = doubles(2.0 / 21.0);
  for (int i = 19; i >= 3; i -= 2) q = _mm512_fmadd_pd(q, z, doubles(2.0 / i));
  const Doubles log_m = _mm512_fmadd_pd(s * z, q, s + s);
  const Doubles e = _mm512_cvtepi64_pd(step);
  return _mm512_fmadd_pd(e, doubles(kLn2High), _mm512_fmadd_pd(e, doubles(kLn2Low), log_m));
}

Doubles cos_of(Doubles x) {
  const Doubles shifter = doubles(0x1.8p+52);
  Doubles t = _mm512_fmadd_pd(x, doubles(kTwoOverPi), shifter);
  const Words n = _mm512_add_epi64(_mm512_castpd_si512(t), words(1));
  t = t - shifter;
  Doubles r = _mm512_fmadd_pd(t, doubles(-kHalfPi[0]), x);
  r = _mm512_fmadd_pd(t, doubles(-kHalfPi[1]), r);
  r = _mm512_fmadd_pd(t, doubles(-kHalfPi[2]), r);
  const Doubles z = r * r;
  Doubles even = doubles(kInverseFactorial[18]), odd = doubles(kInverseFactorial[17]);
  for (std::size_t i = 16; i >= 4; i -= 2) even = _mm512_fnmadd_pd(z, even, doubles(kInverseFactorial[i]));
  for (std::size_t i = 15; i >= 3; i -= 2) odd = _mm512_fnmadd_pd(z, odd, doubles(kInverseFactorial[i]));
  const Doubles cosine = _mm512_fmadd_pd(z * z, even, _mm512_fmadd_pd(z, doubles(-0.5), doubles(1.0)));
  const Doubles sine = _mm512_fnmadd_pd(z * r, odd, r);
  const Doubles y = _mm512_mask_blend_pd(_mm512_test_epi64_mask(n, words(1)), sine, cosine);
  return _mm512_mask_sub_pd(y, _mm512_test_epi64_mask(n, words(2)), doubles(-0.0), y);
}

}  // namespace

void normal_numbers_avx512(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values) {
  const Words lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  for (i64 i = 0; i < n; i += 8) {
    const Words number = _mm512_add_epi64(words(first + static_cast<std::uint64_t>(i)), lane);
    const Words word = _mm512_slli_epi64(number, 1);
    const Doubles u = doubles(1.0) - random_unit(key, word);
    const Doubles v = random_unit(key, _mm512_add_epi64(word, words(1)));
    const Doubles length = _mm512_sqrt_pd(doubles(-2.0) * log_of(u));
    const Doubles z = length * cos_of(doubles(2.0 * 3.14159265358979323846) * v);
    const auto there = static_cast<__mmask8>(n - i >= 8 ? 0xff : (1 << (n - i)) - 1);
    _mm256_mask_storeu_ps(values + i, there, _mm512_cvtpd_ps(doubles(deviation) * z));
  }
}

}  // namespace lockstep::simd
