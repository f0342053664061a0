// Eight numbers at a time, 16 bytes of bf16 or 32 of float32: what a kernel that is bound by memory loads and
// stores.
#pragma once
#include <cstdint>

#include "kernels/cuda/frame.hpp"
#include "kernels/cuda/pack.hpp"

namespace lockstep::cuda {

struct Eight {
  float at[8];
};
struct alignas(16) Quad {  // moves as one
  std::uint32_t word[4];
};

LOCKSTEP_ANYWHERE inline Eight load(const float* from) {
  Eight x;
  for (int q = 0; q < 2; ++q) {
    const Quad quad = reinterpret_cast<const Quad*>(from)[q];
    for (int i = 0; i < 4; ++i) x.at[4 * q + i] = std::bit_cast<float>(quad.word[i]);
  }
  return x;
}
LOCKSTEP_ANYWHERE inline Eight load(const bf16* from) {
  const Quad quad = *reinterpret_cast<const Quad*>(from);
  Eight x;
  for (int i = 0; i < 4; ++i) {
    x.at[2 * i] = std::bit_cast<float>(quad.word[i] << 16);
    x.at[2 * i + 1] = std::bit_cast<float>(quad.word[i] & 0xffff0000u);
  }
  return x;
}
LOCKSTEP_ANYWHERE inline void store(float* to, const Eight& x) {
  for (int q = 0; q < 2; ++q) {
    Quad quad;
    for (int i = 0; i < 4; ++i) quad.word[i] = std::bit_cast<std::uint32_t>(x.at[4 * q + i]);
    reinterpret_cast<Quad*>(to)[q] = quad;
  }
}
LOCKSTEP_ANYWHERE inline void store(bf16* to, const Eight& x) {
  Quad quad;
  for (int i = 0; i < 4; ++i) quad.word[i] = pack(x.at[2 * i], x.at[2 * i + 1]);
  *reinterpret_cast<Quad*>(to) = quad;
}

// The same by 16 bytes an instruction for certain. nvcc splits store()'s at times, in the embedding's
// gradient.
LOCKSTEP_ANYWHERE inline void store_whole(float* to, const Eight& x) {
#ifdef __CUDA_ARCH__
  for (int q = 0; q < 2; ++q)
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to + 4 * q)),
                 "f"(x.at[4 * q]), "f"(x.at[4 * q + 1]), "f"(x.at[4 * q + 2]), "f"(x.at[4 * q + 3])
                 : "memory");
#else
  store(to, x);
#endif
}

// Can rows of n numbers at these addresses be had in eights?
template <class... P>
bool in_eights(i64 n, const P*... at) {
  return n % 8 == 0 && ((reinterpret_cast<std::uintptr_t>(at) % 16 == 0) && ...);
}

// f(i) for i = 0, 8, 16, ... below n, one a thread.
template <class On, class F>
void each_eight(Lanes& lanes, i64 n, const F& f) {
  each<On>(lanes, n / 8, [=] LOCKSTEP_ANYWHERE(i64 i) { f(8 * i); });
}

// Within fast mode's bound: errors of a few units in the last place, where exact mode's are fixed to the bit.
LOCKSTEP_ANYWHERE inline float quick_exp(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return std::exp(x);
#endif
}
LOCKSTEP_ANYWHERE inline float quick_ratio(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}
LOCKSTEP_ANYWHERE inline float quick_sigmoid(float g) { return quick_ratio(1.0f, 1.0f + quick_exp(-g)); }

}  // namespace lockstep::cuda
