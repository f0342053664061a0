// The environment of warpgroup.hpp on a GPU of compute capability 9.0, compiled for sm_90a.
#pragma once

#include "kernels/cuda/warp.cuh"
#include "kernels/cuda/warpgroup.hpp"

namespace lockstep::cuda {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define LOCKSTEP_ON_HOPPER(...) __VA_ARGS__
#else
#define LOCKSTEP_ON_HOPPER(...)
#endif
#ifndef __CUDA_ARCH__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif

// Registers of sums as operands of asm: those of eight columns, of 32, of 64 and of 128.
#define LOCKSTEP_SUMS8(n) "+f"(sums[n].at[0]), "+f"(sums[n].at[1]), "+f"(sums[n].at[2]), "+f"(sums[n].at[3])
#define LOCKSTEP_SUMS32(n) \
  LOCKSTEP_SUMS8(n), LOCKSTEP_SUMS8(n + 1), LOCKSTEP_SUMS8(n + 2), LOCKSTEP_SUMS8(n + 3)
#define LOCKSTEP_SUMS64 LOCKSTEP_SUMS32(0), LOCKSTEP_SUMS32(4)
#define LOCKSTEP_SUMS128 LOCKSTEP_SUMS64, LOCKSTEP_SUMS32(8), LOCKSTEP_SUMS32(12)
#define LOCKSTEP_NAMES64                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LOCKSTEP_NAMES128                                                                                  \
  LOCKSTEP_NAMES64                                                                                         \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

struct WarpGroup : Warp {
  __host__ __device__ void publish() const {
    LOCKSTEP_ON_HOPPER(asm volatile("fence.proxy.async.shared::cta;" ::: "memory");)
  }
  __host__ __device__ void begin() const {
    LOCKSTEP_ON_HOPPER(asm volatile("wgmma.fence.sync.aligned;" ::: "memory");)
  }
  __host__ __device__ void commit_products() const {
    LOCKSTEP_ON_HOPPER(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");)
  }
  template <int n>
  __host__ __device__ void wait_products() const {
    LOCKSTEP_ON_HOPPER(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n) : "memory");)
  }
  template <class... Registers>
  __host__ __device__ void settle(Registers&... all) const {
    (hold(all), ...);
  }
  template <int kColumns, bool kDown>
  __host__ __device__ void multiply(Sums (&sums)[kColumns / 8], const Operand& a, const Operand& b,
                                    bool keep) const {
    static_assert(kColumns == 64 || kColumns == 128);
    if constexpr (kColumns == 64) {
      LOCKSTEP_ON_HOPPER(
          asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0;\n"
                       "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LOCKSTEP_NAMES64
                       "}, %32, %33, p, 1, 1, 0, %35; }"
                       : LOCKSTEP_SUMS64
                       : "l"(described(a)), "l"(described(b)), "r"(static_cast<int>(keep)),
                         "n"(static_cast<int>(kDown)));)
    } else {
      LOCKSTEP_ON_HOPPER(
          asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
                       "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LOCKSTEP_NAMES128
                       "}, %64, %65, p, 1, 1, 0, %67; }"
                       : LOCKSTEP_SUMS128
                       : "l"(described(a)), "l"(described(b)), "r"(static_cast<int>(keep)),
                         "n"(static_cast<int>(kDown)));)
    }
  }
  template <int kColumns, bool kDown>
  __host__ __device__ void multiply(Sums (&sums)[kColumns / 8], const Words<4>& a, const Operand& b,
                                    bool keep) const {
    static_assert(kColumns == 64 || kColumns == 128);
    if constexpr (kColumns == 64) {
      LOCKSTEP_ON_HOPPER(
          asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
                       "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LOCKSTEP_NAMES64
                       "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38; }"
                       : LOCKSTEP_SUMS64
                       : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "l"(described(b)),
                         "r"(static_cast<int>(keep)), "n"(static_cast<int>(kDown)));)
    } else {
      LOCKSTEP_ON_HOPPER(
          asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
                       "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LOCKSTEP_NAMES128
                       "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70; }"
                       : LOCKSTEP_SUMS128
                       : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "l"(described(b)),
                         "r"(static_cast<int>(keep)), "n"(static_cast<int>(kDown)));)
    }
  }

 private:
  template <int n>
  __host__ __device__ static void hold(Sums (&sums)[n]) {
    LOCKSTEP_ON_HOPPER(
        LOCKSTEP_UNROLL for (int i = 0; i < n; ++i) asm volatile(""
                                                                 : LOCKSTEP_SUMS8(i)::"memory");)
  }
  template <int n>
  __host__ __device__ static void hold(Words<4> (&words)[n]) {
    LOCKSTEP_ON_HOPPER(LOCKSTEP_UNROLL for (int i = 0; i < n; ++i) asm volatile(
                           ""
                           : "+r"(words[i].at[0]), "+r"(words[i].at[1]), "+r"(words[i].at[2]),
                             "+r"(words[i].at[3])::"memory");)
  }
  // PTX ISA, "Matrix Descriptor Format": address, leading and stride in 16 bytes; 1 at bit 62: swizzled by
  // 128 bytes.
  __host__ __device__ static std::uint64_t described(const Operand& of) {
    const std::uint32_t low =
        ((address(of.base) & 0x3ffff) >> 4 | static_cast<std::uint32_t>(of.leading >> 4) << 16) +
        static_cast<std::uint32_t>(of.offset >> 4);
    return low | static_cast<std::uint64_t>(static_cast<std::uint32_t>(of.stride >> 4) | 1u << 30) << 32;
  }
};
#ifndef __CUDA_ARCH__
#pragma GCC diagnostic pop
#endif

}  // namespace lockstep::cuda
