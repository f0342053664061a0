// Copies under way between two memories of a rank, or between memory and its file. Each is a pair, start and
// wait: between the two the source must not change and the target must not be looked at.
#pragma once
#include <array>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "parallel/device/disk.hpp"
#include "parallel/device/engine.hpp"

namespace lockstep {

class Copies {
 public:
  // eager: a copy that touches the file is handed to a thread of its own at the start and goes on beside the
  // computation; one within memory is done at the start. lazy: done at the wait, with the target poisoned
  // until then, so that a dropped wait or an early reuse shows. With an engine, which is eager: its memory's
  // copies are its own, and those to and from the file are done at the start, through memory between them.
  Copies(const Disk&, Timing, Engine* = nullptr);
  ~Copies();
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  int start(const View& to, const View& from, i64 elements);
  // Throws what the copy threw: std::runtime_error, the disk failed.
  void wait(int id);

 private:
  static constexpr int kMost = 128;  // under way at once; a step allocates nothing
  struct Copy {
    View to, from;
    i64 elements = 0;
    bool used = false;  // known to the rank's thread alone
    bool done = false;  // under the mutex
  };
  void move(const Copy&) const;
  void move_through_host(const Copy&) const;
  bool by_engine(const Copy&) const;
  void work();
  const Disk& disk_;
  const Timing timing_;
  Engine* const engine_;
  void* between_ = nullptr;  // kBetween bytes of host memory
  static constexpr i64 kBetween = i64{1} << 22;
  std::array<Copy, kMost> copies_;

  // For the thread, which takes one copy after another in the order of their starts.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<int, kMost> queue_;  // a ring
  int first_ = 0, queued_ = 0;
  bool end_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace lockstep
