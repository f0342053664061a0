// What ranks say to each other. Every operation is a pair, start and wait; between the two the input must
// not change and the output must not be looked at. Sums follow the tree of kernels/EXACT.md over the
// group's members in order, so every communicator gives the same bits.
#pragma once
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/lanes.hpp"
#include "parallel/mesh.hpp"

namespace lockstep {

enum class Verb { all_reduce, reduce_scatter, all_gather, all_to_all, broadcast, send, recv };
enum class Reduce { none, sum, max };
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"  // Type::i64 beside the type i64
enum class Type { f32, f64, i64, i32, bf16 };
#pragma GCC diagnostic pop
const char* verb_name(Verb);
const char* type_name(Type);
i64 type_bytes(Type);
inline constexpr int kMaxRanks = 1024;  // of a mesh, and so of a group

// One operation of one rank. n = elements of the payload as stated below; `blocks` repeats it for a
// leading axis, so that a [B, T, D] tensor can be gathered or scattered along T in one message.
//   all_reduce      in [blocks*n] -> out [blocks*n] (in == out allowed)
//   reduce_scatter  in [blocks, size, n] -> out [blocks, n], my part
//   all_gather      in [blocks, n] -> out [blocks, size, n]
//   all_to_all      in [blocks, size, n] -> out [blocks, size, n] (in == out allowed): row [b, i] of my out
//   is
//                   row [b, me] of member i's in
//   broadcast       in (root's) [blocks*n] -> out [blocks*n]; peer = root's index in the group
//   send, recv      [blocks*n]; peer = the other's index in the group; tag pairs them
struct Message {
  Verb verb{};
  Axis axis{};
  Type type = Type::f32;
  Reduce reduce = Reduce::none;
  int peer = -1;
  i64 tag = 0;
  const void* in = nullptr;
  void* out = nullptr;
  i64 blocks = 1, n = 0;
  const char* what = "";  // the tensor, for people: ledger, deadlock report
  int microbatch = -1;    // -1: once per step
};

// Elements that member `me` of a group of `size` gives in `in` and gets in `out`; 0: does not use it.
i64 in_elements(const Message&, int me, int size);
i64 out_elements(const Message&, int me, int size);

// For people: "all_reduce of `g` microbatch 2 on dp among ranks 0, 2", "recv of `x` from rank 1 on pp".
std::string describe(const Message&, const Group&);
std::string place(const Mesh&, int rank);  // "rank 3 (dp 0, tp 1, pp 1)"

// A rank, its program and its peers cannot go on: names the rank, and what it and the others wait for.
struct CommError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int start(const Message&) = 0;  // returns a request
  virtual void wait(int request) = 0;
  // To be called before the buffers of messages under way go for a failure's sake: others may be writing
  // there.
  virtual void leave() noexcept {}
};

// How much a rank may have under way, known from the trace before the first step.
struct CommNeeds {
  i64 largest_bytes = 0;  // of one message: blocks * n * size (for gather and scatter) * type
  int outstanding = 1;    // most started and not yet waited for, per rank and group
  // The same by axis, or empty: of each as of all.
  struct OfAxis {
    i64 largest_bytes = 0;
    int outstanding = 0;
  };
  std::vector<OfAxis> by_axis{};
  OfAxis of(Axis axis) const {
    return by_axis.empty() ? OfAxis{largest_bytes, outstanding} : by_axis[static_cast<std::size_t>(axis)];
  }
  // Messages of a rank that are under way at once, in all of its groups together, each take the first place
  // that is free: by place, bytes of the largest that is ever there.
  std::vector<i64> in_flight{};
  // Of an axis' collectives; by axis, or empty: any of them may be as large, and in blocks.
  struct Collectives {
    i64 largest_bytes = 0;
    bool in_blocks = false;  // some have more than one block
  };
  std::vector<Collectives> on_axis{};
  // Who sends to whom, world ranks, in one order on all ranks; only communicators that must know ask for it.
  struct Pair {
    Axis axis;
    int from, to;
    auto operator<=>(const Pair&) const = default;
  };
  std::vector<Pair> pairs{};
};

// When a message's input is really read. eager: at start. lazy: as late as allowed, at its wait, so that
// reusing an input too early shows. An output that is not also the input is poisoned at start. lazy writes it
// at its wait, so that looking too early shows without any luck of timing; eager somewhere in between, as a
// network does: a rank ahead brings a late one its output when it needs the room.
enum class Timing { eager, lazy };

// What one rank moved on one axis: bytes put into the network buffer, and bytes taken out of it. Groups of
// one move nothing.
struct Wire {
  i64 messages = 0, sent = 0, received = 0;
};

// Ranks as threads of this process, at most kMaxRanks.
class LocalWorld {
 public:
  LocalWorld(const Mesh&, const CommNeeds&, Timing);
  ~LocalWorld();
  // Runs body(rank, comm) on one thread a rank; returns when all have ended. The first exception of any rank
  // ends all the others' waits and is thrown again here, with the rank named.
  void run(const std::function<void(int, Comm&)>& body);
  Wire wire(int rank, Axis) const;  // of the last run

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep
