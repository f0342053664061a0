// What a rank has of an accelerator: its memory, its kernels, its copies. Nothing here names a maker's
// library: what does is a shared object of its own beside the program, opened when asked for, so that the
// program also runs where there is no such device.
#pragma once
#include <memory>
#include <string>

#include "kernels/ops.hpp"
#include "parallel/device/memory.hpp"

namespace lockstep {

// Of one rank, used by its thread. Kernels go into one queue in the order of their calls and a call returns
// before they have run; all else here comes after the kernels called before it. std::runtime_error: the
// device failed, in the driver's words.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const Ops<float>& ops() const = 0;  // on_host: for operands in host memory
  virtual Lanes& lanes() = 0;                 // what those kernels are called with
  // Whether a call gives the bits that the same call gives on another rank's engine.
  virtual bool repeats() const { return true; }
  // Device memory, or host memory that the device copies from at full speed; given back with the engine.
  virtual void* allocate(Medium, i64 bytes) = 0;  // std::bad_alloc
  virtual bool holds(const void*) const = 0;      // an address of the device's memory?
  // Copies to and from the device's memory, done when they return.
  virtual void upload(void* to, const void* from, i64 bytes) = 0;
  virtual void download(void* to, const void* from, i64 bytes) = 0;
  // A copy between allocated memories, beside later kernels. Of a slot below kCopies one at a time;
  // end_copy() returns when it is done.
  static constexpr int kCopies = 128;
  virtual void begin_copy(int slot, void* to, const void* from, i64 bytes) = 0;
  virtual void end_copy(int slot) = 0;
  // Kernels called between the first two do not run, but are kept as a graph: the first is 0, the next 1.
  // run_graph() runs them. Nothing but kernels may be called between the two, each once called before.
  virtual void begin_graph() = 0;
  virtual void end_graph() = 0;
  virtual void run_graph(int graph) = 0;
  // Names for a profiler's timeline, copied: ranges of the rank's thread, one within another.
  virtual void enter(const char* /*name*/) {}
  virtual void leave() {}
};

class NamedRange {
 public:
  NamedRange(Engine* engine, const char* name) : engine_(engine) {
    if (engine_) engine_->enter(name);
  }
  ~NamedRange() {
    if (engine_) engine_->leave();
  }
  NamedRange(const NamedRange&) = delete;
  void operator=(const NamedRange&) = delete;

 private:
  Engine* const engine_;
};

class Accelerator {
 public:
  virtual ~Accelerator() = default;
  virtual std::string name() const = 0;  // "NVIDIA H200"
  virtual int devices() const = 0;       // of this machine
  virtual i64 free_bytes() const = 0;    // of the first one's memory, that nobody has taken
  // host: the kernels of host memory. Ranks above the number of devices share them in turn.
  virtual std::unique_ptr<Engine> engine(int rank, const Ops<float>& host, bool fast) = 0;
};

// The accelerator that --device names; the same each time. Not to be asked for in a process that forks later:
// a driver does not outlive that. UserError: there is none of that name, it was not built, or none is here.
Accelerator& accelerator(const std::string& device);

// What accelerator() would complain of, found out in a process aside; empty: nothing, or device is "cpu".
std::string why_no_device(const std::string& device);

}  // namespace lockstep
