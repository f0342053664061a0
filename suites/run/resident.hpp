// What a run really holds in memory, as the operating system counts it.
#pragma once
#include "parallel/cluster.hpp"

namespace lockstep {

// Most bytes resident while a process of its own trains `settings.steps` steps; filling the weights before
// them counts only in the `whole`. What the run throws is printed there in one sentence, and nothing is
// returned. std::runtime_error: this system does not tell (Linux does).
std::optional<i64> peak_resident_bytes(const Run&, const Launch&, bool whole = false);

}  // namespace lockstep
