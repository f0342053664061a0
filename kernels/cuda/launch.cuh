// Starts kernels (frame.hpp) on a GPU.
#pragma once
#include <cuda_runtime.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/cuda/frame.hpp"

namespace lockstep::cuda {

inline void must(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

struct Blas;        // fast_matmul.cu
struct Attentions;  // fast_attention.cu

// A rank's kernels run one after another on this stream.
class Queue : public Lanes {
 public:
  Queue() : Lanes(1) { must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream"); }
  ~Queue() { cudaStreamDestroy(stream); }
  cudaStream_t stream;
  std::shared_ptr<Blas> blas;                    // in fast mode, where cuBLASLt is
  std::shared_ptr<const Attentions> attentions;  // in fast mode
  bool repeats = true;  // no kernel is chosen by its time, which no two ranks measure alike
};

template <class Kernel>
__global__ void run_blocks(const Kernel kernel) {
  extern __shared__ __align__(16) float shared[];
  typename Kernel::State state{};
  const Place at{static_cast<i64>(blockIdx.x), static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x),
                 shared};
  const i64 phases = kernel.phases(at.block);
  for (i64 p = 0; p < phases; ++p) {
    kernel.phase(p, at, state);
    __syncthreads();
  }
}

struct Gpu {
  template <class Kernel>
  static void launch(Lanes& lanes, const Kernel& kernel, i64 blocks, int threads, i64 shared_floats) {
    if (blocks > INT32_MAX) throw std::runtime_error("device cuda: a kernel of more than 2^31 blocks");
    run_blocks<<<static_cast<unsigned>(blocks), threads,
                 static_cast<std::size_t>(shared_floats) * sizeof(float),
                 static_cast<Queue&>(lanes).stream>>>(kernel);
    must(cudaGetLastError(), "a kernel did not start");
  }
};

}  // namespace lockstep::cuda
