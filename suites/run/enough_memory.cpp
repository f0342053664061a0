#include "suites/run/enough_memory.hpp"

#include <fmt/format.h>

#include "parallel/comm/mpi.hpp"
#include "ref/error.hpp"
#include "ref/params.hpp"
#include "suites/run/machine_memory.hpp"

namespace lockstep {

void check_memory(const Prepared& p, const Launch& how, int copies) {
  double arenas = 0, weights = 0;
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    if (how.mpi && how.mpi->rank() != rank) continue;
    arenas += static_cast<double>(p.layout(rank, Medium::host).bytes);
    if (!how.accelerator) arenas += static_cast<double>(p.layout(rank, Medium::device).bytes);
  }
  for (const Param& param : parameter_table(p.run.model, p.run.settings.leaves))
    if (param.tied_to < 0) weights += 4.0 * static_cast<double>(param.stored());
  weights *= copies;
  if (how.mpi) arenas *= how.mpi->ranks_here(), weights *= how.mpi->ranks_here();  // each process has its own
  const double needed = arenas + weights, there = static_cast<double>(machine_bytes());
  if (needed > there)
    throw UserError(
        fmt::format("{}: its arenas take {:.1f} GB and the whole weights beside them {:.1f} GB, and this "
                    "machine has {:.1f} GB "
                    "of memory; `lockstep show --summary` says what takes them",
                    p.run.plan.line(), arenas / 1e9, weights / 1e9, there / 1e9));
}

}  // namespace lockstep
