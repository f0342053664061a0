// Where a forward pass leaves the reference's: the first place at which the residual stream of some rank is
// not the single device's.
#pragma once
#include <string>

#include "suites/run/reference.hpp"

namespace lockstep {

// Runs the plan up to `step`, whose loss is wrong while all before was right, and looks on. One sentence.
std::string follow_stream(const Prepared&, const Launch&, const Weights& initial, const Whole& reference,
                          i64 step);

}  // namespace lockstep
