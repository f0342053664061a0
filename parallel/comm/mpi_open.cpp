#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

#include "parallel/comm/mpi.hpp"
#include "ref/error.hpp"

namespace lockstep {

int with_mpi(const std::function<int(MpiWorld&)>& body) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const std::string path = folder / "lockstep_mpi.so";
  if (!std::filesystem::exists(path))
    throw UserError(fmt::format(
        "this program was built without MPI ({} is not there); install Open MPI, so that mpicc is "
        "found, and run make again",
        path));
  // Global, since Open MPI opens plugins that look for its symbols. Never closed: they would be gone at exit.
  void* object = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!object) throw UserError(fmt::format("MPI cannot be used here: {}", dlerror()));
  using Entry = int(const std::function<int(MpiWorld&)>&);
  const auto entry = reinterpret_cast<Entry*>(dlsym(object, "lockstep_with_mpi"));
  if (!entry) throw UserError(fmt::format("{} is not of this program; run make again", path));
  return entry(body);
}

}  // namespace lockstep
