// How far a sweep, or another row of things to be done, is: one line that changes on a terminal, a plain line
// every few plans in a log.
#pragma once
#include <chrono>
#include <string>
#include <vector>

namespace lockstep {

class Progress {
 public:
  explicit Progress(int total);
  explicit Progress(std::vector<double> shares);  // of the time, which each of the plans will take
  void skip(int plans);                           // that were done before
  void begin(const std::string& plan);
  void end(const std::string& plan);
  void say(const std::string& line);  // a line that stays
  void finish();                      // leaves the terminal's line empty
  double seconds() const;             // since it was made

 private:
  using Clock = std::chrono::steady_clock;
  std::string left() const;
  std::vector<double> shares_;
  int total_, done_ = 0, skipped_ = 0;
  bool terminal_;
  Clock::time_point start_ = Clock::now(), said_ = start_, first_{};  // first_: of the first plan
};

// How far something is whose answer goes to stdout, and of which only the part that is done is known: on
// stderr, a line that changes on a terminal, a plain line every so many seconds in a log.
class PartProgress {
 public:
  explicit PartProgress(std::string what, double log_seconds = 10);
  ~PartProgress();  // leaves the terminal's line empty
  PartProgress(const PartProgress&) = delete;
  void at(double part);

 private:
  using Clock = std::chrono::steady_clock;
  const std::string what_;
  const bool terminal_;
  const double every_;  // seconds between two lines
  Clock::time_point start_ = Clock::now(), said_ = start_;
};

}  // namespace lockstep
