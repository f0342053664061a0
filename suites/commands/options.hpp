// Options that several commands share.
#pragma once
#include <string>

#include "parallel/plan.hpp"

namespace CLI {
class App;
}

namespace lockstep {

void add_settings(CLI::App&, Settings&);  // one option per entry of settings_list()
void add_dtype(CLI::App&, Settings&);
void add_plan_words(CLI::App&);               // all words of a plan, in the help
void add_plan(CLI::App&, std::string& plan);  // and those
// The folder of files for what a plan keeps on disk. here: it must be one of this host's.
void add_scratch(CLI::App&, std::string& folder, bool here = true);
void add_device(CLI::App&, std::string& device);
void add_graphs(CLI::App&, bool& graphs);
void check_graphs(bool graphs, const std::string& device);  // UserError: the device knows none
void add_comm(CLI::App&, std::string& comm);
void add_kernels(CLI::App&, std::string& isa, int& threads);

// UserError: a word nobody knows, or a plan that breaks a rule.
Plan legal_plan(const std::string& line, const ModelConfig&, const Settings&);

}  // namespace lockstep
