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
bool is_folder_to_write(const std::string& path);
// UserError: what an option names (nothing, if that is empty) cannot be written. Asked before the work, not
// after.
void check_file(const std::string& option, const std::string& path);
// The folder of files for what a plan keeps on disk. here: it must be one of this host's.
void add_scratch(CLI::App&, std::string& folder, bool here = true);
void add_device(CLI::App&, std::string& device);
void add_graphs(CLI::App&, bool& graphs);
void check_graphs(bool graphs, const std::string& device);  // UserError: the device knows none
// The accelerator of that name, null for "cpu". In this process and none that it forks later.
class Accelerator* device_here(const std::string& device);
// UserError: a device that is not here. This process stays without its driver.
void check_device(const std::string& device);
void add_comm(CLI::App&, std::string& comm);
// UserError: a plan of so many ranks is not for this job; of none, any is.
void check_job_size(const class MpiWorld* job, int ranks, const char* command);
// UserError: this is one of several processes that a launcher started, though it is no rank of a job;
// `instead` says what to do.
void check_started_once(const std::string& instead);
// UserError: they do not go together, or what they need is not here; or ranks are threads, and a launcher
// started several processes.
void check_comm(const std::string& comm, const std::string& device);
// What carries messages beside the ranks' own communicator: NCCL, or null unless that is asked for. To be
// asked for before the device is. UserError: no NCCL or no GPU is here.
class Fabrics* fabrics_here(const std::string& comm, const std::string& device);
void add_kernels(CLI::App&, std::string& isa, int& threads);

// UserError: kernels that this machine has not.
void check_isa(const std::string& isa);
// The set of kernels that "auto" means here; any other name as it is.
std::string isa_here(const std::string& isa);
// UserError: a word nobody knows, or a plan that breaks a rule.
Plan legal_plan(const std::string& line, const ModelConfig&, const Settings&);

}  // namespace lockstep
