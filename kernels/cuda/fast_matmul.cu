// Fast mode's matmuls, by NVIDIA's cuBLASLt (its documentation, section "Using the cuBLASLt API"): float32
// without TF32, and bf16 summed in float32. Llama has no bias and SwiGLU reads two products: no epilogue of
// the library's saves a pass, so none is used. Of the algorithms that it names for a product the first is
// taken; with LOCKSTEP_MATMUL=timed the one that is the fastest here, found in the run's first calls
// (choose.hpp).
#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "kernels/cuda/choose.hpp"
#include "kernels/cuda/cublaslt.hpp"
#include "kernels/cuda/fast_matmul.hpp"
#include "kernels/cuda/fill.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/plain/mixed.hpp"

namespace lockstep::cuda {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64}
                                   << 20;  // what Hopper's split-k and stream-k algorithms ask for

std::uint32_t alignment(const void* at) {  // of an address, up to 256 bytes
  return 1u << std::min(std::countr_zero(reinterpret_cast<std::uintptr_t>(at)), 8);
}

using Key = std::tuple<i64, i64, i64, i64, i64, i64, int, std::uint32_t, std::uint32_t, std::uint32_t>;

// What ranks of this process have found to be fastest, by device. Later engines, such as the one that times
// kernels alone, have too few calls to find it.
class Found {
 public:
  bool get(int device, const Key& key, cublasLtMatmulAlgo_t& algorithm) {
    const std::lock_guard lock(mutex_);
    const auto at = all_.find({device, key});
    if (at == all_.end()) return false;
    algorithm = at->second;
    return true;
  }
  void put(int device, const Key& key, const cublasLtMatmulAlgo_t& algorithm) {
    const std::lock_guard lock(mutex_);
    all_.try_emplace({device, key}, algorithm);
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<int, Key>, cublasLtMatmulAlgo_t> all_;
};
Found found_fastest;

}  // namespace

struct Blas {
  Blas(cudaStream_t stream, bool timed) : stream_(stream), asked_(timed ? Choice::kMost : 1) {
    must(cudaGetDevice(&device_), "the device");
    must_multiply(library().create(&handle_), "its handle");
    must(cudaMalloc(&workspace_, kWorkspace), "a workspace for matmuls");
  }
  ~Blas() {
    for (const auto& [key, way] : ways_)
      for (const Watch& w : way.watches)
        if (w.end) cudaEventDestroy(w.begin), cudaEventDestroy(w.end);
    cudaFree(workspace_);
    library().destroy(handle_);
  }
  Blas(const Blas&) = delete;

  bool multiply(const Product& p) {
    auto& [key, way] = way_of(p);
    if (!way.known) return false;
    // What a graph keeps does not run yet, and meanwhile no event may be asked: it gets what is best so far.
    const bool timed = !way.choice.settled() && !captured();
    if (timed && look_at(way)) found_fastest.put(device_, key, way.algorithms[way.choice.best()]);
    const float one = 1.0f, kept = p.keep ? 1.0f : 0.0f;
    for (;;) {
      const Choice::Turn turn = timed ? way.choice.next() : Choice::Turn{way.choice.best(), -1};
      const Watch* const watch = turn.attempt < 0 ? nullptr : &way.watches[turn.attempt];
      if (watch) must(cudaEventRecord(watch->begin, stream_), "a matmul's time");
      const cublasStatus_t status = library().matmul(
          handle_, way.operation, &one, p.first, way.first, p.second, way.second, &kept, p.out, way.out,
          p.out, way.out, &way.algorithms[turn.way], workspace_, kWorkspace, stream_);
      // Refused before anything has run: another one does it.
      if (status == CUBLAS_STATUS_NOT_SUPPORTED && way.choice.drop(turn.way)) continue;
      must_multiply(status, "a matmul");
      if (watch) must(cudaEventRecord(watch->end, stream_), "a matmul's time");
      return true;
    }
  }

 private:
  struct Watch {
    cudaEvent_t begin = nullptr, end = nullptr;
  };
  // How to multiply matrices of these shapes at addresses of such alignment: asked for once, on the host
  // alone.
  struct Way {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t first = nullptr, second = nullptr, out = nullptr;
    std::array<cublasLtMatmulAlgo_t, Choice::kMost> algorithms{};  // in the library's order
    Choice choice;
    std::array<Watch, Choice::kMost * Choice::kRounds> watches{};  // of each attempt of the choice
    bool known = false;
  };
  std::pair<const Key, Way>& way_of(const Product& p) {
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
    if (is_new) find(p, key, at->second);
    return *at;
  }

  void find(const Product& p, const Key& key, Way& way) {
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

    if (asked_ > 1 && (way.known = found_fastest.get(device_, key, way.algorithms[0]))) return;

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
    std::array<cublasLtMatmulHeuristicResult_t, Choice::kMost> results{};
    int found = 0;
    const cublasStatus_t status = l.heuristic(handle_, way.operation, way.first, way.second, way.out, way.out,
                                              wish, asked_, results.data(), &found);
    l.preference_destroy(wish);
    int good = 0;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; ++i)
      if (results[i].state == CUBLAS_STATUS_SUCCESS) way.algorithms[good++] = results[i].algo;
    if (good < 1) return;  // the exact kernel does it
    way.choice = Choice(good);
    way.known = true;
  }

  bool captured() const {
    cudaStreamCaptureStatus status;
    must(cudaStreamIsCapturing(stream_, &status), "a stream");
    return status != cudaStreamCaptureStatusNone;
  }

  // Takes the times of attempts that have run by now; nothing is waited for. True: they were the last. The
  // first time, makes all events.
  static bool look_at(Way& way) {
    if (!way.watches[0].end)
      for (int i = 0; i < way.choice.attempts(); ++i)
        for (cudaEvent_t* e : {&way.watches[i].begin, &way.watches[i].end})
          must(cudaEventCreate(e), "an event");
    for (int attempt; (attempt = way.choice.awaited()) >= 0;) {
      const Watch& watch = way.watches[attempt];
      const cudaError_t status = cudaEventQuery(watch.end);
      // Forgotten, or the next launch takes it for its own.
      if (status == cudaErrorNotReady) return cudaGetLastError(), false;
      must(status, "a matmul's time");
      float milliseconds = 0;
      must(cudaEventElapsedTime(&milliseconds, watch.begin, watch.end), "a matmul's time");
      way.choice.took(milliseconds);
    }
    return way.choice.settled();
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  const cudaStream_t stream_;
  int device_ = 0;
  const int asked_;          // algorithms of a product
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
  const bool timed = timing_wished(std::getenv("LOCKSTEP_MATMUL"));
  if (!library().found) {
    static const int said = std::fputs(
        "device cuda: no libcublasLt.so.13 or .12 was found, so fast mode multiplies by the slower exact "
        "kernels\n",
        stderr);
    return void(said);
  }
  static const bool first = (exact = ops, true);
  static_cast<void>(first);
  queue.blas = std::make_shared<Blas>(queue.stream, timed);
  queue.repeats = !timed;
  ops.matmul.call = fast_matmul<float, float>;
  plain::set_mixed<fast_matmul<bf16, bf16>, fast_matmul<float, bf16>>(ops.matmul);
  ops.matmul_dx.call = fast_matmul_dx<float, float>;
  plain::set_mixed<fast_matmul_dx<bf16, bf16>, fast_matmul_dx<float, bf16>>(ops.matmul_dx);
  ops.matmul_dw.call = fast_matmul_dw<float>;
  plain::set_mixed<fast_matmul_dw<bf16>>(ops.matmul_dw);
}

}  // namespace lockstep::cuda
