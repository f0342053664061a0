// What came of it: counts by gate, and every mutant with what caught it, as Markdown and as HDF5.
#pragma once
#include <string>
#include <vector>

#include "suites/mutants/mutant.hpp"

namespace lockstep {

std::string summary_table(const std::vector<Mutant>&);  // Markdown: gate, catches, first, alone
std::string ten_at_random(const std::vector<Mutant>&, i64 seed);
std::string mutant_table(const std::vector<Mutant>&);  // Markdown: one line a mutant
std::string verdict_line(const std::vector<Mutant>&);  // "N of N caught, E equivalent (x %)"
void write_mutants(const std::vector<Mutant>&, const std::string& path);  // HDF5

}  // namespace lockstep
