#include "suites/run/machine_memory.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace lockstep {

i64 resident_bytes(pid_t pid) {
  std::ifstream file(pid > 0 ? fmt::format("/proc/{}/statm", pid) : "/proc/self/statm");
  i64 total = 0, resident = 0;  // pages
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

i64 machine_bytes() {
  i64 bytes = static_cast<i64>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  // Version 2 and version 1 of control groups, as a container sees its own; "max" is no number.
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (i64 limit = 0; std::ifstream(path) >> limit && limit > 0) bytes = std::min(bytes, limit);
  return bytes;
}

i64 out_of_memory_kills() {
  std::ifstream file("/proc/vmstat");
  i64 value = 0;
  for (std::string name; file >> name >> value;)
    if (name == "oom_kill") return value;
  return 0;
}

}  // namespace lockstep
