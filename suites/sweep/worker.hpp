// Whoever answers requests in a process, or several, that may crash, hang or take all memory: when that ends
// badly, the next request gets a new one. None outlives this process, however that ends.
#pragma once
#include <cerrno>
#include <optional>
#include <string>
#include <system_error>

namespace lockstep {

struct Answer {
  // failed: the body threw. crashed: the process ended. killed: somebody else ended it (SIGKILL).
  enum class End { answered, failed, crashed, timeout, out_of_memory, killed };
  End end;
  std::string text;  // the answer, or what happened, in words
};

// What the system did not give, and why.
[[noreturn]] inline void not_given(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

class Worker {
 public:
  virtual ~Worker() = default;
  // Asks in two, for several at work at once: glance() waits so long at most, and may have the answer. What
  // is said on stderr meanwhile ends a bad answer's words.
  virtual void begin(const std::string& request) = 0;
  virtual std::optional<Answer> glance(int milliseconds) = 0;
  // From the next request on it is the part-th of so many at work on this machine.
  virtual void share(int /*part*/, int /*parts*/) {}
};

}  // namespace lockstep
