// Independent chains of fma, enough of them to hide the latency of each.
#pragma once
#include "kernels/bench/fma_peak.hpp"
#include "kernels/cpu/always_inline.hpp"

namespace lockstep::bench {

template <class V>
LOCKSTEP_INLINE double spin() {
  constexpr int kRounds = 200000;
  const V a = V::all(0.999f), b = V::all(0.001f);
  V c0 = a, c1 = a, c2 = a, c3 = a, c4 = a, c5 = a, c6 = a, c7 = a, c8 = a, c9 = a, c10 = a, c11 = a;
  for (int i = 0; i < kRounds; ++i) {
    for (V* c : {&c0, &c1, &c2, &c3, &c4, &c5, &c6, &c7, &c8, &c9, &c10, &c11}) *c = V::fma(*c, a, b);
    asm volatile("" : "+v"(c0.v), "+v"(c1.v), "+v"(c2.v), "+v"(c3.v), "+v"(c4.v), "+v"(c5.v));
    asm volatile("" : "+v"(c6.v), "+v"(c7.v), "+v"(c8.v), "+v"(c9.v), "+v"(c10.v), "+v"(c11.v));
  }
  float out[V::kWidth];
  (((c0 + c1) + (c2 + c3)) + ((c4 + c5) + (c6 + c7)) + ((c8 + c9) + (c10 + c11))).store(out);
  sink(out[0]);
  return 2.0 * 12 * V::kWidth * kRounds;
}

}  // namespace lockstep::bench
