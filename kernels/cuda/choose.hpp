// Which of several ways to do the same work is the fastest here, found while the work is done: calls take the
// ways in turn, and when each has been timed often enough the fastest stays. Nothing here knows a GPU:
// fast_matmul.cu brings the times.
#pragma once
#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lockstep::cuda {

// Whether matmuls are to be timed, by what LOCKSTEP_MATMUL says (null: nothing).
inline bool timing_wished(const char* wish) {
  const std::string_view word = wish ? wish : "first";
  if (word != "first" && word != "timed")
    throw std::runtime_error("device cuda: LOCKSTEP_MATMUL is first or timed, not " + std::string(word));
  return word == "timed";
}

class Choice {
 public:
  static constexpr int kMost = 8;    // ways
  static constexpr int kRounds = 2;  // the smaller time counts: a way's first call may load it
  struct Turn {
    int way;
    int attempt;  // 0, 1, ...: what is to be timed; -1: nothing
  };

  explicit Choice(int ways = 1) : ways_(ways), left_(ways) {
    times_.fill(std::numeric_limits<float>::infinity());
  }

  int attempts() const { return kRounds * ways_; }
  bool settled() const { return left_ == 1 || awaited_ == attempts(); }

  // What the next call takes.
  Turn next() {
    if (settled() || next_ == attempts()) return {best(), -1};
    const int attempt = next_++;
    skip(next_);
    return {attempt % ways_, attempt};
  }
  // The oldest attempt that has no time yet, or -1; and its time, in whatever unit.
  int awaited() const { return awaited_ < next_ ? awaited_ : -1; }
  void took(float time) {
    float& least = times_[static_cast<std::size_t>(awaited_ % ways_)];
    least = std::min(least, time);
    skip(++awaited_);
  }
  // This way cannot do it, and is not taken again. False: it is the last one, and stays.
  bool drop(int way) {
    if (left_ == 1) return false;
    --left_;
    dropped_[static_cast<std::size_t>(way)] = true;
    skip(next_), skip(awaited_);
    return true;
  }
  // The fastest of those that have a time; before any has, the first that is left.
  int best() const {
    int best = -1;
    for (int way = 0; way < ways_; ++way)
      if (!dropped_[static_cast<std::size_t>(way)] && (best < 0 || time(way) < time(best))) best = way;
    return best;
  }

 private:
  float time(int way) const { return times_[static_cast<std::size_t>(way)]; }
  void skip(int& attempt) const {
    while (attempt < attempts() && dropped_[static_cast<std::size_t>(attempt % ways_)]) ++attempt;
  }

  int ways_, left_, next_ = 0, awaited_ = 0;
  std::array<float, kMost> times_;
  std::array<bool, kMost> dropped_{};
};

}  // namespace lockstep::cuda
