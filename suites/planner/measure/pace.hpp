// How fast this machine is right now: processors slow down when they are hot or shared, and what was measured
// in one phase says little of another.
#pragma once
#include <string>

#include "suites/planner/cluster.hpp"

namespace lockstep {

// Of one core, in about a tenth of a second.
Pace measure_pace(const std::string& isa);

// The cluster as it would have been measured at this pace; a cluster that says no pace stays as it is.
Cluster at_pace(Cluster, const Pace& now);

// Seconds that all processors of this machine have worked, and this process on them: how much of them others
// took meanwhile is the difference of two looks.
struct Busy {
  double all = 0, mine = 0;
};
Busy busy_seconds();
double others_part(const Busy& before, const Busy& after);  // of all that was worked

}  // namespace lockstep
