// A worker that is forked from this process, so that what was made ready before is shared and not copied.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <functional>

#include "kernels/cores.hpp"
#include "kernels/lanes.hpp"
#include "suites/sweep/last_words.hpp"
#include "suites/sweep/worker.hpp"

namespace lockstep {

class ForkedWorker final : public Worker {
 public:
  using Body = std::function<std::string(const std::string& request)>;
  struct Limits {
    double seconds;     // to one answer
    i64 bytes;          // resident in the process, what it shares with this one included
    bool aloud = true;  // what the body says on stderr is said on this process's too
  };
  // This process must have one thread whenever it asks: a fork copies no other.
  ForkedWorker(Body, Limits);
  ~ForkedWorker() override;
  ForkedWorker(const ForkedWorker&) = delete;
  ForkedWorker& operator=(const ForkedWorker&) = delete;

  void begin(const std::string& request) override;
  std::optional<Answer> glance(int milliseconds) override;
  // It keeps to its part of the cores. What one process does to its memory's tables then interrupts no core
  // of another's: guarded buffers do it all the time.
  void share(int part, int parts) override { cores_ = cores_of_part(core_numbers(), part, parts); }
  pid_t pid() const { return pid_; }  // of the process at work; -1: none

 private:
  void start();
  [[noreturn]] void serve(int channel);
  Answer say_how_it_ended();
  int end();  // kills the process and all that it started; its wait status

  const Body body_;
  const Limits limits_;
  pid_t pid_ = -1;
  int channel_ = -1;
  std::vector<int> cores_;  // none: all
  LastWords words_;
  std::string received_;  // of its answer so far
  i64 kills_before_ = 0;  // by the system for want of memory, when it was asked
  bool lost_ = false;     // it did not take the request
  std::chrono::steady_clock::time_point asked_;
};

}  // namespace lockstep
