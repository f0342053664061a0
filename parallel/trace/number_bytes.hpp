// How wide the numbers are that a traced kernel works on.
#pragma once
#include "parallel/trace/trace.hpp"

namespace lockstep {

// Of a number of a kernel's operands, on average: 4 in float32, 2 in bf16.
double bytes_of_a_number(const Trace::Event&);

}  // namespace lockstep
