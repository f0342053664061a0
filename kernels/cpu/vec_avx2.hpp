// Eight floats in one AVX register: the twin of vec_avx512.hpp, for files compiled for AVX2 and FMA.
#pragma once
#include "kernels/cpu/four.hpp"
#include "kernels/lanes.hpp"

namespace lockstep::simd {

struct Avx2Double {
  __m256d v;
  static LOCKSTEP_INLINE Avx2Double zero() { return {_mm256_setzero_pd()}; }
  static LOCKSTEP_INLINE Avx2Double all(double x) { return {_mm256_set1_pd(x)}; }
  static LOCKSTEP_INLINE Avx2Double from_floats(const float* p) { return {_mm256_cvtps_pd(_mm_loadu_ps(p))}; }
  LOCKSTEP_INLINE void store(double* p) const { _mm256_storeu_pd(p, v); }
  static LOCKSTEP_INLINE Avx2Double either(Avx2Double a, Avx2Double b) { return {_mm256_or_pd(a.v, b.v)}; }
  LOCKSTEP_INLINE bool all_zero() const {
    return _mm256_testz_si256(_mm256_castpd_si256(v), _mm256_castpd_si256(v));
  }
  friend LOCKSTEP_INLINE Avx2Double operator+(Avx2Double a, Avx2Double b) {
    return {_mm256_add_pd(a.v, b.v)};
  }
  friend LOCKSTEP_INLINE Avx2Double operator-(Avx2Double a, Avx2Double b) {
    return {_mm256_sub_pd(a.v, b.v)};
  }
  friend LOCKSTEP_INLINE Avx2Double operator*(Avx2Double a, Avx2Double b) {
    return {_mm256_mul_pd(a.v, b.v)};
  }
};

struct Avx2 {
  static constexpr int kWidth = 8;
  // The register block of a matmul: 6 x 2 accumulators, 2 columns of B and a broadcast of A fit in 16.
  static constexpr int kTileRows = 6, kTileVectors = 2;
  struct Mask {
    __m256i m;  // all bits of a lane set, or none
  };
  using Double = Avx2Double;
  __m256 v;

  static LOCKSTEP_INLINE Avx2 zero() { return {_mm256_setzero_ps()}; }
  static LOCKSTEP_INLINE Avx2 all(float x) { return {_mm256_set1_ps(x)}; }
  static LOCKSTEP_INLINE Avx2 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static LOCKSTEP_INLINE Avx2 load(const float* p, Mask m) { return {_mm256_maskload_ps(p, m.m)}; }
  LOCKSTEP_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  LOCKSTEP_INLINE void store(float* p, Mask m) const { _mm256_maskstore_ps(p, m.m, v); }

  // bf16.hpp, lane by lane: widened exactly, rounded to the nearest, ties to even.
  static LOCKSTEP_INLINE Avx2 load(const bf16* p) {
    return widened(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  LOCKSTEP_INLINE void store(bf16* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rounded()); }
  // AVX2 has no masks for halves: one by one, at the edges alone.
  static LOCKSTEP_INLINE Avx2 load(const bf16* p, Mask m) {
    const int n = count(m);
    if (n == kWidth) return load(p);
    bf16 halves[kWidth] = {};
    for (int i = 0; i < n; ++i) halves[i] = p[i];
    return load(halves);
  }
  LOCKSTEP_INLINE void store(bf16* p, Mask m) const {
    const int n = count(m);
    if (n == kWidth) return store(p);
    bf16 halves[kWidth];
    store(halves);
    for (int i = 0; i < n; ++i) p[i] = halves[i];
  }
  static LOCKSTEP_INLINE int count(Mask m) {  // of first()
    return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(m.m))));
  }
  static LOCKSTEP_INLINE Avx2 widened(__m128i halves) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
  }
  LOCKSTEP_INLINE __m128i rounded() const {
    const __m256i wide = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(wide, 16), _mm256_set1_epi32(1));
    const __m256i near = _mm256_add_epi32(_mm256_add_epi32(wide, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i y = _mm256_blendv_epi8(_mm256_srli_epi32(near, 16), _mm256_set1_epi32(0x7fc0), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
  }

  static LOCKSTEP_INLINE Mask first(i64 n) {
    int k = n >= 8 ? 8 : n <= 0 ? 0 : int(n);
    return {_mm256_cmpgt_epi32(_mm256_set1_epi32(k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
  }
  static LOCKSTEP_INLINE Avx2 select(Mask m, Avx2 a, Avx2 b) {
    return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(m.m))};
  }

  friend LOCKSTEP_INLINE Avx2 operator+(Avx2 a, Avx2 b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Avx2 operator-(Avx2 a, Avx2 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Avx2 operator*(Avx2 a, Avx2 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Avx2 operator/(Avx2 a, Avx2 b) { return {_mm256_div_ps(a.v, b.v)}; }
  static LOCKSTEP_INLINE Avx2 fma(Avx2 a, Avx2 b, Avx2 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  // c = fma(a, b, c). In assembly, because GCC may pick a form that overwrites a factor, and then copies
  // and spills accumulators in the innermost loop.
  static LOCKSTEP_INLINE void fma_into(Avx2& c, Avx2 a, Avx2 b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
  }
  static LOCKSTEP_INLINE Avx2 fnma(Avx2 a, Avx2 b, Avx2 c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
  static LOCKSTEP_INLINE Avx2 sqrt(Avx2 a) { return {_mm256_sqrt_ps(a.v)}; }
  static LOCKSTEP_INLINE Avx2 max(Avx2 a, Avx2 b) { return {_mm256_max_ps(a.v, b.v)}; }

  static LOCKSTEP_INLINE Avx2 min(Avx2 a, Avx2 b) { return {_mm256_min_ps(a.v, b.v)}; }
  // In two steps, of which only the second can round (exact_math.hpp); -150 <= n <= 128.
  static LOCKSTEP_INLINE Avx2 scale2(Avx2 x, Avx2 n) {
    __m256i i = _mm256_cvtps_epi32(n.v), h = _mm256_srai_epi32(i, 1);
    return x * power_of_2(h) * power_of_2(_mm256_sub_epi32(i, h));
  }
  static LOCKSTEP_INLINE Avx2 power_of_2(__m256i i) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(i, _mm256_set1_epi32(127)), 23))};
  }
  LOCKSTEP_INLINE float largest() const {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }

  static LOCKSTEP_INLINE unsigned largest_magnitude(const float* p, i64 n) {
    __m256i top = _mm256_setzero_si256(), sign_off = _mm256_set1_epi32(0x7fffffff);
    for (i64 i = 0; i < n; i += kWidth)
      top = _mm256_max_epi32(
          top, _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i)), sign_off));
    // Without signs, integers and floats are in the same order; as integers NaNs take part too.
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return static_cast<unsigned>(_mm_cvtsi128_si32(m));
  }

  // dst[k * ld + j] = src[j * src_ld + k] for 8 rows j and 4 columns k.
  template <class X>
  static LOCKSTEP_INLINE void transpose4(const X* src, i64 src_ld, float* dst, i64 ld) {
    __m256 q[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const X* p = src + j * src_ld;
      q[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(four(p)), four(p + 4 * src_ld), 1);
    }
    __m256 a = _mm256_unpacklo_ps(q[0], q[1]), b = _mm256_unpackhi_ps(q[0], q[1]);
    __m256 c = _mm256_unpacklo_ps(q[2], q[3]), d = _mm256_unpackhi_ps(q[2], q[3]);
    _mm256_storeu_ps(dst, _mm256_shuffle_ps(a, c, 0x44));
    _mm256_storeu_ps(dst + ld, _mm256_shuffle_ps(a, c, 0xee));
    _mm256_storeu_ps(dst + 2 * ld, _mm256_shuffle_ps(b, d, 0x44));
    _mm256_storeu_ps(dst + 3 * ld, _mm256_shuffle_ps(b, d, 0xee));
  }

  // The fold of a lane sum: lane[i] += lane[i+8], then +4, +2, +1.
  static LOCKSTEP_INLINE float fold16(const Avx2* lanes) {
    __m256 s8 = _mm256_add_ps(lanes[0].v, lanes[1].v);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
  }
};

}  // namespace lockstep::simd
