// What a rank does, noted in order while nothing is computed: every buffer, kernel and message.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "parallel/device/memory.hpp"

namespace lockstep {

struct Trace {
  struct Event {
    enum What { take, give, relabel, run, start, wait, copy, copied, step, action } what;
    int block = -1;                   // take, give, relabel
    Kind kind{};                      // take, relabel
    i64 bytes = 0;                    // take
    const char* name = "";            // buffer, kernel, tensor, copy or action
    int request = -1;                 // start, wait; copy, copied
    Message message{};                // start (addresses mean nothing)
    std::array<int, 2> ends{-1, -1};  // start: blocks of in and out
    std::array<i64, 2> firsts{};      // and the elements in them where the message begins
    std::vector<View> views{};        // run; copy: to, from
    unsigned writes = 0;              // run: which of them it writes to, a bit each
    unsigned halves = 0;              // run: which arguments are stored as bf16, as kernels/ops.hpp has it
    std::vector<double> numbers{};    // run: sizes and scalars in the kernel's order; copy: elements
    int microbatch = -1, chunk = -1;  // action

    std::string title() const;  // of an action, kernel, message or copy: as a line of a program or timeline
  };
  std::vector<Event> events;
  bool closed = false;  // after the step: what is given back then is not noted

  void take(int block, const char* name, Kind kind, i64 bytes);
  void give(int block);
  void relabel(int block, Kind kind);
};

using KindBytes = std::array<i64, static_cast<int>(Kind::count)>;

struct Peaks {
  KindBytes by_kind{};  // each kind's own peak
  i64 total = 0;        // most bytes of memory alive together
};
Peaks peaks(const Trace&);

// Offline packing of the trace's buffers in one medium: bytes <= 1.05 x live on the plans of the suites
// (tested).
ArenaPlan lay_out(const Trace&, Medium);
using Layouts = std::array<ArenaPlan, 3>;  // by medium

CommNeeds comm_needs(const Trace&, const Mesh&, int rank);

// The rank's program, one line an event, with offsets in what is laid out.
std::string program(const Trace&, const Layouts&);

// Plays all ranks' messages against each other, sends and receives as rendezvous: the empty string, or what
// every stuck rank waits for.
std::string find_deadlock(const std::vector<Trace>&, const Mesh&);

}  // namespace lockstep
