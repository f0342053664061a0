// A process of its own for what may crash, hang or take all memory. It is forked from this one, so that what
// was made ready before is shared and not copied, and it answers one request after another. When it ends
// badly, the next request gets a new one. It never outlives this process, however that ends.
#pragma once
#include <sys/types.h>

#include <functional>
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
    double seconds;  // to one answer
    i64 bytes;       // resident in the process, what it shares with this one included
  };
  // This process must have one thread whenever it asks: a fork copies no other.
  Worker(Body, Limits);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // What the body says on stderr meanwhile is said on this process's, and ends a bad answer's words.
  Answer ask(const std::string& request);
  pid_t pid() const { return pid_; }  // of the process at work; -1: none

 private:
  void start();
  [[noreturn]] void serve(int channel);
  Answer say_how_it_ended(i64 kills_before);
  int end();                 // kills the process and all that it started; its wait status
  std::string last_words();  // what it said on stderr since the last call; ends its file with the process

  const Body body_;
  const Limits limits_;
  pid_t pid_ = -1;
  int channel_ = -1, stderr_ = -1;
  i64 heard_ = 0;  // bytes of its stderr
};

}  // namespace lockstep
