// The times of plans that two runs both timed, side by side.
#pragma once
#include <string>
#include <vector>

#include "reports/record.hpp"

namespace lockstep {

// A plan of two runs.
struct PlanTwice {
  const PlanRecord *before, *after;
};

struct TimedTwice {
  std::string plan;
  double before, after;  // median steps, seconds
  bool known;            // both medians have a 95 % interval
  const char* beyond;    // "slower" or "faster" where the two intervals do not meet, else ""

  double ratio() const { return after / before; }
};

// The most changed first, slower or faster. UserError: a step that took no time, or none that is a number.
std::vector<TimedTwice> timed_in_both(const std::vector<PlanTwice>&);
std::string mean_ratio(const std::vector<TimedTwice>&);  // geometric, of one at least
std::size_t beyond(const std::vector<TimedTwice>&, const std::string& word);
// The table and what it comes to, in lines; empty: no plan was timed in both.
std::string times_table(const std::vector<TimedTwice>&, bool all);

// "1 plan", "2 plans".
std::string many(std::size_t, const std::string& what);
// How many rows of a table are shown, and the line that says how many are not.
std::size_t rows_of(std::size_t there, bool all);
std::string left_out(std::size_t rows);

}  // namespace lockstep
