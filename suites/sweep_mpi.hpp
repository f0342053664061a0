// A suite's plans with ranks as processes: all those that need as many ranks as the job has.
#pragma once
#include "parallel/comm/mpi.hpp"
#include "suites/suite.hpp"

namespace lockstep {

class Fabrics;

// Prints what fails, and VALID or INVALID at the end; returns the exit status. Gates: numbers and messages.
// fabrics: as in Launch.
int sweep_over_mpi(MpiWorld&, Fabrics*, const Suite&, const Enumeration&);

}  // namespace lockstep
