// Which rank it was that a signal ended: not every launcher says so (MPICH's names a process).
#pragma once

#include "parallel/comm/mpi.hpp"

namespace lockstep {

// From here on such a signal (not SIGKILL, which nobody hears of) writes one sentence that names the rank and
// the host to stderr. Then what was there to handle it does, a launcher's or a sanitizer's own report too.
void name_rank_in_death(const MpiWorld& world);
// A job that has said why it ends.
void die_quietly();

}  // namespace lockstep
