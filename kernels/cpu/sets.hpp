// Each set's entry point, defined in a file compiled for its instruction set.
#pragma once
#include "kernels/ops.hpp"

namespace lockstep::simd {
void apply_avx2(Ops<float>& ops);
void apply_avx2(Ops<double>& ops);
void plain_avx2(Ops<float>& ops);  // the plain ones, compiled for it
void apply_avx512(Ops<float>& ops);
}  // namespace lockstep::simd
