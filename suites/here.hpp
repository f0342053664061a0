// What of this machine a command asks for, before it begins: a device, kernels, messages, places to write to.
#pragma once
#include <string>

namespace lockstep {

bool is_folder_to_write(const std::string& path);
// UserError: what an option names (nothing, if that is empty) cannot be written. Asked before the work, not
// after.
void check_file(const std::string& option, const std::string& path);

// The accelerator of that name, null for "cpu". In this process and none that it forks later.
class Accelerator* device_here(const std::string& device);
// UserError: a device that is not here. This process stays without its driver.
void check_device(const std::string& device);

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

// UserError: kernels that this machine has not.
void check_isa(const std::string& isa);
// The set of kernels that "auto" means here; any other name as it is.
std::string isa_here(const std::string& isa);

}  // namespace lockstep
