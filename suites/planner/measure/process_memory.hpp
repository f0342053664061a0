// What a process that trains a plan holds, all its ranks being threads of it.
#pragma once
#include "parallel/cluster.hpp"
#include "suites/planner/cluster.hpp"

namespace lockstep {

// Bytes. Those of the process, of each rank and of each communicator are the cluster's `[process]` lines.
struct ProcessMemory {
  double arenas = 0;   // of all ranks, on the device and on the host
  double staging = 0;  // what the communicator keeps of messages under way
  double beside = 0;   // program, libraries, stacks, kernels' scratch
  double all() const { return arenas + staging + beside; }
};
ProcessMemory process_memory(const Prepared&, const Cluster&);

// Of one rank's contributions to messages: one under way takes the slot that was given back last, and a slot
// costs as much as the largest message that was ever in it (parallel/comm/exchange.hpp).
i64 staging_bytes(const Trace&, const Mesh&, int rank);

}  // namespace lockstep
