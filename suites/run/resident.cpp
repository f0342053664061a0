#include "suites/run/resident.hpp"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

namespace lockstep {
namespace {

// The system's own high-water mark, which writing 5 there sets back to what is resident now (proc(5)).
void forget_peak() {
  std::ofstream file("/proc/self/clear_refs");
  if (!(file << "5" << std::flush)) throw std::runtime_error("/proc/self/clear_refs cannot be written to");
}

i64 peak_since() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  throw std::runtime_error("/proc/self/status tells no VmHWM");
}

i64 train(const Run& run, const Launch& how, bool whole) {
  const Prepared p = prepare(run);
  std::barrier meeting(p.mesh.size(), []() noexcept {});
  launch(p, how, [&](RankView v) {
    try {
      v.executor.initialise({});
    } catch (...) {
      meeting.arrive_and_drop();
      throw;
    }
    meeting.arrive_and_wait();
    if (v.rank == 0 && !whole) forget_peak();
    meeting.arrive_and_wait();
    for (i64 k = 0; k < run.settings.steps; ++k) v.executor.step(k);
  });
  return peak_since();
}

}  // namespace

std::optional<i64> peak_resident_bytes(const Run& run, const Launch& how, bool whole) {
  int ends[2];
  if (pipe(ends)) throw std::runtime_error("no pipe can be made");
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("no process can be made");
  i64 bytes = -1;
  if (child == 0) {
    try {
      bytes = train(run, how, whole);
    } catch (const std::exception& e) {
      fmt::print(stderr, "lockstep: {}: {}\n", run.plan.line(), e.what());
      std::fflush(stderr);
    }
    _exit(write(ends[1], &bytes, sizeof bytes) == sizeof bytes ? 0 : 1);
  }
  close(ends[1]);
  if (read(ends[0], &bytes, sizeof bytes) != sizeof bytes) bytes = -1;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return bytes < 0 ? std::nullopt : std::optional(bytes);
}

}  // namespace lockstep
