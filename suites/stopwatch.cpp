#include "suites/stopwatch.hpp"

#include <unistd.h>

#include <chrono>
#include <fstream>

namespace lockstep {
namespace {

i64 resident_bytes() {
  std::ifstream file("/proc/self/statm");
  i64 total = 0, resident = 0;  // pages
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace

Timed time_steps(const Prepared& p, const Launch& how, const Weights& initial, int steps) {
  using Clock = std::chrono::steady_clock;
  Timed timed;
  timed.step_seconds.reserve(steps);
  launch(p, how, [&](RankView v) {
    initialise(v, initial);
    v.executor.step(0);
    for (int k = 1; k <= steps; ++k) {
      const Clock::time_point start = Clock::now();
      v.executor.step(k);
      if (v.rank == 0)
        timed.step_seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    if (v.rank == 0) timed.resident_bytes = resident_bytes();
  });
  return timed;
}

}  // namespace lockstep
