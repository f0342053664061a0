#include "parallel/comm/beside.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

#include "ref/error.hpp"

namespace lockstep {

void* entry_beside(const char* object, const char* entry, int flags, const char* missing,
                   const char* unusable) {
  const std::string path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / object;
  if (!std::filesystem::exists(path)) throw UserError(fmt::format(fmt::runtime(missing), path));
  void* opened = dlopen(path.c_str(), RTLD_NOW | flags);
  if (!opened) throw UserError(fmt::format("{}: {}", unusable, dlerror()));
  void* found = dlsym(opened, entry);
  if (!found) throw UserError(fmt::format("{} is not of this program; run make again", path));
  return found;
}

}  // namespace lockstep
