// Two float32 as two bf16 in one word, in one instruction of a GPU. Fast mode's: a NaN's bits are the
// hardware's, all other numbers are rounded as bf16.hpp rounds them.
#pragma once
#include <cstdint>

#include "kernels/bf16.hpp"

namespace lockstep::cuda {

// The first in the lower half. PTX ISA, "cvt": rn is to nearest, ties to even.
LOCKSTEP_ANYWHERE inline std::uint32_t pack(float low, float high) {
#ifdef __CUDA_ARCH__
  std::uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return bf16(low).bits | static_cast<std::uint32_t>(bf16(high).bits) << 16;
#endif
}

}  // namespace lockstep::cuda
