// Timing a plan that has passed its gates.
#pragma once
#include <vector>

#include "suites/reference.hpp"

namespace lockstep {

struct Timed {
  std::vector<double> step_seconds;
  i64 resident_bytes = 0;  // of the whole process, at the end of the last step
};

// One warm-up step, then `steps` more, with nobody looking on. A step ends on rank 0, which then has every
// rank's losses: so it is the time of all of them.
Timed time_steps(const Prepared&, const Launch&, const Weights& initial, int steps);

}  // namespace lockstep
