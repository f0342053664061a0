// The sentences are made before anything happens: a handler may write, but not format.
#include "parallel/comm/mpi/fatal_signals.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>

namespace lockstep {
namespace {

struct Fatal {
  int signal;
  std::string sentence;
  struct sigaction before;
};
std::array<Fatal, 5> fatal{
    {{SIGSEGV, {}, {}}, {SIGBUS, {}, {}}, {SIGFPE, {}, {}}, {SIGILL, {}, {}}, {SIGABRT, {}, {}}}};
volatile std::sig_atomic_t quiet = 0;

void handle(int signal, siginfo_t* info, void*) {
  for (const Fatal& f : fatal) {
    if (f.signal != signal) continue;
    if (!quiet && write(STDERR_FILENO, f.sentence.data(), f.sentence.size()) < 0) quiet = 1;
    sigaction(signal, &f.before, nullptr);
  }
  // What the processor refused is tried again, and refused again; what was sent is sent again.
  if (info->si_code <= 0) std::raise(signal);
}

}  // namespace

void name_rank_in_death(const std::string& who) {
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  for (Fatal& f : fatal) {
    f.sentence = fmt::format("lockstep: {}: ended by signal {} ({})\n", who, f.signal, strsignal(f.signal));
    sigaction(f.signal, &action, &f.before);
  }
}

void die_quietly() { quiet = 1; }

}  // namespace lockstep
