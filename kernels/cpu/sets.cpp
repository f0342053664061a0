// Registers the kernel sets of this architecture. This file is compiled for any of its processors, and asks
// the one at hand; __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
#include "kernels/cpu/sets.hpp"

#include "kernels/normal.hpp"
#include "kernels/plain/plain.hpp"

#if defined(__x86_64__)
namespace lockstep {
namespace {

bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

void all_avx2(Ops<float>& ops) { simd::plain_avx2(ops), simd::apply_avx2(ops); }

const KernelSet avx2{"avx2", 2, has_avx2, all_avx2};
const KernelSet avx512{"avx512", 3, has_avx512, simd::apply_avx512};

}  // namespace
}  // namespace lockstep
#elif defined(__aarch64__)
namespace lockstep {
namespace {

const KernelSet neon{"neon", 2, [] { return true; }, simd::apply_neon};

}  // namespace
}  // namespace lockstep
#endif

namespace lockstep {

Ops<double> double_ops() {
  Ops<double> ops = plain_ops<double>();
#if defined(__x86_64__)
  if (has_avx2()) simd::apply_avx2(ops), simd::matmuls_avx2(ops);
#endif
  return ops;
}

void normal_numbers(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values) {
#if defined(__x86_64__)
  static const bool wide = has_avx512(), fma = has_avx2();
  if (wide) return simd::normal_numbers_avx512(key, first, n, deviation, values);
  if (fma) return simd::normal_numbers_avx2(key, first, n, deviation, values);
#endif
  plain::normal_numbers(key, first, n, deviation, values);
}

}  // namespace lockstep
