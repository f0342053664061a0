#include "suites/here.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "kernels/ops.hpp"
#include "parallel/comm/fabric.hpp"
#include "parallel/comm/mpi.hpp"
#include "parallel/device/engine.hpp"
#include "ref/error.hpp"
#include "ref/write_aside.hpp"

namespace lockstep {

bool is_folder_to_write(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error) && access(path.c_str(), W_OK | X_OK) == 0;
}

void check_file(const std::string& option, const std::string& named) {
  std::error_code error;
  if (std::filesystem::is_directory(named, error))
    throw UserError(fmt::format("{} {}: it is a folder; name a file in it", option, named));
  if (named.empty() || is_no_file(named)) return;  // a pipe's reader would take this for the end
  const std::string path = place_of(named);
  const bool was_there = std::filesystem::exists(path, error);
  if (!std::ofstream(path, std::ios::app))
    throw UserError(fmt::format("{} {}: {}; name a file in a folder that can be written to", option, path,
                                std::strerror(errno)));
  if (!was_there) std::filesystem::remove(path, error);
}

Accelerator* device_here(const std::string& device) {
  return device == "cpu" ? nullptr : &accelerator(device);
}

void check_device(const std::string& device) {
  if (const std::string why = why_no_device(device); !why.empty()) throw UserError(why);
}

void check_job_size(const MpiWorld* job, int ranks, const char* command) {
  if (job && job->size() != ranks)
    throw UserError(
        fmt::format("the plan needs {0} ranks, but the job has {1}: mpirun -n {0} lockstep {2} ...", ranks,
                    job->size(), command));
}

namespace {

// By the innermost launcher's word. Slurm's is of the step: a job's own script is one process, for how many
// tasks ever the job asked.
int processes_started() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"})
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return 1;
}

}  // namespace

void check_started_once(const std::string& instead) {
  if (const int started = processes_started(); started > 1)
    throw UserError(fmt::format(
        "a launcher started {} processes, and each would do all of this by itself; {}", started, instead));
}

void check_comm(const std::string& comm, const std::string& device) {
  if (comm == "local") check_started_once("for each to be a rank give --comm mpi");
  if (comm == "nccl" && device != "cuda")
    throw UserError(
        fmt::format("--comm nccl carries messages between GPUs: it needs device cuda, not {}", device));
  // A process that mpirun did not start complains before MPI begins, which would add its own words.
  if (!std::getenv("OMPI_COMM_WORLD_SIZE") && !std::getenv("PMI_SIZE") && !std::getenv("PMIX_RANK"))
    fabrics_here(comm, device);
}

Fabrics* fabrics_here(const std::string& comm, const std::string& device) {
  if (comm != "nccl") return nullptr;
  Fabrics& found = nccl();
  check_device(device);
  return &found;
}

void check_isa(const std::string& isa) {
  try {
    cpu_ops(isa);
  } catch (const std::invalid_argument& e) {
    throw UserError(e.what());
  }
}

std::string isa_here(const std::string& isa) {
  if (isa != "auto") return isa;
  std::string fastest = "plain";  // sets are sorted by speed
  for (const KernelSet* set : kernel_sets())
    if (set->runs_here()) fastest = set->name;
  return fastest;
}

}  // namespace lockstep
