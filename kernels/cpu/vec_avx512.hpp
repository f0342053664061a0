// Sixteen floats in one AVX-512 register. Include only from a file compiled for AVX-512 (*_avx512.cpp).
// The kernels are templates over this type and its AVX2 twin, so each instruction set gets symbols of its
// own and the linker can never mix them.
#pragma once

#include "kernels/cpu/four.hpp"
#include "kernels/lanes.hpp"

namespace lockstep::simd {

struct Avx512Double {
  __m512d v;
  static LOCKSTEP_INLINE Avx512Double zero() { return {_mm512_setzero_pd()}; }
  static LOCKSTEP_INLINE Avx512Double all(double x) { return {_mm512_set1_pd(x)}; }
  static LOCKSTEP_INLINE Avx512Double from_floats(const float* p) {
    return {_mm512_cvtps_pd(_mm256_loadu_ps(p))};
  }
  LOCKSTEP_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }
  // The bits of both, to see later whether any was not zero.
  static LOCKSTEP_INLINE Avx512Double either(Avx512Double a, Avx512Double b) {
    return {_mm512_or_pd(a.v, b.v)};
  }
  LOCKSTEP_INLINE bool all_zero() const {
    return _mm512_test_epi64_mask(_mm512_castpd_si512(v), _mm512_castpd_si512(v)) == 0;
  }
  friend LOCKSTEP_INLINE Avx512Double operator+(Avx512Double a, Avx512Double b) {
    return {_mm512_add_pd(a.v, b.v)};
  }
  friend LOCKSTEP_INLINE Avx512Double operator-(Avx512Double a, Avx512Double b) {
    return {_mm512_sub_pd(a.v, b.v)};
  }
  friend LOCKSTEP_INLINE Avx512Double operator*(Avx512Double a, Avx512Double b) {
    return {_mm512_mul_pd(a.v, b.v)};
  }
};

struct Avx512 {
  static constexpr int kWidth = 16;
  // The register block of a matmul: 8 x 3 accumulators, 3 columns of B and a broadcast of A fit in 32.
  static constexpr int kTileRows = 8, kTileVectors = 3;
  using Mask = __mmask16;
  using Double = Avx512Double;
  __m512 v;

  static LOCKSTEP_INLINE Avx512 zero() { return {_mm512_setzero_ps()}; }
  static LOCKSTEP_INLINE Avx512 all(float x) { return {_mm512_set1_ps(x)}; }
  static LOCKSTEP_INLINE Avx512 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static LOCKSTEP_INLINE Avx512 load(const float* p, Mask m) { return {_mm512_maskz_loadu_ps(m, p)}; }
  LOCKSTEP_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  LOCKSTEP_INLINE void store(float* p, Mask m) const { _mm512_mask_storeu_ps(p, m, v); }

  // bf16.hpp, lane by lane: widened exactly, rounded to the nearest, ties to even.
  static LOCKSTEP_INLINE Avx512 load(const bf16* p) { return widened(_mm256_loadu_epi16(p)); }
  static LOCKSTEP_INLINE Avx512 load(const bf16* p, Mask m) {
    return widened(_mm256_maskz_loadu_epi16(m, p));
  }
  LOCKSTEP_INLINE void store(bf16* p) const { _mm256_storeu_epi16(p, rounded()); }
  LOCKSTEP_INLINE void store(bf16* p, Mask m) const { _mm256_mask_storeu_epi16(p, m, rounded()); }
  static LOCKSTEP_INLINE Avx512 widened(__m256i halves) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
  }
  LOCKSTEP_INLINE __m256i rounded() const {
    const __m512i wide = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(wide, 16), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_add_epi32(wide, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_mask_mov_epi32(_mm512_srli_epi32(near, 16), nan, _mm512_set1_epi32(0x7fc0)));
  }

  // Lanes 0 .. n-1, for any n.
  static LOCKSTEP_INLINE Mask first(i64 n) {
    return n >= 16 ? Mask(0xffff) : n <= 0 ? Mask(0) : Mask((1u << n) - 1);
  }
  // a where the mask is set, else b.
  static LOCKSTEP_INLINE Avx512 select(Mask m, Avx512 a, Avx512 b) {
    return {_mm512_mask_blend_ps(m, b.v, a.v)};
  }

  friend LOCKSTEP_INLINE Avx512 operator+(Avx512 a, Avx512 b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Avx512 operator-(Avx512 a, Avx512 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Avx512 operator*(Avx512 a, Avx512 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Avx512 operator/(Avx512 a, Avx512 b) { return {_mm512_div_ps(a.v, b.v)}; }
  static LOCKSTEP_INLINE Avx512 fma(Avx512 a, Avx512 b, Avx512 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  // c = fma(a, b, c). In assembly, because GCC may pick a form that overwrites a factor, and then copies
  // and spills accumulators in the innermost loop.
  static LOCKSTEP_INLINE void fma_into(Avx512& c, Avx512 a, Avx512 b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
  }
  // fma(-a, b, c): the product's sign flips exactly.
  static LOCKSTEP_INLINE Avx512 fnma(Avx512 a, Avx512 b, Avx512 c) {
    return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
  }
  static LOCKSTEP_INLINE Avx512 sqrt(Avx512 a) { return {_mm512_sqrt_ps(a.v)}; }
  // b unless a > b.
  static LOCKSTEP_INLINE Avx512 max(Avx512 a, Avx512 b) { return {_mm512_max_ps(a.v, b.v)}; }

  // b unless a < b.
  static LOCKSTEP_INLINE Avx512 min(Avx512 a, Avx512 b) { return {_mm512_min_ps(a.v, b.v)}; }
  // x * 2^n for a whole number n, rounded once.
  static LOCKSTEP_INLINE Avx512 scale2(Avx512 x, Avx512 n) { return {_mm512_scalef_ps(x.v, n.v)}; }
  LOCKSTEP_INLINE float largest() const { return _mm512_reduce_max_ps(v); }

  // The bits of the largest |p[i]|, i < n, a whole number of vectors; infinities and NaNs are the largest.
  static LOCKSTEP_INLINE unsigned largest_magnitude(const float* p, i64 n) {
    __m512i top = _mm512_setzero_si512(), sign_off = _mm512_set1_epi32(0x7fffffff);
    for (i64 i = 0; i < n; i += kWidth)
      top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_loadu_si512(p + i), sign_off));
    return static_cast<unsigned>(_mm512_reduce_max_epi32(top));
  }

  // dst[k * ld + j] = src[j * src_ld + k] for 16 rows j and 4 columns k.
  template <class X>
  static LOCKSTEP_INLINE void transpose4(const X* src, i64 src_ld, float* dst, i64 ld) {
    // Register q holds four elements of rows q, q+4, q+8, q+12; a 4x4 transpose within each quarter.
    __m512 q[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const X* p = src + j * src_ld;
      __m512 x = _mm512_castps128_ps512(four(p));
      x = _mm512_insertf32x4(x, four(p + 4 * src_ld), 1);
      x = _mm512_insertf32x4(x, four(p + 8 * src_ld), 2);
      q[j] = _mm512_insertf32x4(x, four(p + 12 * src_ld), 3);
    }
    __m512 a = _mm512_unpacklo_ps(q[0], q[1]), b = _mm512_unpackhi_ps(q[0], q[1]);
    __m512 c = _mm512_unpacklo_ps(q[2], q[3]), d = _mm512_unpackhi_ps(q[2], q[3]);
    _mm512_storeu_ps(dst, _mm512_shuffle_ps(a, c, 0x44));
    _mm512_storeu_ps(dst + ld, _mm512_shuffle_ps(a, c, 0xee));
    _mm512_storeu_ps(dst + 2 * ld, _mm512_shuffle_ps(b, d, 0x44));
    _mm512_storeu_ps(dst + 3 * ld, _mm512_shuffle_ps(b, d, 0xee));
  }

  // The fold of a lane sum: lane[i] += lane[i+8], then +4, +2, +1.
  static LOCKSTEP_INLINE float fold16(const Avx512* lanes) {
    __m256 hi = _mm512_extractf32x8_ps(lanes->v, 1);
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(lanes->v), hi);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
  }
};

}  // namespace lockstep::simd
