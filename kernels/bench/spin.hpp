// Independent chains of fma, enough of them to hide the latency of each.
#pragma once
#include "kernels/bench/fma_peak.hpp"
#include "kernels/cpu/always_inline.hpp"

// A vector register that the compiler takes to be changed.
#if defined(__aarch64__)
#define LOCKSTEP_TOUCHED "+w"
#else
#define LOCKSTEP_TOUCHED "+v"
#endif

namespace lockstep::bench {

template <class V>
LOCKSTEP_INLINE double spin() {
  constexpr int kRounds = 200000;
  const V a = V::all(0.999f), b = V::all(0.001f);
  V c0 = a, c1 = a, c2 = a, c3 = a, c4 = a, c5 = a, c6 = a, c7 = a, c8 = a, c9 = a, c10 = a, c11 = a;
  for (int i = 0; i < kRounds; ++i) {
    for (V* c : {&c0, &c1, &c2, &c3, &c4, &c5, &c6, &c7, &c8, &c9, &c10, &c11}) *c = V::fma(a, b, *c);
    asm volatile(""
                 : LOCKSTEP_TOUCHED(c0.v), LOCKSTEP_TOUCHED(c1.v), LOCKSTEP_TOUCHED(c2.v),
                   LOCKSTEP_TOUCHED(c3.v), LOCKSTEP_TOUCHED(c4.v), LOCKSTEP_TOUCHED(c5.v));
    asm volatile(""
                 : LOCKSTEP_TOUCHED(c6.v), LOCKSTEP_TOUCHED(c7.v), LOCKSTEP_TOUCHED(c8.v),
                   LOCKSTEP_TOUCHED(c9.v), LOCKSTEP_TOUCHED(c10.v), LOCKSTEP_TOUCHED(c11.v));
  }
  float out[V::kWidth];
  (((c0 + c1) + (c2 + c3)) + ((c4 + c5) + (c6 + c7)) + ((c8 + c9) + (c10 + c11))).store(out);
  sink(out[0]);
  return 2.0 * 12 * V::kWidth * kRounds;
}

}  // namespace lockstep::bench
