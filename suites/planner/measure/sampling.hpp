// How long something takes, of several batches.
#pragma once
#include <algorithm>
#include <chrono>
#include <vector>

#include "suites/timing/stopwatch.hpp"

namespace lockstep {

struct Sample {
  double seconds = 0;  // of one call: the second fastest batch, for what else the machine does only adds
  double spread = 0;   // from the fastest batch to the median, as a part of it
  long long calls = 0;
};

inline Sample sample_of(std::vector<double> batches, long long calls) {
  std::sort(batches.begin(), batches.end());
  const double second = batches[std::min<std::size_t>(1, batches.size() - 1)];
  return {second, (median(batches) - batches.front()) / second, calls};
}

// Batches are long enough for the clock. One call before them does not count. settle: returns when the calls
// before have run, where they do so later.
template <class Call, class Settle>
Sample sample(const Call& call, const Settle& settle, int batches, double batch_seconds) {
  using Clock = std::chrono::steady_clock;
  call();
  settle();
  std::vector<double> seconds;
  long long times = 1, calls = 0;
  while (static_cast<int>(seconds.size()) < batches) {
    const Clock::time_point start = Clock::now();
    for (long long i = 0; i < times; ++i) call();
    settle();
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    calls += times;
    if (took < batch_seconds && times < (1LL << 24)) {
      const double more = std::min(100.0, 1.2 * batch_seconds / std::max(took, 1e-7));
      times = std::max(times + 1, static_cast<long long>(static_cast<double>(times) * more));
    } else {
      seconds.push_back(took / static_cast<double>(times));
    }
  }
  return sample_of(seconds, calls);
}
template <class Call>
Sample sample(const Call& call, int batches = 5, double batch_seconds = 1e-3) {
  return sample(
      call, [] {}, batches, batch_seconds);
}

}  // namespace lockstep
