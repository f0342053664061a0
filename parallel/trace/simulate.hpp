// How long a step would take, from its traces and the cost of each kernel and message: what a pipeline waits
// for, what of the communication is hidden and what is not.
//
// Each rank computes in the order of its program. Messages of an axis follow each other on a stream of that
// axis, begin when all that take part have started them and their streams are free, and hold up a rank only
// where it waits for them. Where one of another axis takes the same links, dp's stand still. Sends are
// rendezvous. Copies between memories follow each other on streams of their own, or are the rank's own work;
// so are messages that nobody but the ranks carries.
#pragma once
#include <functional>
#include <map>
#include <vector>

#include "parallel/trace/trace.hpp"

namespace lockstep {

// Seconds.
struct Costs {
  std::function<double(const Trace::Event&)> kernel;            // a `run` event
  std::function<double(const Message&, const Group&)> message;  // once all have started it
  // Of a `copy` event: how long, and through which of the rank's streams of copies.
  std::function<double(const Trace::Event&)> copy = [](const Trace::Event&) { return 0.0; };
  std::function<int(const Trace::Event&)> copy_stream = [](const Trace::Event&) { return 0; };
  bool copies_block = false;  // a copy is over when it has been started
  bool sends_block = false;   // between stages: the sender waits as long as the message travels
  // simulate() knows nothing of these two; composed steps do (suites/planner/chunks/program.hpp): the part of
  // a message of dp's that holds up its rank where it starts; how long the host takes to issue a kernel or
  // message.
  double dp_blocks = 0;
  std::function<double(const Trace::Event&)> issue = [](const Trace::Event&) { return 0.0; };
  // Messages are carried by the ranks themselves: `beginning` is the work of each where it starts one, and
  // `message` that where it waits for it, once all have started it. Nothing goes on beside.
  bool messages_block = false;
  std::function<double(const Message&)> beginning = [](const Message&) { return 0.0; };
  // By how much a message, which takes at least as long, delays those of dp's that are under way beside it.
  std::function<double(const Message&)> delay = [](const Message&) { return 0.0; };
};

struct Simulated {
  struct Bar {
    int rank;
    enum Stream { compute, communication, copy } stream;
    Axis axis;  // of communication
    double from, to;
    const char* name;  // kernel, tensor or copy
    int chunk, microbatch;
    const char* pass = "";  // the action that it is part of
  };
  struct Rank {
    double compute = 0;              // kernels, but for those of the update
    double update = 0;               // clipping and the optimizer, after the last microbatch
    std::map<Axis, double> exposed;  // waiting for a message that all had started, or that queued
    double copies = 0;               // waiting for a copy, or copying
    double bubble = 0;               // waiting for other ranks, and idle at the end
  };
  double seconds = 0;  // until the last rank ends
  std::map<int, Rank> ranks;
  std::vector<Bar> bars;
};

// Ranks that differ in dp and tp alone run the same program: one of them stands for all. `ranks` lists who is
// simulated: one_of_each_stage(), or everybody.
std::vector<int> one_of_each_stage(const Mesh&);
Simulated simulate(const std::vector<const Trace*>& by_rank, const Mesh&, const std::vector<int>& ranks,
                   const Costs&);

}  // namespace lockstep
