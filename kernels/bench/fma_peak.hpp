// The most this core can do: fused multiply-adds on registers alone, no memory. Timings of matmuls are
// given as a share of it, measured in the same run, so that a busy or slowed-down machine does not mislead.
#pragma once
#include <string>

namespace lockstep::bench {

// Floating-point operations per second of one thread, by its own processor time: a few milliseconds' work.
double fma_peak(const std::string& set);  // "plain" has none: 0

double spin_avx2();  // does the work, and returns how many operations it was
double spin_avx512();
double spin_neon();
float sink(float x);  // keeps the result alive

}  // namespace lockstep::bench
