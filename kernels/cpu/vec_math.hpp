// exact_math.hpp, lane by lane: the same operations in the same order, so the same bits.
#pragma once
#include "kernels/cpu/always_inline.hpp"
#include "kernels/exact_math.hpp"
#include "kernels/lanes.hpp"

namespace lockstep::simd {

template <class V>
LOCKSTEP_INLINE V exp(V x) {
  using E = ExpFloat;
  x = V::min(V::all(E::high_limit), x);
  x = V::max(V::all(E::low_limit), x);
  V n = V::fma(x, V::all(E::log2e), V::all(E::shifter)) - V::all(E::shifter);
  V r = V::fma(n, V::all(-E::ln2_high), x);
  r = V::fma(n, V::all(-E::ln2_low), r);
  V q = V::all(E::c6);
  q = V::fma(q, r, V::all(E::c5));
  q = V::fma(q, r, V::all(E::c4));
  q = V::fma(q, r, V::all(E::c3));
  q = V::fma(q, r, V::all(E::c2));
  V p = V::fma(r * r, q, r) + V::all(1.0f);
  return V::scale2(p, n);
}

// The 16 chains of a lane sum (EXACT.md) in as many registers as they need. Term i of a row belongs to
// chain i mod 16, so a row is walked in steps of 16.
template <class V>
struct Lanes16 {
  static constexpr int kVectors = 16 / V::kWidth;
  V lane[kVectors];
  LOCKSTEP_INLINE Lanes16() {
    for (V& x : lane) x = V::zero();
  }
  LOCKSTEP_INLINE float total() const { return V::fold16(lane); }
};

// f(i, j, mask) for every vector of a row of n: it starts at element i, its chains at register j of
// Lanes16, and `mask` says which of its elements exist.
template <class V, class F>
LOCKSTEP_INLINE void for_lanes16(i64 n, F&& f) {
  i64 i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < Lanes16<V>::kVectors; ++j) f(i + j * V::kWidth, j, V::first(V::kWidth));
  if (i < n)
    for (int j = 0; j < Lanes16<V>::kVectors; ++j) f(i + j * V::kWidth, j, V::first(n - i - j * V::kWidth));
}

// lane sum over i of a[i] * b[i]. A missing term is fma(0, 0, chain) = chain.
template <class V, class X>
LOCKSTEP_INLINE float lane_dot(const X* a, const X* b, i64 n) {
  Lanes16<V> sum;
  for_lanes16<V>(n, [&](i64 i, int j, typename V::Mask m) {
    sum.lane[j] = V::fma(V::load(a + i, m), V::load(b + i, m), sum.lane[j]);
  });
  return sum.total();
}

}  // namespace lockstep::simd
