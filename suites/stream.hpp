// Where a forward pass leaves the reference's: the first place at which the residual stream of some rank is
// not the single device's. Places of a model of L layers: 0 behind the embedding, 2l + 1 behind layer l's
// attention, 2l + 2 behind its MLP.
#pragma once
#include <string>

#include "suites/reference.hpp"

namespace lockstep {

// Runs the plan up to `step`, whose loss is wrong while all before was right, and looks on. One sentence.
std::string follow_stream(const Prepared&, const Launch&, const Weights& initial, const Whole& reference,
                          i64 step);

}  // namespace lockstep
