// Four neighbouring numbers as float32, however they are stored. For files of AVX2 and of AVX-512.
#pragma once

// GCC 12 takes the intrinsics' own "undefined" operands for a mistake (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "kernels/bf16.hpp"
#include "kernels/cpu/always_inline.hpp"

namespace lockstep::simd {

LOCKSTEP_INLINE __m128 four(const float* p) { return _mm_loadu_ps(p); }
LOCKSTEP_INLINE __m128 four(const bf16* p) {
  const __m128i halves = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), halves));
}

}  // namespace lockstep::simd
