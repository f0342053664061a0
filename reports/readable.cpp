#include "reports/readable.hpp"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ref/error.hpp"
#include "reports/h5.hpp"
#include "reports/seal.hpp"

namespace lockstep {
namespace {

constexpr int kDeepest = 8;  // a file's groups may hold themselves

// What is wrong in another way is said by who reads the file next.
template <class F>
bool well(const F& f) {
  try {
    f();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

void read_all(const h5::Reader& file, const std::string& group, int depth) {
  std::vector<std::string> names;
  well([&] { names = file.list(group); });
  for (const std::string& name : names) {
    const std::string path = (group == "/" ? "" : group) + "/" + name;
    const bool array =
        well([&] { file.holds_strings(path) ? void(file.strings(path)) : void(file.numbers<double>(path)); });
    if (!array && depth < kDeepest) read_all(file, path, depth + 1);
  }
}

}  // namespace

void check_readable(const std::string& path) {
  if (has_seal(path)) return;
  const pid_t child = fork();
  if (child < 0) return;  // no room for a second process: as good as it gets
  if (child == 0) {
    well([&] {
      const h5::Reader file(path);
      read_all(file, "/", 0);
      for (const std::string& name : file.attributes()) well([&] { file.attribute(name); });
    });
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status))
    throw UserError(fmt::format("'{}' is damaged: HDF5's library itself ends at it ({}); write it anew", path,
                                strsignal(WTERMSIG(status))));
}

}  // namespace lockstep
