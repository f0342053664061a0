// What `sweep` and `gate` are asked in the same words: a suite, which of its plans, and on what they run.
#pragma once
#include <string>

#include "suites/sweep/suite.hpp"

namespace CLI {
class App;
}

namespace lockstep {

struct SuiteOptions {
  std::string suite, only, plan, isa, device, scratch;
  std::string shard;         // "2/4", of a gate alone; empty: all
  std::string launch, comm;  // what starts ranks as processes, and carries their messages; empty: threads
  int threads = 0;           // 0, and an empty isa: as the suite says
  int jobs = 0;              // plans judged at once; 0: one per core, at most eight
  int most_ranks = 0;        // 0: as the suite says
};
void add_suite(CLI::App&, SuiteOptions&);

// UserError: a launcher started several sweeps or gates.
void check_one_sweep();

// A suite and the plans of it that were asked for.
struct Chosen {
  Suite suite;
  Enumeration all;
};
// to_list: none is to run, so that there may be none, and this machine need have nothing for them.
// UserError: what the suite's file has wrong, kernels that this machine has not, or no plan that may run.
Chosen chosen_plans(const SuiteOptions&, bool to_list = false);

}  // namespace lockstep
