// Each set's entry point, defined in a file compiled for its instruction set.
#pragma once
#include "kernels/ops.hpp"

namespace lockstep::simd {
void apply_avx2(Ops<float>& ops);
void apply_avx2(Ops<double>& ops);  // the plain ones, compiled for it
void matmuls_avx2(Ops<double>& ops);
void plain_avx2(Ops<float>& ops);  // the plain ones, compiled for it
void apply_avx512(Ops<float>& ops);
void apply_neon(Ops<float>& ops);
void normal_numbers_avx2(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values);
void normal_numbers_avx512(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values);
}  // namespace lockstep::simd
