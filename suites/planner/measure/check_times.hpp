// Predicted step times against measured ones, on plans that this machine has cores for, or on one GPU.
#pragma once
#include <string>

#include "suites/planner/planner.hpp"
#include "suites/timing/stopwatch.hpp"

namespace lockstep {

struct CheckHow {
  std::string data, isa = "auto";
  int threads = 1, plans = 40;
  Accelerator* accelerator = nullptr;
  Repeats repeats;
};

struct CheckedTimes {
  struct Row {
    std::string plan;
    double predicted, measured;
  };
  std::vector<Row> rows;
  double median_error = 0;  // of |predicted / measured - 1|
  // The planner's first choice against the fastest of the top five of prediction and of measurement, all
  // measured once more in turn: how much slower it is.
  std::string first, fastest;
  double regret = 0;
  // The median error is 10 % at most, and the first choice at most 5 % slower than the fastest.
  bool well() const { return median_error <= 0.10 && regret <= 0.05; }
};

// Of times of plans, of which the first is the choice: which has the least median, and what part of it the
// choice takes beyond it.
struct Regret {
  std::size_t fastest = 0;
  double part = 0;
};
Regret regret_of_first(const std::vector<std::vector<double>>& times);

// On 1, 2, 4, ... devices of the cluster, or on an accelerator, plans that fit, drawn at random. `say` is
// told each row.
CheckedTimes check_times(const ModelConfig&, const Settings&, const Cluster&, const Values& given,
                         const CheckHow&, const std::function<void(const CheckedTimes::Row&)>& say);

}  // namespace lockstep
