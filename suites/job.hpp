// What a launcher is told to start for the plans of so many ranks: `lockstep job`, the other side of a
// LaunchedWorker.
#pragma once
#include <string>

#include "suites/suite.hpp"

namespace lockstep {

// For a shell. reference: where the single-device run is kept; empty: nowhere.
std::string job_command(const Suite&, int ranks, bool timed, const std::string& reference);

}  // namespace lockstep
