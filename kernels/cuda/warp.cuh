// The environment of warp.hpp on a GPU (sm_80 and later), and its launch.
#pragma once
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.hpp"

namespace lockstep::cuda {

// The bodies are the GPU's alone; the functions are everybody's, because the kernels that call them are.
#ifdef __CUDA_ARCH__
#define LOCKSTEP_ON_GPU(...) __VA_ARGS__
#else
#define LOCKSTEP_ON_GPU(...)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif

struct Warp {
  char* base;
  __host__ __device__ int thread() const { LOCKSTEP_ON_GPU(return static_cast<int>(threadIdx.x);) return 0; }
  __host__ __device__ i64 block() const { LOCKSTEP_ON_GPU(return static_cast<i64>(blockIdx.x);) return 0; }
  __host__ __device__ char* shared() const { return base; }
  __host__ __device__ void sync() const { LOCKSTEP_ON_GPU(__syncthreads();) }
  __host__ __device__ void sync_warp() const { LOCKSTEP_ON_GPU(__syncwarp();) }
  __host__ __device__ float across(float x, int mask) const {
    LOCKSTEP_ON_GPU(x = __shfl_xor_sync(0xffffffffu, x, mask);)
    return x;
  }
  __host__ __device__ int same(int x) const {
    LOCKSTEP_ON_GPU(x = __shfl_sync(0xffffffffu, x, 0);)
    return x;
  }
  __host__ __device__ void copy_async(void* to, const void* from, bool there) const {
    LOCKSTEP_ON_GPU(asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address(to)),
                                 "l"(from), "r"(there ? 16 : 0)
                                 : "memory");)
  }
  __host__ __device__ void commit() const {
    LOCKSTEP_ON_GPU(asm volatile("cp.async.commit_group;" ::: "memory");)
  }
  template <int n>
  __host__ __device__ void wait() const {
    LOCKSTEP_ON_GPU(asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");)
  }
  __host__ __device__ void load_matrix(Words<4>& r, const void* row) const {
    LOCKSTEP_ON_GPU(asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                                 : "r"(address(row))
                                 : "memory");)
  }
  __host__ __device__ void load_transposed(Words<4>& r, const void* row) const {
    LOCKSTEP_ON_GPU(asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                                 : "r"(address(row))
                                 : "memory");)
  }
  __host__ __device__ void multiply(Sums& c, const Words<4>& a, std::uint32_t b0, std::uint32_t b1) const {
    LOCKSTEP_ON_GPU(
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
            "{%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c.at[0]), "+f"(c.at[1]), "+f"(c.at[2]), "+f"(c.at[3])
            : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b0), "r"(b1));)
  }
  __host__ __device__ float exp2(float x) const {
    LOCKSTEP_ON_GPU(asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(x));)
    return x;
  }

 protected:
  __host__ __device__ static std::uint32_t address(const void* shared) {
    LOCKSTEP_ON_GPU(return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));)
    return shared != nullptr;
  }
};
#ifndef __CUDA_ARCH__
#pragma GCC diagnostic pop
#endif

template <class Env, class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) run_warps(const Kernel kernel) {
  extern __shared__ __align__(1024) char warp_shared[];
  Env env{warp_shared};
  kernel(env);
}

template <class Env>
struct WarpsOn {
  // Once for each kernel, before its first launch: more than 48 KiB of shared memory must be asked for.
  // False: this device has less than it needs.
  template <class Kernel>
  static bool prepare() {
    int device = 0, most = 0;
    must(cudaGetDevice(&device), "the device");
    must(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "the device");
    if (Kernel::kShared > most) return false;
    must(cudaFuncSetAttribute(run_warps<Env, Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(Kernel::kShared)),
         "shared memory");
    return true;
  }
  template <class Kernel>
  static void launch(Lanes& lanes, const Kernel& kernel, i64 blocks) {
    run_warps<Env><<<static_cast<unsigned>(blocks), Kernel::kThreads,
                     static_cast<std::size_t>(Kernel::kShared), static_cast<Queue&>(lanes).stream>>>(kernel);
    must(cudaGetLastError(), "a kernel did not start");
  }
};
using WarpGpu = WarpsOn<Warp>;

}  // namespace lockstep::cuda
