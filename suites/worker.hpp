// A process of its own for what may crash, hang or take all memory. It is forked from this one, so that what
// was made ready before is shared and not copied, and it answers one request after another. When it ends
// badly, the next request gets a new one. It never outlives this process, however that ends.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "kernels/lanes.hpp"

namespace lockstep {

struct Answer {
  // failed: the body threw. crashed: the process ended. killed: somebody else ended it (SIGKILL).
  enum class End { answered, failed, crashed, timeout, out_of_memory, killed };
  End end;
  std::string text;  // the answer, or what happened, in words
};

class Worker {
 public:
  using Body = std::function<std::string(const std::string& request)>;
  struct Limits {
    double seconds;     // to one answer
    i64 bytes;          // resident in the process, what it shares with this one included
    bool aloud = true;  // what the body says on stderr is said on this process's too
  };
  // This process must have one thread whenever it asks: a fork copies no other.
  Worker(Body, Limits);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Asks in two, for several at work at once: glance() waits so long at most, and may have the answer. What
  // the body says on stderr meanwhile ends a bad answer's words.
  void begin(const std::string& request);
  std::optional<Answer> glance(int milliseconds);
  pid_t pid() const { return pid_; }  // of the process at work; -1: none

 private:
  void start();
  [[noreturn]] void serve(int channel);
  Answer say_how_it_ended();
  int end();                 // kills the process and all that it started; its wait status
  std::string last_words();  // what it said on stderr since the last call; ends its file with the process

  const Body body_;
  const Limits limits_;
  pid_t pid_ = -1;
  int channel_ = -1, stderr_ = -1;
  i64 heard_ = 0;         // bytes of its stderr
  std::string received_;  // of its answer so far
  i64 kills_before_ = 0;  // by the system for want of memory, when it was asked
  bool lost_ = false;     // it did not take the request
  std::chrono::steady_clock::time_point asked_;
};

}  // namespace lockstep
