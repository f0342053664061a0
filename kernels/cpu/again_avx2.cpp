// The plain kernels once more, compiled for AVX2: the same code and so the same bits, but here fma is an
// instruction, and in plain/ a call of the C library. What no vector kernel overrides is these: most of the
// table in double, and normal numbers.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/sets.hpp"
#include "kernels/random.hpp"

#define plain plain_avx2  // a namespace of its own: neither symbol nor code is shared with plain/
#include "kernels/plain/adamw.cpp"
#include "kernels/plain/attention.cpp"
#include "kernels/plain/cross_entropy.cpp"
#include "kernels/plain/elementwise.cpp"
#include "kernels/plain/embed.cpp"
#include "kernels/plain/matmul.cpp"
#include "kernels/plain/norm.cpp"
#include "kernels/plain/normal.cpp"
#include "kernels/plain/rope.cpp"
#include "kernels/plain/squares.cpp"
#include "kernels/plain/swiglu.cpp"

namespace lockstep::simd {

void apply_avx2(Ops<double>& ops) { plain::fill(ops); }
void plain_avx2(Ops<float>& ops) { plain::fill(ops); }
void normal_numbers_avx2(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values) {
  plain::normal_numbers(key, first, n, deviation, values);
}

}  // namespace lockstep::simd
