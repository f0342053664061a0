// A worker whose ranks are processes that a launcher starts, on any machines: mpirun, srun. The launcher
// passes this process's lines on to rank 0's standard input, and rank 0's back: `lockstep job` is the other
// side (suites/commands/job.cpp). One job answers one request after another.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <functional>

#include "suites/sweep/last_words.hpp"
#include "suites/sweep/worker.hpp"

namespace lockstep {

// What rank 0 says: it is ready, on these hosts; or the answer, as it may be any bytes, in hexadecimal
// digits.
inline constexpr const char *kJobReady = "lockstep-ready ", *kJobAnswer = "lockstep-answer ";
inline constexpr const char* kDamaged = "its answer was damaged on the way";
std::string hexadecimal(const std::string& bytes);
std::string from_hexadecimal(const std::string& digits);  // std::invalid_argument: they are none

class LaunchedWorker final : public Worker {
 public:
  // command: of the shell, a single one. seconds: to one answer, once the job is ready; before, a queue may
  // take its time, until `given_up`.
  LaunchedWorker(std::string command, double seconds, std::function<bool()> given_up = {});
  ~LaunchedWorker() override;  // lets the job end by itself, some seconds long
  LaunchedWorker(const LaunchedWorker&) = delete;
  LaunchedWorker& operator=(const LaunchedWorker&) = delete;

  void begin(const std::string& request) override;
  // UserError: the job ended before it was ready, or refused its first request as a user's mistake, and so it
  // would the next; it says what the launcher said.
  std::optional<Answer> glance(int milliseconds) override;
  pid_t pid() const { return pid_; }  // of the launcher; -1: none

 private:
  using Clock = std::chrono::steady_clock;
  void start();
  std::optional<Answer> hear(const std::string& line);
  bool launcher_has_ended() const;
  Answer say_how_it_ended();
  int end(double patience);  // first with words, then by force; the launcher's wait status
  std::string words();       // the ranks' own sentences; if there are none, what the launcher said

  const std::string command_;
  const double seconds_;
  const std::function<bool()> given_up_;
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1;
  bool ready_ = false, lost_ = false;  // lost: it did not take the request
  bool answered_ = false;              // some job did
  LastWords words_;
  std::string received_, besides_;  // of the line that comes; what else was said since the last answer
  Clock::time_point asked_{};
};

}  // namespace lockstep
