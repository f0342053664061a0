// Whether a run fits this machine's memory, asked before it takes any.
#pragma once
#include "parallel/cluster.hpp"

namespace lockstep {

// UserError: the arenas of this process's ranks, those on an accelerator left out, and `copies` of all
// weights in float32 are more than the machine has. Swapping and what others hold are not looked at.
void check_memory(const Prepared&, const Launch&, int copies);

}  // namespace lockstep
