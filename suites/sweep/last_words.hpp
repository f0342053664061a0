// What a process says on stderr, kept for the sentence that tells how it ended.
#pragma once
#include <string>

#include "kernels/lanes.hpp"

namespace lockstep {

class LastWords {
 public:
  ~LastWords() { forget(); }
  int open();  // anew, for a process to write to: a descriptor that is closed with forget()
  void forget();
  // What it said since the last call, as it is; aloud: and says it on this process's stderr.
  std::string take(bool aloud);

 private:
  int file_ = -1;
  i64 heard_ = 0;  // bytes
};

// "; it said: ..." with the end of it on one line, of letters that any reader knows; nothing of nothing.
std::string quoted(std::string said);

}  // namespace lockstep
