// bfloat16: the upper half of a float32. Widening is exact; narrowing rounds to the nearest, ties to even, as
// PyTorch does (c10/util/BFloat16.h), and every NaN becomes 0x7fc0.
// Wang and Kanwar, "BFloat16: The secret to high performance on Cloud TPUs" (2019).
#pragma once
#include <bit>
#include <cstdint>
#include <type_traits>

#ifndef LOCKSTEP_ANYWHERE  // what kernels of an accelerator call too
#ifdef __CUDACC__
#define LOCKSTEP_ANYWHERE __host__ __device__
#else
#define LOCKSTEP_ANYWHERE
#endif
#endif

namespace lockstep {

// Storage only: arithmetic happens in float. Members are inlined everywhere, because files that call them are
// compiled for different instruction sets.
struct bf16 {
  std::uint16_t bits;
  bf16() = default;
  [[gnu::always_inline]] LOCKSTEP_ANYWHERE explicit bf16(float x) {
    const auto wide = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t odd = (wide >> 16) & 1;
    bits = static_cast<std::uint16_t>(x != x ? 0x7fc0u : (wide + 0x7fffu + odd) >> 16);
  }
  [[gnu::always_inline]] LOCKSTEP_ANYWHERE operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};
static_assert(sizeof(bf16) == 2 && std::is_trivially_copyable_v<bf16>);

// The type that numbers stored as T are computed with.
template <class T>
struct WideOf {
  using type = T;
};
template <>
struct WideOf<bf16> {
  using type = float;
};
template <class T>
using Wide = typename WideOf<std::remove_cv_t<T>>::type;

// Bit i: the i-th of these types is a pointer to bf16.
template <class... A>
inline constexpr unsigned kHalves = [] {
  unsigned halves = 0, bit = 1;
  ((halves |= std::is_same_v<std::remove_cv_t<std::remove_pointer_t<A>>, bf16> ? bit : 0, bit <<= 1), ...);
  return halves;
}();

// The same argument, a pointer as one to another type of storage.
template <class To, class A>
[[gnu::always_inline]] inline To retyped(A a) {
  if constexpr (std::is_pointer_v<To> && std::is_pointer_v<A>)
    return reinterpret_cast<To>(a);
  else
    return a;
}

}  // namespace lockstep
