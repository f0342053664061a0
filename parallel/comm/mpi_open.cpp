#include <dlfcn.h>

#include "parallel/comm/beside.hpp"
#include "parallel/comm/mpi.hpp"

namespace lockstep {

int with_mpi(const std::function<int(MpiWorld&)>& body) {
  using Entry = int(const std::function<int(MpiWorld&)>&);
  // Global, since Open MPI opens plugins that look for its symbols. Never closed: they would be gone at exit.
  const auto entry = reinterpret_cast<Entry*>(
      entry_beside("lockstep_mpi.so", "lockstep_with_mpi", RTLD_GLOBAL,
                   "this program was built without MPI ({} is not there); install Open MPI or MPICH, so that "
                   "mpicc is found, and run make again",
                   "MPI cannot be used here"));
  return entry(body);
}

}  // namespace lockstep
