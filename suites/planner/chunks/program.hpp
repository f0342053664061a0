// A stretch of a rank's step, boiled down to what simulated time and live memory depend on. Kernels, and
// messages that are waited for at once, are one operation; what goes on beside them is a start and a wait.
#pragma once
#include <array>
#include <vector>

#include "parallel/trace/simulate.hpp"

namespace lockstep {

// What goes on beside the kernels of a rank. Messages of other axes are waited for where they start, but for
// cp's exchanges: nothing but work lies between their start and wait, so that what is not hidden is known.
enum Stream { data, down, up, disk, streams };  // dp's messages; copies to the host, from it, and the disk's

// Bytes alive by medium: after all, and at the worst, relative to those at the beginning.
struct Live {
  std::array<i64, 3> now{}, most{};
  void add(std::size_t medium, i64 bytes);
  void then(const Live&);  // what follows
};

Live repeated(const Live&, i64 times);  // one after the other

// Seconds of a rank by what they went to.
struct Spent {
  double compute = 0, update = 0, copies = 0, bubble = 0;
  std::array<double, static_cast<int>(Axis::count)> exposed{};
  void then(const Spent&);
};

struct Instruction {
  enum What { work, start, wait } what = work;
  int stream = 0, request = -1;  // start, wait; request -1: what was under way when the program began
  double seconds = 0;            // of work and start
  double delay = 0;              // work: of what is under way on `data`; no longer than itself
  Spent spent{};                 // work
};

struct Program {
  std::vector<Instruction> instructions;
  int requests = 0;  // numbers of requests are smaller
  double issue = 0;  // seconds of the host for all kernels and messages
  Live live;
  double work = 0;  // seconds of its work, where ProgramWriter has added them up
};

// A rank's clock and when its streams are free.
struct Clock {
  double now = 0;
  std::array<double, streams> free{};
};

// Lets the clock go through a program; what it waits for is added to `spent`.
void run(const Program&, Clock&, Spent& spent);

// When a clock has gone through a program, as far as its end depends on its beginning: each of the five
// numbers is the latest of those before plus a constant (a linear map of the max-plus algebra: Baccelli et
// al. 1992, Synchronization and Linearity, chapter 3). Takes a program of any length at once.
class Transit {
 public:
  static constexpr int kNumbers = 1 + streams;
  Transit();
  void work(double seconds, double delay);
  void start(int stream, int request, double seconds);
  void wait(int stream, int request);
  void apply(Clock&) const;
  double through() const { return rows_[0][0]; }  // seconds at least

 private:
  using Row = std::array<double, kNumbers>;
  static Row later(const Row&, const Row&);
  std::array<Row, kNumbers> rows_;  // now, then the streams
  std::vector<Row> done_;           // by request, as if nothing had been delayed
  double delayed_ = 0;              // `data`, so far
  bool works_only_ = true;
};

// Builds a program from events of a trace.
class ProgramWriter {
 public:
  explicit ProgramWriter(const Costs& costs) : costs_(costs) {}
  // Of the events [from, to): those before were seen, too, or skipped: nothing of them is written, but what
  // they took and started is known.
  void write(const Trace&, std::size_t from, std::size_t to);
  void skip(const Trace&, std::size_t from, std::size_t to);
  Program take();         // what was written since the last time; requests are numbered on
  bool updating = false;  // kernels are the update's

 private:
  Instruction& work(double seconds);  // so much more of it
  void carry(const Message&, double seconds);
  void wait(int request, std::array<int, 2> known);
  const Costs& costs_;
  Program program_;
  int requests_ = 0;
  std::map<int, std::pair<std::size_t, i64>> blocks_;  // medium, bytes
  std::map<int, std::array<int, 2>> under_way_;        // by the trace's request: stream, request or -1
  std::map<int, Message> carried_;                     // by the trace's request: by the ranks themselves
  struct Exchange {
    Message message;
    double done, delay;
  };
  std::map<int, Exchange> exchanges_;     // cp's that are under way, by the trace's request,
  double since_ = 0, exchange_free_ = 0;  // on a clock that begins with the first of them
};

}  // namespace lockstep
