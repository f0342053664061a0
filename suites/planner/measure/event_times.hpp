// Where a step's predicted time is wrong: each kernel, message and copy of a rank as it went on this machine,
// beside what the cost model says of it.
#pragma once
#include <string>
#include <vector>

#include "parallel/cluster.hpp"
#include "suites/planner/cluster.hpp"

namespace lockstep {

// All events of one kind and one size.
struct EventTimes {
  std::string what;  // "matmul 64 256 256", "start all_reduce dp 65536", "wait ...", "copy 4096"
  i64 times = 0;
  double predicted = 0, measured = 0;  // seconds of all of them; measured: the median of some steps
};

// Of one rank, the largest difference first; the last row is what lies between the events.
std::vector<EventTimes> event_times(const Run&, const Launch&, const Cluster&, int rank);

}  // namespace lockstep
