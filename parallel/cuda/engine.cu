// A rank's share of an NVIDIA GPU: memory by cudaMalloc, pinned host memory, one stream for kernels and one
// for copies, joined by events. Built into a shared object of its own, which the program opens.
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/fill.hpp"
#include "kernels/cuda/launch.cuh"
#include "parallel/device/engine.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

using cuda::must;

class CudaEngine final : public Engine {
 public:
  CudaEngine(int device, const Ops<float>& host, bool fast) : device_(device), ops_(host) {
    must(cudaSetDevice(device), "the device");  // of this thread, the rank's
    queue_ = std::make_unique<cuda::Queue>();
    cuda::fill_exact(ops_);
    if (fast) cuda::fill_fast(ops_, *queue_);
    must(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "a stream");
    for (cudaEvent_t* e : {&before_.front(), &done_.front()})
      for (int i = 0; i < kCopies; ++i)
        must(cudaEventCreateWithFlags(e + i, cudaEventDisableTiming), "an event");
  }
  ~CudaEngine() override {
    cudaDeviceSynchronize();  // whatever failed, nothing is at work in memory that goes
    for (const cudaGraphExec_t g : graphs_)
      if (g) cudaGraphExecDestroy(g);
    for (const Block& b : blocks_) b.pinned ? cudaFreeHost(b.at) : cudaFree(b.at);
    for (int i = 0; i < kCopies; ++i) cudaEventDestroy(before_[i]), cudaEventDestroy(done_[i]);
    cudaStreamDestroy(copies_);
  }

  const Ops<float>& ops() const override { return ops_; }
  Lanes& lanes() override { return *queue_; }
  bool repeats() const override { return queue_->repeats; }

  void* allocate(Medium medium, i64 bytes) override {
    void* at = nullptr;
    const auto size = static_cast<std::size_t>(bytes);
    const bool pinned = medium == Medium::host;
    const cudaError_t status =
        pinned ? cudaHostAlloc(&at, size, cudaHostAllocPortable) : cudaMalloc(&at, size);
    if (status == cudaErrorMemoryAllocation)
      throw OutOfMemory("no memory for " + std::to_string(bytes) +
                        (pinned ? " bytes of pinned host memory" : " bytes of the GPU's"));
    must(status, "memory");
    blocks_.push_back({at, bytes, pinned});
    return at;
  }
  bool holds(const void* at) const override {
    const auto place = reinterpret_cast<std::uintptr_t>(at);
    return std::any_of(blocks_.begin(), blocks_.end(), [&](const Block& b) {
      const auto begin = reinterpret_cast<std::uintptr_t>(b.at);
      return !b.pinned && begin <= place && place < begin + static_cast<std::uintptr_t>(b.bytes);
    });
  }

  void upload(void* to, const void* from, i64 bytes) override {
    move(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void download(void* to, const void* from, i64 bytes) override {
    move(to, from, bytes, cudaMemcpyDeviceToHost);
  }

  void begin_copy(int slot, void* to, const void* from, i64 bytes) override {
    must(cudaEventRecord(before_[slot], queue_->stream), "a copy");
    must(cudaStreamWaitEvent(copies_, before_[slot], 0), "a copy");
    must(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, copies_), "a copy");
    must(cudaEventRecord(done_[slot], copies_), "a copy");
  }
  void end_copy(int slot) override { must(cudaEventSynchronize(done_[slot]), "a copy"); }

  // What other threads' ranks do meanwhile does not disturb it.
  void begin_graph() override {
    must(cudaStreamBeginCapture(queue_->stream, cudaStreamCaptureModeThreadLocal), "a graph");
  }
  void end_graph() override {
    cudaGraph_t kept = nullptr;
    must(cudaStreamEndCapture(queue_->stream, &kept), "a graph");
    const cudaError_t status = cudaGraphInstantiate(&graphs_.emplace_back(), kept, 0);
    cudaGraphDestroy(kept);
    must(status, "a graph");
  }
  void run_graph(int graph) override {
    must(cudaGraphLaunch(graphs_.at(static_cast<std::size_t>(graph)), queue_->stream), "a graph");
  }

  void enter(const char* name) override { nvtxRangePushA(name); }
  void leave() override { nvtxRangePop(); }

 private:
  struct Block {
    void* at;
    i64 bytes;
    bool pinned;
  };
  void move(void* to, const void* from, i64 bytes, cudaMemcpyKind kind) {
    must(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, queue_->stream), "a copy");
    must(cudaStreamSynchronize(queue_->stream), "a kernel or copy");
  }

  const int device_;
  Ops<float> ops_;
  std::unique_ptr<cuda::Queue> queue_;
  cudaStream_t copies_ = nullptr;
  std::array<cudaEvent_t, kCopies> before_{}, done_{};
  std::vector<Block> blocks_;
  std::vector<cudaGraphExec_t> graphs_;
};

class Cuda final : public Accelerator {
 public:
  explicit Cuda(int devices) : devices_(devices) {}
  std::string name() const override {
    cudaDeviceProp properties;
    must(cudaGetDeviceProperties(&properties, 0), "the device's properties");
    return properties.name;
  }
  int devices() const override { return devices_; }
  i64 free_bytes() const override {
    std::size_t free = 0, all = 0;
    must(cudaSetDevice(0), "the device");
    must(cudaMemGetInfo(&free, &all), "the device's memory");
    return static_cast<i64>(free);
  }
  std::unique_ptr<Engine> engine(int rank, const Ops<float>& host, bool fast) override {
    return std::make_unique<CudaEngine>(rank % devices_, host, fast);
  }

 private:
  const int devices_;
};

}  // namespace

extern "C" Accelerator* lockstep_cuda(std::string& complaint) {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) {
    static Cuda cuda(devices);
    return &cuda;
  }
  complaint = status == cudaSuccess                   ? "there is no NVIDIA GPU"
              : status == cudaErrorInsufficientDriver ? "there is no NVIDIA driver, or one too old"
                                                      : cudaGetErrorString(status);
  return nullptr;
}

}  // namespace lockstep
