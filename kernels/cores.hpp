// The processor's cores that this process may use.
#pragma once
#include <string>
#include <vector>

namespace lockstep {

// As many as it is bound to (by taskset, Slurm, a container's cpuset), and not more than its container's
// quota of time.
int cores();

// The numbers of those that it is bound to, hyperthreads of one core beside each other; empty where the
// system does not tell.
std::vector<int> core_numbers();
// Of n cores those of the part-th of `parts` processes, as even and as near each other as can be; at least
// one.
std::vector<int> cores_of_part(const std::vector<int>& cores, int part, int parts);
// Whole cores that the control group in `root` grants, at least one; 0: as many as there are. Version 2's
// cpu.max or version 1's cpu/cpu.cfs_quota_us.
int cores_of_quota(const std::string& root);

// What the processor is called, by a file like /proc/cpuinfo: "unknown" where that does not tell.
std::string processor_name(const std::string& cpuinfo = "/proc/cpuinfo");

// Of a loop that waits for another core: a moment in which it asks for nothing.
inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // as long as x86's pause; Arm's yield takes no time on most of its cores
#endif
}

}  // namespace lockstep
