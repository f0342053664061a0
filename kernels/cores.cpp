#include "kernels/cores.hpp"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string_view>
#include <thread>
#include <utility>

namespace lockstep {

namespace {

std::vector<int> bound_to() {
  std::vector<int> numbers;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return numbers;  // more cores than a set has places
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &set)) numbers.push_back(i);
  return numbers;
}

}  // namespace

std::vector<int> core_numbers() {
  std::vector<int> numbers = bound_to();
  // Hyperthreads of one core beside each other: often their numbers are half of all apart.
  std::map<int, int> core;
  for (const int i : numbers) {
    core[i] = i;
    std::ifstream("/sys/devices/system/cpu/cpu" + std::to_string(i) + "/topology/thread_siblings_list") >>
        core[i];
  }
  std::stable_sort(numbers.begin(), numbers.end(), [&](int a, int b) { return core[a] < core[b]; });
  return numbers;
}

std::vector<int> cores_of_part(const std::vector<int>& cores, int part, int parts) {
  const std::size_t n = cores.size(), p = static_cast<std::size_t>(part),
                    all = static_cast<std::size_t>(parts);
  if (n == 0) return {};
  const std::size_t begin = p * n / all, end = std::max(begin + 1, (p + 1) * n / all);
  return {cores.begin() + static_cast<std::ptrdiff_t>(begin),
          cores.begin() + static_cast<std::ptrdiff_t>(end)};
}

int cores_of_quota(const std::string& root) {
  double quota = 0, period = 0;
  std::ifstream both(root + "/cpu.max");  // "max 100000" where there is none
  if (!(both >> quota >> period)) {
    std::ifstream(root + "/cpu/cpu.cfs_quota_us") >> quota;  // -1 where there is none
    std::ifstream(root + "/cpu/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period)) : 0;
}

std::string processor_name(const std::string& cpuinfo) {
  // Arm's say who designed the core and its number: Linux, arch/arm64/include/asm/cputype.h.
  static const std::map<std::pair<std::string, std::string>, const char*> arm = {
      {{"0x41", "0xd0c"}, "Neoverse N1"}, {{"0x41", "0xd40"}, "Neoverse V1"},
      {{"0x41", "0xd49"}, "Neoverse N2"}, {{"0x41", "0xd4f"}, "Neoverse V2"},
      {{"0x41", "0xd84"}, "Neoverse V3"}, {{"0x41", "0xd8e"}, "Neoverse N3"},
      {{"0x46", "0x001"}, "A64FX"},
  };
  std::ifstream info(cpuinfo);
  std::string implementer, part;
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string_view key =
        std::string_view(line).substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const std::string value = line.substr(colon + 2);
    if (key == "model name") return value;
    if (key == "CPU implementer") implementer = value;
    if (key == "CPU part") part = value;
  }
  if (const auto known = arm.find({implementer, part}); known != arm.end()) return known->second;
  return implementer.empty() ? "unknown" : "Arm, implementer " + implementer + ", part " + part;
}

int cores() {
  static const int quota = cores_of_quota("/sys/fs/cgroup");
  int n = static_cast<int>(bound_to().size());
  if (n == 0) n = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return quota > 0 ? std::min(n, quota) : n;
}

}  // namespace lockstep
