// Timing a plan that has passed its gates.
#pragma once
#include <limits>
#include <vector>

#include "suites/run/reference.hpp"
#include "suites/timing/timeline.hpp"

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
// The median's 95 % interval, from one order statistic to another: no distribution is assumed (Hoefler &
// Belli 2015, section 3.1.3). Fewer than 6 values bound it nowhere.
struct Interval {
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  bool known() const { return high < std::numeric_limits<double>::infinity(); }
};
Interval median_interval(std::vector<double>);
// Half that interval's width, as a part of the median; infinity where it has none.
double median_spread(std::vector<double>);

}  // namespace lockstep
