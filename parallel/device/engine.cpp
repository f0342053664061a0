#include "parallel/device/engine.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>

#include "parallel/comm/beside.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

Accelerator& open(const std::string& device) {
  if (device != "cuda")
    throw UserError(fmt::format("there is no device '{}'; it can be cpu or cuda", device));
  using Entry = Accelerator*(std::string & complaint);
  const auto entry = reinterpret_cast<Entry*>(entry_beside(
      "lockstep_cuda.so", "lockstep_cuda", RTLD_LOCAL,
      "device cuda is not there: this program was built without CUDA ({} does not exist); install the CUDA "
      "toolkit, so that nvcc is found, and run make again",
      "device cuda cannot be used here"));
  std::string complaint;
  Accelerator* found = entry(complaint);
  if (!found) throw UserError("device cuda cannot be used here: " + complaint);
  return *found;
}

}  // namespace

Accelerator& accelerator(const std::string& device) {
  static std::mutex mutex;
  static Accelerator* known = nullptr;  // there is one kind
  const std::lock_guard lock(mutex);
  if (!known) known = &open(device);
  return *known;
}

std::string why_no_device(const std::string& device) {
  if (device == "cpu") return {};
  int ends[2];
  if (pipe(ends) < 0) return "no pipe to ask for device " + device;
  const pid_t child = fork();
  if (child == 0) {
    std::string said;
    try {
      accelerator(device);
    } catch (const std::exception& e) {
      said = e.what();
    }
    const ssize_t sent = write(ends[1], said.data(), said.size());
    _exit(sent == static_cast<ssize_t>(said.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string said;
  char buffer[512];
  for (ssize_t n; child > 0 && (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 1;
  if (child > 0) waitpid(child, &status, 0);
  if (status != 0 && said.empty()) said = "device " + device + " cannot be used here: its driver crashed";
  return said;
}

}  // namespace lockstep
