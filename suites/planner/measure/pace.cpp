#include "suites/planner/measure/pace.hpp"

#include <sys/times.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "suites/planner/measure/kernel_bench.hpp"
#include "suites/planner/measure/rates.hpp"

namespace lockstep {

Pace measure_pace(const std::string& isa) {
  // Operands that stay in the core's own cache, and numbers that stay in none of most machines' caches.
  constexpr double M = 256, n = 1 << 23;
  Pace pace;
  KernelBench near(isa, 1, 0), far(isa, 1, 128e6);
  pace.flops = 2 * M * M * M / near.time("matmul", {M, M, M, 1}, 5e-3).seconds;
  pace.bandwidth = 8 * n / far.time("copy", {n}).seconds;
  return pace;
}

Cluster at_pace(Cluster c, const Pace& now) {
  if (c.pace.flops <= 0 || c.pace.bandwidth <= 0) return c;
  const double flops = now.flops / c.pace.flops, bandwidth = now.bandwidth / c.pace.bandwidth;
  c.flops *= flops, c.memory_bandwidth *= bandwidth;
  for (auto& [name, grid] : c.grids)
    for (double& rate : grid.rates) rate *= flops;
  for (auto& [verb, carried] : c.carried)
    carried = {times(carried.start, bandwidth), times(carried.wait, bandwidth)};
  c.host.bandwidth *= bandwidth, c.host_bandwidth *= bandwidth;
  c.pace = now;
  return c;
}

double others_part(const Busy& before, const Busy& after) {
  const double all = after.all - before.all, mine = after.mine - before.mine;
  return all > 0 ? std::clamp(1 - mine / all, 0.0, 1.0) : 0;
}

Busy busy_seconds() {
  const double tick = static_cast<double>(sysconf(_SC_CLK_TCK));
  Busy busy;
  std::ifstream file("/proc/stat");  // proc(5): user nice system idle iowait irq softirq steal
  std::string name;
  double part = 0;
  file >> name;
  for (int i = 0; i < 8 && file >> part; ++i)
    if (i != 3 && i != 4) busy.all += part / tick;
  tms mine{};
  ::times(&mine);
  busy.mine = static_cast<double>(mine.tms_utime + mine.tms_stime) / tick;
  return busy;
}

}  // namespace lockstep
