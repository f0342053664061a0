#include "suites/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <numeric>
#include <utility>

namespace lockstep {
namespace {
constexpr const char* kClear = "\r\033[K";  // to the line's start, and erase it
constexpr double kLogSeconds = 10;          // between two lines of a log

double since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}
}  // namespace

Progress::Progress(int total) : Progress(std::vector<double>(static_cast<std::size_t>(total), 1.0)) {}
Progress::Progress(std::vector<double> shares)
    : shares_(std::move(shares)),
      total_(static_cast<int>(shares_.size())),
      terminal_(isatty(STDOUT_FILENO)) {}

double Progress::seconds() const { return since(start_); }

// Assumes that the plans to come take as long as those done so far, or as their shares say.
std::string Progress::left() const {
  if (done_ == skipped_) return "";
  const auto begin = shares_.begin();
  const double before = std::accumulate(begin + skipped_, begin + done_, 0.0),
               after = std::accumulate(begin + done_, shares_.end(), 0.0);
  return fmt::format(", {:.0f} s left", std::ceil(since(first_) / before * after));
}

void Progress::skip(int plans) { done_ = skipped_ = plans; }

void Progress::begin(const std::string& plan) {
  if (first_ == Clock::time_point{}) first_ = Clock::now();
  if (!terminal_) return;
  fmt::print("{}{}/{}  {}{}", kClear, done_ + 1, total_, plan, left());
  std::fflush(stdout);
}

void Progress::end(const std::string& plan) {
  ++done_;
  if (terminal_) return;
  const bool due = since(said_) > kLogSeconds;
  if (!due && done_ != skipped_ + 1 && done_ != total_) return;
  said_ = Clock::now();
  say(fmt::format("{}/{}  {}  {:.0f} s{}", done_, total_, plan, seconds(), done_ < total_ ? left() : ""));
}

void Progress::say(const std::string& line) {
  fmt::print("{}{}\n", terminal_ ? kClear : "", line);
  std::fflush(stdout);
}

void Progress::finish() {
  if (terminal_) fmt::print("{}", kClear);
  std::fflush(stdout);
}

PartProgress::PartProgress(std::string what, double log_seconds)
    : what_(std::move(what)), terminal_(isatty(STDERR_FILENO)), every_(terminal_ ? 0.1 : log_seconds) {}

PartProgress::~PartProgress() {
  if (terminal_) fmt::print(stderr, "{}", kClear);
}

// Assumes that what is left takes as long as what is done.
void PartProgress::at(double part) {
  if (part <= 0 || since(said_) < every_) return;
  said_ = Clock::now();
  const double left = std::ceil(since(start_) * (1 - part) / part);
  fmt::print(stderr, "{}{}: {:.0f} %, {:.0f} s left{}", terminal_ ? kClear : "", what_, 100 * part, left,
             terminal_ ? "" : "\n");
  std::fflush(stderr);
}

}  // namespace lockstep
