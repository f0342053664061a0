// Timing a plan that has passed its gates.
#pragma once
#include <vector>

#include "suites/reference.hpp"
#include "suites/timeline.hpp"

namespace lockstep {

// How often a step is timed: at least `least` times, at most `most`, and between them until the median is
// known to within `spread`.
struct Repeats {
  int least = 5, most = 30;
  double spread = 0.05;  // half the 95 % interval of the median, as a part of the median
};

struct Timed {
  std::vector<double> step_seconds;
  Timeline timeline;       // of one more step
  i64 resident_bytes = 0;  // of the whole process, or a job's processes together, at the end of the last step
};

// One warm-up step, then timed ones, with nobody looking on. A step ends on rank 0, which then has every
// rank's losses: so it is the time of all of them. Of a job's processes rank 0 has what is returned.
Timed time_steps(const Prepared&, const Launch&, const Weights& initial, const Repeats&);

double median(std::vector<double>);  // NaN of none
// Half the width of the median's 95 % interval, as a part of the median. The interval is from one order
// statistic to another and assumes no distribution (Hoefler & Belli 2015, section 3.1.3); fewer than 6 values
// have none: infinity.
double median_spread(std::vector<double>);

}  // namespace lockstep
