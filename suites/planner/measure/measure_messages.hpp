// What a message costs ranks that are threads of one process.
#pragma once
#include "parallel/comm/comm.hpp"
#include "suites/planner/measure/sampling.hpp"

namespace lockstep {

struct MessageSample {
  double bytes = 0;    // of the whole payload, as suites/planner/collectives.hpp has it
  Sample start, wait;  // of a rank, all being there already
};

// `verb` between this many ranks at once, each with a core of its own. Send and receive are measured
// together, and told apart by `verb`. Buffers come again after `far` bytes.
MessageSample message_sample(Verb verb, int ranks, i64 elements, double far);

}  // namespace lockstep
