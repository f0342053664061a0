// What a launcher is told to start for the plans of so many ranks: `lockstep job`, the other side of a
// LaunchedWorker.
#pragma once
#include <string>
#include <utility>

#include "suites/sweep/suite.hpp"

namespace lockstep {

// For a shell. reference: where the single-device run is kept; empty: nowhere.
std::string job_command(const Suite&, int ranks, bool timed, const std::string& reference);

// What its rank 0 answers of a plan: the hash of the reference that it was held to, and the record's bytes.
std::string answer_of(const std::string& reference_hash, const std::string& record);
std::pair<std::string, std::string> parts_of_answer(const std::string& answer);

}  // namespace lockstep
