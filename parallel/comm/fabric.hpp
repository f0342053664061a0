// What the nccl communicator asks of NCCL and CUDA, and no more: queues of work of one rank's GPU. The one
// behind lockstep_nccl.so is the real one (parallel/nccl/fabric.cu); tests bring one that needs no GPU.
#pragma once
#include <array>
#include <memory>
#include <string>

#include "parallel/comm/comm.hpp"

namespace lockstep {

class Engine;

// Work goes into channels. A channel is a queue of its own: what is put in is done in that order, beside the
// other channels and beside the computation, and a call returns before it is done. What moves data between
// members is done when all members that take part have it at the head of their queues, so members must put
// the same in the same order. Channel kCompute is the queue of the rank's kernels, and has no members.
// Sizes are in bytes but for n, in elements. Errors: std::runtime_error in the library's words.
class Fabric {
 public:
  using Id = std::array<char, 128>;  // an ncclUniqueId
  using Event = int;                 // a mark in a queue, which others can wait for
  static constexpr int kCompute = 0;

  // Whatever is still under way ends, done or not, so that nothing waits for a member that is gone.
  virtual ~Fabric() = default;

  // ---- Before the first step; nothing below this part allocates, or waits for another rank.
  virtual Id new_id() = 0;
  // A channel of `size` members, each of which calls this; returns when all are connected. The most that
  // will ever be open at once: channels(), called before the first open().
  virtual void channels(int most) = 0;
  virtual int open(const Id&, int size, int me) = 0;
  virtual Event new_event() = 0;
  virtual void* allocate(i64 bytes) = 0;  // memory of the device, given back with the fabric

  // ---- Put into a channel.
  virtual void record(int channel, Event) = 0;
  virtual void wait(int channel, Event) = 0;  // goes on when the last recorded mark of it is passed
  // Sends and receives between begin() and end() progress together, whatever their order.
  virtual void begin() = 0;
  virtual void send(int channel, int to, const void* from, i64 bytes) = 0;
  virtual void recv(int channel, int from, void* to, i64 bytes) = 0;
  virtual void end() = 0;
  virtual void all_gather(int channel, const void* in, void* out, i64 bytes_of_each) = 0;
  virtual void broadcast(int channel, int root, const void* in, void* out, i64 bytes) = 0;
  // The library's own reductions: sums in any order, and a maximum with NaN may be anything.
  virtual void all_reduce(int channel, Type, Reduce, const void* in, void* out, i64 n) = 0;
  virtual void reduce_scatter(int channel, Type, Reduce, const void* in, void* out, i64 n_of_each) = 0;
  // `rows` pieces of `bytes`, each a stride behind the one before.
  virtual void copy(int channel, void* to, i64 to_stride, const void* from, i64 from_stride, i64 bytes,
                    i64 rows) = 0;
  // combine_tree (tree.hpp) of parts in device memory. `out` may be one of them.
  virtual void combine(int channel, Type, Reduce, const void* const* parts, int count, i64 n, void* out) = 0;

  // ---- Asked by any thread.
  virtual bool passed(Event) = 0;   // is the last recorded mark of it passed?
  virtual std::string error() = 0;  // what went wrong beside the queues; empty: nothing

  // Every member has done all it put in: gives the channels back in order. Without it they are aborted.
  virtual void close() = 0;
};

class Fabrics {
 public:
  virtual ~Fabrics() = default;
  virtual std::string name() const = 0;  // "NCCL 2.28.9"
  // Of one rank and the memory and queue of its engine, which must outlive it. ranks_here: how many of the
  // job's ranks this machine has. UserError: it has fewer GPUs.
  virtual std::unique_ptr<Fabric> fabric(Engine*, int ranks_here) = 0;
};

// NCCL, the same each time; to be asked for before any GPU is used. UserError: it was not built, or NCCL is
// not here.
Fabrics& nccl();

}  // namespace lockstep
