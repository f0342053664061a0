// Fast mode's matmuls, by NVIDIA's cuBLASLt (its documentation, section "Using the cuBLASLt API"): float32
// without TF32, and bf16 summed in float32. The library is opened at run time, so that programs start where
// it is not. Llama has no bias and SwiGLU reads two products: no epilogue of the library's saves a pass, so
// none is used.
#include <cublasLt.h>
#include <dlfcn.h>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <map>
#include <tuple>

#include "kernels/cuda/fast_matmul.hpp"
#include "kernels/cuda/fill.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/plain/mixed.hpp"

namespace lockstep::cuda {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64}
                                   << 20;  // what Hopper's split-k and stream-k algorithms ask for

// The functions that are called, by their names in the library.
struct Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  bool found = false;

  Library() {
    void* handle = nullptr;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
      if ((handle = dlopen(name, RTLD_NOW | RTLD_LOCAL))) break;
    if (!handle) return;
    found = true;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
      found = found && function;
    };
    get(create, "cublasLtCreate"), get(destroy, "cublasLtDestroy"), get(matmul, "cublasLtMatmul");
    get(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    get(desc_create, "cublasLtMatmulDescCreate"), get(desc_set, "cublasLtMatmulDescSetAttribute");
    get(layout_create, "cublasLtMatrixLayoutCreate");
    get(preference_create, "cublasLtMatmulPreferenceCreate");
    get(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    get(preference_destroy, "cublasLtMatmulPreferenceDestroy");
  }
};
const Library& library() {
  static const Library found;
  return found;
}

void must_multiply(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error("cuBLASLt: " + std::string(what) + ": status " + std::to_string(status));
}

std::uint32_t alignment(const void* at) {  // of an address, up to 256 bytes
  return 1u << std::min(std::countr_zero(reinterpret_cast<std::uintptr_t>(at)), 8);
}

}  // namespace

struct Blas {
  explicit Blas(cudaStream_t stream) : stream_(stream) {
    must_multiply(library().create(&handle_), "its handle");
    must(cudaMalloc(&workspace_, kWorkspace), "a workspace for matmuls");
  }
  ~Blas() {
    cudaFree(workspace_);
    library().destroy(handle_);
  }
  Blas(const Blas&) = delete;

  bool multiply(const Product& p) {
    const Way& way = way_of(p);
    if (!way.known) return false;
    const float one = 1.0f, kept = p.keep ? 1.0f : 0.0f;
    must_multiply(
        library().matmul(handle_, way.operation, &one, p.first, way.first, p.second, way.second, &kept, p.out,
                         way.out, p.out, way.out, &way.algorithm, workspace_, kWorkspace, stream_),
        "a matmul");
    return true;
  }

 private:
  // How to multiply matrices of these shapes at addresses of such alignment: asked for once, on the host
  // alone.
  struct Way {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t first = nullptr, second = nullptr, out = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
    bool known = false;
  };
  using Key = std::tuple<i64, i64, i64, i64, i64, i64, int, std::uint32_t, std::uint32_t, std::uint32_t>;

  const Way& way_of(const Product& p) {
    const int kinds =
        p.transpose_first | p.transpose_second << 1 | p.keep << 2 | p.half << 3 | p.to_half << 4;
    const Key key{p.m,
                  p.n,
                  p.k,
                  p.ld_first,
                  p.ld_second,
                  p.ld_out,
                  kinds,
                  alignment(p.first),
                  alignment(p.second),
                  alignment(p.out)};
    const auto [at, is_new] = ways_.try_emplace(key);
    if (is_new) find(p, at->second);
    return at->second;
  }

  void find(const Product& p, Way& way) {
    const Library& l = library();
    const cudaDataType operands = p.half ? CUDA_R_16BF : CUDA_R_32F,
                       result = p.to_half ? CUDA_R_16BF : CUDA_R_32F;
    const auto layout = [&](cublasLtMatrixLayout_t& of, cudaDataType type, bool transposed, i64 rows,
                            i64 columns, i64 ld) {
      must_multiply(l.layout_create(&of, type, static_cast<std::uint64_t>(transposed ? columns : rows),
                                    static_cast<std::uint64_t>(transposed ? rows : columns), ld),
                    "a layout");
    };
    must_multiply(l.desc_create(&way.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation");
    const auto transpose = [&](cublasLtMatmulDescAttributes_t which, bool yes) {
      const cublasOperation_t operation = yes ? CUBLAS_OP_T : CUBLAS_OP_N;
      must_multiply(l.desc_set(way.operation, which, &operation, sizeof operation), "an operation");
    };
    transpose(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_first),
        transpose(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_second);
    layout(way.first, operands, p.transpose_first, p.m, p.k, p.ld_first);
    layout(way.second, operands, p.transpose_second, p.k, p.n, p.ld_second);
    layout(way.out, result, false, p.m, p.n, p.ld_out);

    cublasLtMatmulPreference_t wish = nullptr;
    must_multiply(l.preference_create(&wish), "a preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
      must_multiply(l.preference_set(wish, which, &value, sizeof value), "a preference");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.first));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.second));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.out));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.out));
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const cublasStatus_t status =
        l.heuristic(handle_, way.operation, way.first, way.second, way.out, way.out, wish, 1, &best, &found);
    l.preference_destroy(wish);
    if (status != CUBLAS_STATUS_SUCCESS || found < 1) return;  // the exact kernel does it
    way.algorithm = best.algo;
    way.known = true;
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  const cudaStream_t stream_;
  std::map<Key, Way> ways_;  // descriptors are kept until the program ends
};

namespace {

Ops<float> exact;  // what is left to the other kernels

Blas& blas_of(Lanes& lanes) { return *static_cast<Queue&>(lanes).blas; }

template <class Y, class X>
void fast_matmul(Lanes& lanes, Y* y, const X* x, const X* w, i64 M, i64 N, i64 K, i64 leaves) {
  if (!multiply_matmul(blas_of(lanes), y, x, w, M, N, K)) exact.matmul(lanes, y, x, w, M, N, K, leaves);
}
template <class Y, class X>
void fast_matmul_dx(Lanes& lanes, Y* dx, const X* dy0, i64 ld0, const X* w0, i64 N0, const X* dy1, i64 ld1,
                    const X* w1, i64 N1, const X* dy2, i64 ld2, const X* w2, i64 N2, i64 M, i64 K,
                    i64 leaves) {
  const GradientPiece<X> pieces[3] = {{dy0, ld0, w0, N0}, {dy1, ld1, w1, N1}, {dy2, ld2, w2, N2}};
  if (!multiply_matmul_dx(blas_of(lanes), dx, pieces, M, K))
    exact.matmul_dx(lanes, dx, dy0, ld0, w0, N0, dy1, ld1, w1, N1, dy2, ld2, w2, N2, M, K, leaves);
}
template <class X>
void fast_matmul_dw(Lanes& lanes, float* dw, const X* dy, const X* x, i64 T, i64 N, i64 K, bool add) {
  if (!multiply_matmul_dw(blas_of(lanes), dw, dy, x, T, N, K, add))
    exact.matmul_dw(lanes, dw, dy, x, T, N, K, add);
}

}  // namespace

void fill_fast_matmul(Ops<float>& ops, Queue& queue) {
  if (!library().found) {
    static const int said = std::fputs(
        "device cuda: no libcublasLt.so.13 or .12 was found, so fast mode multiplies by the slower exact "
        "kernels\n",
        stderr);
    return void(said);
  }
  static const bool first = (exact = ops, true);
  static_cast<void>(first);
  queue.blas = std::make_shared<Blas>(queue.stream);
  ops.matmul.call = fast_matmul<float, float>;
  plain::set_mixed<fast_matmul<bf16, bf16>, fast_matmul<float, bf16>>(ops.matmul);
  ops.matmul_dx.call = fast_matmul_dx<float, float>;
  plain::set_mixed<fast_matmul_dx<bf16, bf16>, fast_matmul_dx<float, bf16>>(ops.matmul_dx);
  ops.matmul_dw.call = fast_matmul_dw<float>;
  plain::set_mixed<fast_matmul_dw<bf16>>(ops.matmul_dw);
}

}  // namespace lockstep::cuda
