// Buffers of one rank. A step takes and gives them back in the same order every time, so where each one
// lies is decided once, from the trace, and a step allocates nothing.
#pragma once
#include <array>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/comm/comm.hpp"
#include "parallel/device/fingerprint.hpp"

namespace lockstep {

// What a buffer is for; prices and records speak of peak bytes by kind.
enum class Kind {
  weights,      // what a rank keeps of them
  gathered,     // units made whole for a while
  gradients,    // accumulated, all slots of the tree
  reducing,     // a microbatch's gradients of the units on their way to their shards
  optimizer,    // first and second moments
  host,         // beside the device: offloaded state and what is being copied
  disk,         // below both: offloaded state in a file
  activations,  // what the stash keeps until backward
  messages,     // posted receives and unfinished sends of the pipeline
  waiting,      // operands of weight gradients that are computed in a later pass
  buffers,      // temporaries inside a layer or the head
  inputs,       // tokens, labels, rotary tables, per-sample losses
  count
};
const char* kind_name(Kind);

// What a kind's bytes lie in, each laid out by itself. Those on disk are not memory: an address is a position
// in the rank's file, no kernel or message may touch it, and copies alone move them (Device::start_copy).
enum class Medium { device, host, disk };
inline Medium medium_of(Kind kind) {
  return kind == Kind::disk ? Medium::disk : kind == Kind::host ? Medium::host : Medium::device;
}

// Where bytes come from.
class Placer {
 public:
  virtual ~Placer() = default;
  virtual void* take(i64 bytes) = 0;
  virtual void give(void* at, i64 bytes) = 0;
  virtual void begin_step() {}
};

struct Trace;

// Part of a buffer: what kernels and messages are given.
struct View {
  void* at = nullptr;
  int block = -1;  // which buffer, -1: none
  i64 first = 0;   // elements from the buffer's start
  Type type = Type::f32;
  Medium medium = Medium::device;
  View from(i64 elements) const;
  View as(Type) const;  // the same bytes
};

class Memory;

// A shared handle: the last copy gives the buffer back.
class Buf {
 public:
  Buf() = default;
  Buf(const Buf& o);
  Buf(Buf&& o) noexcept : memory_(std::exchange(o.memory_, nullptr)), block_(std::exchange(o.block_, -1)) {}
  Buf& operator=(Buf o) noexcept {
    std::swap(memory_, o.memory_);
    std::swap(block_, o.block_);
    return *this;
  }
  ~Buf() { free(); }
  void free();
  explicit operator bool() const { return memory_ != nullptr; }
  bool same(const Buf& o) const { return block_ == o.block_; }
  i64 elements() const;
  View view() const;
  operator View() const { return view(); }
  View from(i64 elements) const { return view().from(elements); }
  Kind kind() const;
  void relabel(Kind) const;  // e.g. a received message that becomes a kept activation

 private:
  friend class Memory;
  Buf(Memory* m, int b) : memory_(m), block_(b) {}
  Memory* memory_ = nullptr;
  int block_ = -1;
};

class Memory {
#ifdef LOCKSTEP_MUTANTS
  friend class MutantDevice;  // gives back too early
#endif
 public:
  Memory(Placer& device, Placer& host, Placer& disk, Trace* trace, Fingerprint& done)
      : placers_{&device, &host, &disk}, trace_(trace), done_(done) {
    blocks_.reserve(kBlocks), free_.reserve(kBlocks);
  }
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Buf take(const char* name, Kind kind, i64 elements, Type type = Type::f32);
  void begin_step() {
    for (Placer* p : placers_) p->begin_step();
    takes_before_ = takes_;
  }

 private:
  friend class Buf;
  struct Block {
    void* at;
    i64 elements;
    Type type;
    Kind kind;
    int owners;
    int serial;  // of the take, for the trace
  };
  static constexpr int kBlocks = 1 << 14;
  void release(int block);
  Placer& placer_of(Kind kind) { return *placers_[static_cast<int>(medium_of(kind))]; }
  std::array<Placer*, 3> placers_;  // by medium
  Trace* trace_;
  Fingerprint& done_;
  std::vector<Block> blocks_;
  std::vector<int> free_;
  int takes_ = 0, takes_before_ = 0;  // the latter: before the step
};

// Hands out addresses that nobody may touch: for tracing.
class NoPlacer final : public Placer {
 public:
  void* take(i64 bytes) override;
  void give(void*, i64) override {}

 private:
  std::size_t next_ = 64;
};

// One block of memory, laid out beforehand: the n-th take lies at offsets[n].
struct ArenaPlan {
  struct Place {
    i64 offset, bytes;
  };
  std::vector<Place> places;  // in order of takes: set-up first, then one step
  int setup = 0;              // how many takes set-up makes
  i64 bytes = 0;              // of the arena
  i64 live = 0;               // most bytes alive at one time
};

// Walks through a plan's places in the order of takes.
class Places {
 public:
  explicit Places(const ArenaPlan& plan) : plan_(plan) {}
  i64 next(i64 bytes);  // offset of the next take; an error if the trace took another number of bytes there
  void begin_step() { next_ = plan_.setup; }

 private:
  const ArenaPlan& plan_;
  int next_ = 0;
};

class ArenaPlacer final : public Placer {
 public:
  explicit ArenaPlacer(const ArenaPlan&);
  ArenaPlacer(const ArenaPlan&, void* base);  // in memory that is somebody else's
  ~ArenaPlacer() override;
  void* take(i64 bytes) override;
  void give(void*, i64) override {}
  void begin_step() override { places_.begin_step(); }

 private:
  Places places_;
  i64 bytes_;
  void* base_;
};

// Every buffer between guard pages, filled with NaN when taken and out of reach when given back: an overrun,
// a read before a write or a use after release shows at once. Counts the live bytes by itself. When no rank
// of the process has one any more, the next to have one take what these mapped.
class GuardPlacer final : public Placer {
 public:
  GuardPlacer();
  GuardPlacer(const GuardPlacer&) = delete;
  void operator=(const GuardPlacer&) = delete;
  ~GuardPlacer() override;
  void* take(i64 bytes) override;
  void give(void* at, i64 bytes) override;
  i64 peak() const { return peak_; }

 private:
  // By bytes, longest first: what was given back. To map it again is much slower than to let it be touched
  // again; a few rest for a while, so that what still points there does not meet the next buffer.
  static constexpr std::size_t kRest = 8;
  std::map<std::size_t, std::deque<std::byte*>> resting_;
  i64 live_ = 0, peak_ = 0;
};

}  // namespace lockstep
