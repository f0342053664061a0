// The nccl communicator's watch: a thread that asks, some times a second, whether anything under way has been
// done and whether NCCL has met an error. Nothing else would: the host waits for no message, and a kernel
// that waits for a peer which will never come runs for ever.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "parallel/comm/nccl.hpp"

namespace lockstep {
namespace {

// Without destructors and without MPI's good-bye: both could wait for what is stuck. With the process its GPU
// work ends, and mpirun ends the job of a process that goes so.
[[noreturn]] void end_process(int rank, const std::string& why) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  std::fflush(stdout);
  std::fputs(fmt::format("lockstep: rank {} on {}: {}\n", rank, host, why).c_str(), stderr);
  std::fflush(stderr);
  std::_Exit(3);
}

}  // namespace

void NcclComm::watch(const std::stop_token& stop) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  const std::chrono::duration<double> pause(std::min(0.1, patience_ / 8));
  std::unique_lock lock(mutex_);
  for (;;) {
    ended_.wait_for(lock, stop, pause, [] { return false; });
    if (stop.stop_requested()) return;
    std::string why;
    try {
      why = look(std::chrono::duration<double>(Clock::now() - begin).count());
    } catch (const std::exception& e) {
      why = e.what();
    }
    if (why.empty()) continue;
    failure_ = why;
    lock.unlock();
    if (!options_.give_up) end_process(rank_, why);
    options_.give_up(why);
    return;
  }
}

// Empty, or why nothing can go on.
std::string NcclComm::look(double seconds) {
  if (const std::string error = fabric_.error(); !error.empty()) {
    const std::string what = stuck();
    return "NCCL: " + error + (what.empty() ? "" : ", while waiting for " + what);
  }
  bool moved = std::exchange(moved_, false), waiting = !doing_.empty();
  for (Entry& e : entries_) {
    if (!e.flying) continue;
    if (fabric_.passed(e.done)) e.flying = false, moved = true;
    waiting |= e.flying;
  }
  if (moved || !waiting) since_ = seconds;
  if (seconds - since_ <= patience_) return {};
  const std::string what = stuck();
  return fmt::format("nothing has moved for {} s while {}", patience_,
                     what.empty() ? doing_ : "waiting for " + what);
}

// Before the rank's thread calls what may wait on the host: set-up and the end.
void NcclComm::about_to(const std::string& what) {
  const std::lock_guard lock(mutex_);
  doing_ = what;
  moved_ = true;
}

// Of each channel the operation that is at its head, those first whose kernels are done: the others are
// late because of them.
std::string NcclComm::stuck() const {
  std::vector<const Entry*> heads;
  for (const Entry& e : entries_) {
    if (!e.flying) continue;
    const auto same =
        std::find_if(heads.begin(), heads.end(), [&](const Entry* h) { return h->channel == e.channel; });
    if (same == heads.end())
      heads.push_back(&e);
    else if (e.serial < (*same)->serial)
      *same = &e;
  }
  const auto ready = [&](const Entry* e) { return fabric_.passed(e->ready); };
  if (std::any_of(heads.begin(), heads.end(), ready))
    heads.erase(std::remove_if(heads.begin(), heads.end(), [&](const Entry* e) { return !ready(e); }),
                heads.end());
  std::sort(heads.begin(), heads.end(), [](const Entry* a, const Entry* b) { return a->serial < b->serial; });
  std::string text;
  for (const Entry* e : heads)
    text += (text.empty() ? "" : "; ") + describe(e->stated.message, group_of(e->stated.message));
  return text;
}

void NcclComm::go_on_only_if_sound() const {
  const std::lock_guard lock(mutex_);
  if (!failure_.empty()) throw CommError(failure_);
}

}  // namespace lockstep
