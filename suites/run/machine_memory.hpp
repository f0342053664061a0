// What this machine and a process have of memory, as Linux tells it.
#pragma once
#include <sys/types.h>

#include "kernels/lanes.hpp"

namespace lockstep {

i64 resident_bytes(pid_t pid = 0);  // of a process, pages shared with others included; 0: of this one
i64 machine_bytes();                // in all, or what this process's control group may have
i64 out_of_memory_kills();          // processes that the system has ended for want of memory, since it began

}  // namespace lockstep
