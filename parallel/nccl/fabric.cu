// The fabric of parallel/comm/fabric.hpp on NVIDIA GPUs: a channel is a CUDA stream and an NCCL communicator.
// Built into lockstep_nccl.so, which the program opens; NCCL is linked to nothing else.
//
// Sources: NCCL User Guide (API: "Communicator Creation and Management", "Point To Point", "Collective",
// "Group Calls"; Environment Variables), CUDA Runtime API (streams, events).
#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ordered.hpp"
#include "parallel/comm/fabric.hpp"
#include "parallel/device/engine.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

static_assert(sizeof(ncclUniqueId) == sizeof(Fabric::Id));

using cuda::must;

void must(ncclResult_t status, const char* what) {
  if (status != ncclSuccess)
    throw std::runtime_error(std::string("NCCL: ") + what + ": " + ncclGetErrorString(status));
}

ncclDataType_t type_of(Type type) {
  switch (type) {
    case Type::f32:
      return ncclFloat32;
    case Type::f64:
      return ncclFloat64;
    case Type::i64:
      return ncclInt64;
    case Type::i32:
      return ncclInt32;
    case Type::bf16:
      return ncclBfloat16;
  }
  throw std::logic_error("no type of NCCL's");
}

static_assert(cuda::kMostParts >= kMaxRanks);

template <class T>
void combine_as(Lanes& lanes, Reduce reduce, const void* const* parts, int count, i64 n, void* out) {
  if (reduce == Reduce::sum) return cuda::ordered<cuda::Gpu, T, cuda::Sum>(lanes, parts, count, n, out);
  if (reduce == Reduce::max) return cuda::ordered<cuda::Gpu, T, cuda::Max>(lanes, parts, count, n, out);
  throw std::logic_error("a reduction must be a sum or a max");
}

class NcclFabric final : public Fabric {
 public:
  // The queue of the engine's kernels becomes kCompute.
  NcclFabric(Engine& engine) : compute_(static_cast<cuda::Queue&>(engine.lanes())) {
    must(cudaGetDevice(&device_), "the device");  // of this thread: its engine has set it
    channels_.push_back({nullptr, nullptr});
  }

  ~NcclFabric() override {
    for (Channel& c : channels_)
      if (c.comm) ncclCommAbort(c.comm);  // its kernels end, whatever they wait for
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
    for (void* p : memory_) cudaFree(p);
  }

  Id new_id() override {
    ncclUniqueId theirs;
    must(ncclGetUniqueId(&theirs), "an id");
    Id id;
    std::memcpy(id.data(), &theirs, sizeof theirs);
    return id;
  }

  // NCCL's kernels wait for their peers on the GPU. Those of all channels have to find room at once, or one
  // that waits could keep out the one that it waits for: together they get half of the GPU at most.
  void channels(int most) override {
    int units = 0;
    must(cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device_), "the device");
    blocks_ = std::clamp(units / 2 / std::max(most, 1), 1, 32);
  }

  int open(const Id& id, int size, int me) override {
    ncclUniqueId theirs;
    std::memcpy(&theirs, id.data(), sizeof theirs);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.minCTAs = 1;
    config.maxCTAs = blocks_;
    Channel c{nullptr, std::make_unique<cuda::Queue>()};
    must(ncclCommInitRankConfig(&c.comm, size, theirs, me, &config), "a communicator");
    {
      const std::lock_guard lock(mutex_);  // the watch is not there yet; it will look at these
      channels_.push_back(std::move(c));
    }
    const int number = static_cast<int>(channels_.size()) - 1;
    warm_up(number, size, me);
    return number;
  }

  Event new_event() override {
    events_.push_back(nullptr);
    must(cudaEventCreateWithFlags(&events_.back(), cudaEventDisableTiming), "an event");
    return static_cast<Event>(events_.size()) - 1;
  }

  void* allocate(i64 bytes) override {
    void* at = nullptr;
    const cudaError_t status = cudaMalloc(&at, static_cast<std::size_t>(std::max<i64>(bytes, 1)));
    if (status == cudaErrorMemoryAllocation) throw std::bad_alloc();
    must(status, "memory");
    memory_.push_back(at);
    return at;
  }

  void record(int channel, Event e) override {
    must(cudaEventRecord(events_[e], stream(channel)), "an event");
  }
  void wait(int channel, Event e) override {
    must(cudaStreamWaitEvent(stream(channel), events_[e], 0), "an event");
  }

  void begin() override { must(ncclGroupStart(), "a group"); }
  void send(int channel, int to, const void* from, i64 bytes) override {
    must(ncclSend(from, static_cast<std::size_t>(bytes), ncclInt8, to, comm(channel), stream(channel)),
         "send");
  }
  void recv(int channel, int from, void* to, i64 bytes) override {
    must(ncclRecv(to, static_cast<std::size_t>(bytes), ncclInt8, from, comm(channel), stream(channel)),
         "recv");
  }
  void end() override { must(ncclGroupEnd(), "a group"); }

  void all_gather(int channel, const void* in, void* out, i64 bytes) override {
    must(ncclAllGather(in, out, static_cast<std::size_t>(bytes), ncclInt8, comm(channel), stream(channel)),
         "all_gather");
  }
  void broadcast(int channel, int root, const void* in, void* out, i64 bytes) override {
    must(ncclBroadcast(in, out, static_cast<std::size_t>(bytes), ncclInt8, root, comm(channel),
                       stream(channel)),
         "broadcast");
  }
  void all_reduce(int channel, Type type, Reduce reduce, const void* in, void* out, i64 n) override {
    must(ncclAllReduce(in, out, static_cast<std::size_t>(n), type_of(type), op(reduce), comm(channel),
                       stream(channel)),
         "all_reduce");
  }
  void reduce_scatter(int channel, Type type, Reduce reduce, const void* in, void* out, i64 n) override {
    must(ncclReduceScatter(in, out, static_cast<std::size_t>(n), type_of(type), op(reduce), comm(channel),
                           stream(channel)),
         "reduce_scatter");
  }

  void copy(int channel, void* to, i64 to_stride, const void* from, i64 from_stride, i64 bytes,
            i64 rows) override {
    const auto size = [](i64 n) { return static_cast<std::size_t>(n); };
    if (rows == 1)
      must(cudaMemcpyAsync(to, from, size(bytes), cudaMemcpyDefault, stream(channel)), "a copy");
    else
      must(cudaMemcpy2DAsync(to, size(to_stride), from, size(from_stride), size(bytes), size(rows),
                             cudaMemcpyDefault, stream(channel)),
           "a copy");
  }

  void combine(int channel, Type type, Reduce reduce, const void* const* parts, int count, i64 n,
               void* out) override {
    Lanes& lanes = queue(channel);
    switch (type) {
      case Type::f32:
        return combine_as<float>(lanes, reduce, parts, count, n, out);
      case Type::f64:
        return combine_as<double>(lanes, reduce, parts, count, n, out);
      case Type::i64:
        return combine_as<i64>(lanes, reduce, parts, count, n, out);
      case Type::i32:
        return combine_as<i32>(lanes, reduce, parts, count, n, out);
      case Type::bf16:
        throw std::logic_error("sums of bf16 messages are computed in fast mode only");
    }
  }

  bool passed(Event e) override {
    must(cudaSetDevice(device_), "the device");  // of the asking thread
    const cudaError_t status = cudaEventQuery(events_[e]);
    if (status == cudaErrorNotReady) return false;
    must(status, "work on the device");
    return true;
  }

  std::string error() override {
    const std::lock_guard lock(mutex_);
    for (const Channel& c : channels_) {
      if (!c.comm) continue;
      ncclResult_t found = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(c.comm, &found);
      if (asked != ncclSuccess) found = asked;
      if (found != ncclSuccess && found != ncclInProgress)
        return std::string(ncclGetErrorString(found)) + "; " + ncclGetLastError(c.comm);
    }
    return {};
  }

  // First all work, then the communicators, in the order in which all members opened them.
  void close() override {
    for (std::size_t i = 0; i < channels_.size(); ++i)
      must(cudaStreamSynchronize(stream(static_cast<int>(i))), "work on the device");
    for (Channel& c : channels_) {
      if (!c.comm) continue;
      must(ncclCommFinalize(c.comm), "the end");
      const std::lock_guard lock(mutex_);
      const ncclComm_t done = std::exchange(c.comm, nullptr);
      must(ncclCommDestroy(done), "the end");
    }
  }

 private:
  struct Channel {
    ncclComm_t comm;
    std::unique_ptr<cuda::Queue> queue;  // null: the engine's
  };
  cuda::Queue& queue(int channel) { return channels_[channel].queue ? *channels_[channel].queue : compute_; }
  cudaStream_t stream(int channel) { return queue(channel).stream; }
  ncclComm_t comm(int channel) const { return channels_[channel].comm; }
  static ncclRedOp_t op(Reduce reduce) {
    if (reduce == Reduce::sum) return ncclSum;
    if (reduce == Reduce::max) return ncclMax;
    throw std::logic_error("a reduction must be a sum or a max");
  }

  // NCCL connects two ranks at their first message, and the call waits on the host for both. In a step that
  // would break the promise that a start never waits; so everybody sends to everybody once, here.
  void warm_up(int channel, int size, int me) {
    constexpr i64 kBytes = 16;
    char* scratch = static_cast<char*>(allocate(kBytes * (2 * size + 1)));
    must(cudaMemsetAsync(scratch, 0, static_cast<std::size_t>(kBytes * (2 * size + 1)), stream(channel)),
         "memory");
    begin();
    for (int i = 0; i < size; ++i) {
      if (i == me) continue;
      send(channel, i, scratch + i * kBytes, kBytes);
      recv(channel, i, scratch + (size + i) * kBytes, kBytes);
    }
    end();
    all_gather(channel, scratch + 2 * size * kBytes, scratch, kBytes);
    broadcast(channel, 0, scratch, scratch, kBytes);
    all_reduce(channel, Type::f32, Reduce::sum, scratch, scratch, 4);
    reduce_scatter(channel, Type::f32, Reduce::sum, scratch, scratch + 2 * size * kBytes, 4);
    must(cudaStreamSynchronize(stream(channel)), "NCCL's first messages");
  }

  int device_ = 0, blocks_ = 1;
  cuda::Queue& compute_;
  std::mutex mutex_;  // of the channels' communicators, against the watch
  std::deque<Channel> channels_;
  std::vector<cudaEvent_t> events_;
  std::vector<void*> memory_;
};

class Nccl final : public Fabrics {
 public:
  std::string name() const override {
    int v = 0;
    ncclGetVersion(&v);
    return "NCCL " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." +
           std::to_string(v % 100);
  }
  std::unique_ptr<Fabric> fabric(Engine* engine, int ranks_here) override {
    int devices = 0;
    must(cudaGetDeviceCount(&devices), "the devices");
    if (ranks_here > devices)
      throw UserError("--comm nccl needs a GPU for each rank, but this machine has " +
                      std::to_string(devices) + " for " + std::to_string(ranks_here) +
                      " ranks; --comm mpi lets ranks share a GPU");
    if (!engine) throw std::logic_error("NCCL without an engine");
    return std::make_unique<NcclFabric>(*engine);
  }
};

}  // namespace

// Called before any GPU is used. setenv: what the user says is left as it is.
extern "C" Fabrics* lockstep_nccl() {
  // A stream shares a queue of the hardware's with others when there are more streams than queues, 8 unless
  // told, and then one that waits for a peer keeps back the rest.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  // The first call of a kernel may load it, and that may wait for kernels that wait for peers (CUDA C++
  // Programming Guide, "Lazy Loading", concurrent execution): load all at once.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  // Connect a communicator when it is made, not at its first collective (see warm_up).
  setenv("NCCL_RUNTIME_CONNECT", "0", 0);
  static Nccl nccl;
  return &nccl;
}

}  // namespace lockstep
