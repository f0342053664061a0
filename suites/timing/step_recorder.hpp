// A step as it went on this machine: each rank's passes, and its waiting for messages and copies between.
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "suites/timing/timeline.hpp"

namespace lockstep {

// Of one rank. Has all its memory before the step; a step of more marks than that is recorded to there.
class StepRecorder final : public Onlooker {
 public:
  StepRecorder() { marks_.reserve(kMarks); }
  void begins(const char* action, int chunk, int microbatch) override;
  void waits(const char* stream) override;
  void goes_on() override;
  void ends();
  // Of ranks that are processes, whose clocks may be of different machines: marks on their way to rank 0, in
  // seconds since `begin`, a moment that all ranks had together.
  using Clock = std::chrono::steady_clock;
  std::string since(Clock::time_point begin) const;
  static StepRecorder of(const std::string& marks, Clock::time_point begin);

 private:
  friend Timeline timeline_of(const std::vector<StepRecorder>&, const Mesh&);
  static constexpr std::size_t kMarks = 1 << 15;
  struct Mark {
    Clock::time_point at;
    enum { action, wait, on, end } what;
    const char* name;
    int chunk, microbatch;
  };
  void mark(const Mark& m) {
    if (marks_.size() < kMarks) marks_.push_back(m);
  }
  std::vector<Mark> marks_;
};

// By rank; one of each stage is shown. `parts` are a mean over all ranks; waiting for a message includes
// waiting for the ranks that have not started it, so there is no "bubble".
Timeline timeline_of(const std::vector<StepRecorder>&, const Mesh&);

}  // namespace lockstep
