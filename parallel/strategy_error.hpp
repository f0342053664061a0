#pragma once
#include <stdexcept>

namespace lockstep {

// What the author of a strategy did wrong, in one sentence that names it. The program prints it and exits
// with code 2.
struct StrategyError : std::logic_error {
  using std::logic_error::logic_error;
};

}  // namespace lockstep
