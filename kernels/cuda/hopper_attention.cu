// Attention's kernels for Hopper alone (compiled for sm_90a, where nvcc knows it).
#include "kernels/cuda/fast_attention.hpp"
#include "kernels/cuda/hopper_backward.hpp"
#include "kernels/cuda/warpgroup.cuh"

namespace lockstep::cuda {
namespace {
using OnHopper = WarpsOn<WarpGroup>;
}  // namespace

bool prepare_hopper() {
#ifdef LOCKSTEP_SM_90A
  int device = 0, major = 0, minor = 0;
  must(cudaGetDevice(&device), "the device");
  must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "the device");
  must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "the device");
  if (major != 9 || minor != 0) return false;
  return prepare_flash<OnHopper, HopperKernels, bf16, float>().all();
#else
  return false;
#endif
}

bool hopper_attention(Lanes& lanes, bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v, i64 B,
                      i64 T, i64 H, i64 K, i64 hd) {
  return flash_attention<OnHopper, HopperKernels>(lanes, o, lse, q, k, v, B, T, H, K, hd);
}
bool hopper_attention_dx(Lanes& lanes, bf16* dq, bf16* dk, bf16* dv, const bf16* dO, const bf16* q,
                         const bf16* k, const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H,
                         i64 K, i64 hd) {
  return flash_attention_dx<OnHopper, HopperKernels>(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
}
bool hopper_attention_dx(Lanes& lanes, bf16* dq, float* dk, float* dv, const bf16* dO, const bf16* q,
                         const bf16* k, const bf16* v, const bf16* o, const float* lse, i64 B, i64 T, i64 H,
                         i64 K, i64 hd) {
  return flash_attention_dx<OnHopper, HopperKernels>(lanes, dq, dk, dv, dO, q, k, v, o, lse, B, T, H, K, hd);
}

}  // namespace lockstep::cuda
