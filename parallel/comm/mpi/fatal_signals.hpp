// Which rank it was that a signal ended: not every launcher says so (MPICH's names a process).
#pragma once

#include <string>

namespace lockstep {

// From here on such a signal (not SIGKILL, which nobody hears of) writes one sentence to stderr: that it
// ended `who`, "rank 1 on node2". Then what was there to handle it does, a launcher's or a sanitizer's own
// report too.
void name_rank_in_death(const std::string& who);
// A job that has said why it ends.
void die_quietly();

}  // namespace lockstep
