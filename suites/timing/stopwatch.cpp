#include "suites/timing/stopwatch.hpp"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <numeric>

#include "kernels/cores.hpp"
#include "suites/gates/among.hpp"
#include "suites/run/machine_memory.hpp"
#include "suites/timing/step_recorder.hpp"

namespace lockstep {

double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

Interval median_interval(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const int n = static_cast<int>(values.size());
  // Each value is below the true median with probability 1/2. The k smallest and the k largest may be left
  // out while at most 2.5 % is the chance that k or fewer values are below it.
  double chance = std::pow(0.5, n), below = chance;  // of exactly k, of at most k
  int k = 0;
  for (; below <= 0.025; ++k) {
    chance *= static_cast<double>(n - k) / (k + 1);
    below += chance;
  }
  if (k == 0) return {};
  return {values[k - 1], values[n - k]};
}

double median_spread(std::vector<double> values) {
  const Interval interval = median_interval(values);
  return interval.known() ? (interval.high - interval.low) / 2 / median(values) : interval.high;
}

namespace {

// Every rank's recorder and its process's memory, on rank 0 of a job; `begin` is the same moment on all
// ranks.
void bring_together(MpiWorld& job, std::vector<StepRecorder>& recorders,
                    StepRecorder::Clock::time_point begin, i64& resident) {
  const std::string marks = recorders[job.rank()].since(begin);
  job.gather(marks,
             [&](int rank, const std::string& theirs) { recorders[rank] = StepRecorder::of(theirs, begin); });
  std::vector<i64> each(recorders.size());
  each[job.rank()] = resident;
  collect(&job, each);
  resident = std::accumulate(each.begin(), each.end(), i64{0});
}

}  // namespace

Timed time_steps(const Prepared& p, const Launch& how, const Weights& initial, const Repeats& repeats) {
  using Clock = std::chrono::steady_clock;
  Timed timed;
  timed.step_seconds.reserve(static_cast<std::size_t>(repeats.most));
  bool enough = false;  // written by rank 0 while the others wait for it
  const int here = how.mpi ? how.mpi->ranks_here() : p.mesh.size();
  std::barrier meeting(how.mpi ? 1 : here);
  std::vector<StepRecorder> recorders(static_cast<std::size_t>(p.mesh.size()));
  Clock::time_point together;  // a moment that all ranks had at once
  const auto meet = [&] {
    if (how.mpi) enough = agreed(how.mpi, enough);
    meeting.arrive_and_wait();
  };
  launch(p, how, [&](RankView v) {
    try {
      initialise(v, initial,
                 !initial.empty() ? 1
                 : how.mpi        ? how.mpi->cores_each()
                                  : std::max(1, cores() / here));
      i64 step = 0;
      while (step < (how.graphs ? 2 : 1)) v.executor.step(step++);  // warms up; the second makes the graphs
      while (!enough) {
        const Clock::time_point start = Clock::now();
        v.executor.step(step++);
        if (v.rank == 0) {
          timed.step_seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
          const auto steps = static_cast<i64>(timed.step_seconds.size());
          enough = steps >= repeats.most ||
                   (steps >= repeats.least && median_spread(timed.step_seconds) <= repeats.spread);
        }
        meet();
      }
      if (how.mpi) together = Clock::now();
      StepRecorder& recorder = recorders[v.rank];
      v.device.set_onlooker(&recorder);
      v.executor.step(step);
      recorder.ends();
    } catch (...) {
      meeting.arrive_and_drop();  // or the others would wait for this rank for ever
      throw;
    }
    if (how.mpi || v.rank == 0) timed.resident_bytes = resident_bytes();
  });
  if (how.mpi) bring_together(*how.mpi, recorders, together, timed.resident_bytes);
  timed.timeline = timeline_of(recorders, p.mesh);
  return timed;
}

}  // namespace lockstep
