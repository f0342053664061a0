#include "suites/sweep/forked_worker.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>

#include "suites/bytes.hpp"
#include "suites/run/machine_memory.hpp"

namespace lockstep {
namespace {

// A message on the channel: the length of the text, one letter that says what it is, the text.
constexpr char kAnswer = 'a', kFailure = 'f', kNoMemory = 'm';
constexpr std::size_t kHead = sizeof(std::uint64_t) + 1;

std::string packed(char kind, const std::string& text) {
  const std::uint64_t length = text.size();
  std::string bytes(kHead, kind);
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + text;
}

// The message's letter and text, once all of it is there.
std::optional<std::pair<char, std::string>> unpacked(const std::string& bytes) {
  std::uint64_t length = 0;
  if (bytes.size() < kHead) return {};
  std::memcpy(&length, bytes.data(), sizeof length);
  if (bytes.size() < kHead + length) return {};
  return std::pair(bytes[kHead - 1], bytes.substr(kHead, length));
}

bool send_all(int channel, const std::string& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t n = send(channel, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) return false;
    if (n > 0) at += static_cast<std::size_t>(n);
  }
  return true;
}

// Adds what has come; false when the other end is closed.
bool receive_some(int channel, std::string& bytes) {
  char buffer[1 << 16];
  const ssize_t n = recv(channel, buffer, sizeof buffer, 0);
  if (n > 0) bytes.append(buffer, static_cast<std::size_t>(n));
  return n > 0 || (n < 0 && errno == EINTR);
}

// Where this is not allowed it goes without.
void bind(pid_t process, const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  if (!cores.empty()) sched_setaffinity(process, sizeof set, &set);
}

}  // namespace

ForkedWorker::ForkedWorker(Body body, Limits limits) : body_(std::move(body)), limits_(limits) {}
ForkedWorker::~ForkedWorker() {
  if (pid_ < 0) return;
  end();
  words_.take(limits_.aloud);
}

void ForkedWorker::start() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
    not_given("a worker process: no channel to it");
  channel_ = ends[0];
  const int said = words_.open();
  std::fflush(nullptr);  // or both would write what is still in the buffers
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0);  // a terminal's Ctrl-C is for the parent, which decides
    std::signal(SIGINT, SIG_IGN), std::signal(SIGTERM, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);                 // it died before the line above
    std::ofstream("/proc/self/oom_score_adj") << 500;  // if the system must end one of them, not the parent
    dup2(said, STDERR_FILENO);
    close(ends[0]);
    serve(ends[1]);
  }
  close(ends[1]);
  if (pid_ < 0) not_given("a worker process: it cannot be started");
  setpgid(pid_, pid_);  // whoever of the two is first
}

void ForkedWorker::serve(int channel) {
  for (std::string bytes; receive_some(channel, bytes);) {
    const auto request = unpacked(bytes);
    if (!request) continue;
    bytes.clear();
    std::string reply;
    try {
      reply = packed(kAnswer, body_(request->second));
    } catch (const std::bad_alloc& e) {
      reply = packed(kNoMemory, e.what());
    } catch (const std::exception& e) {
      reply = packed(kFailure, e.what());
    }
    if (!send_all(channel, reply)) break;
  }
  _exit(0);  // what is to be done at exit is the parent's
}

void ForkedWorker::begin(const std::string& request) {
  if (pid_ < 0) start();
  bind(pid_, cores_);  // its main thread, whose cores ranks' threads inherit
  kills_before_ = out_of_memory_kills();
  received_.clear();
  lost_ = !send_all(channel_, packed(kAnswer, request));
  asked_ = std::chrono::steady_clock::now();
}

std::optional<Answer> ForkedWorker::glance(int milliseconds) {
  if (lost_) return say_how_it_ended();
  pollfd channel{channel_, POLLIN, 0};
  if (poll(&channel, 1, milliseconds) > 0) {
    if (!receive_some(channel_, received_)) return say_how_it_ended();
    const auto reply = unpacked(received_);
    if (!reply) return {};
    const auto& [kind, text] = *reply;
    if (kind == kNoMemory) {
      end();
      return Answer{Answer::End::out_of_memory,
                    "the system gave it no more memory: " + text + quoted(words_.take(limits_.aloud))};
    }
    const std::string said = quoted(words_.take(limits_.aloud));
    if (kind == kFailure) return Answer{Answer::End::failed, text + said};
    return Answer{Answer::End::answered, text};
  }
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - asked_;
  if (passed.count() > limits_.seconds) {
    end();
    return Answer{Answer::End::timeout, fmt::format("no end after {:.3g} s{}", limits_.seconds,
                                                    quoted(words_.take(limits_.aloud)))};
  }
  if (const i64 bytes_now = resident_bytes(pid_); bytes_now > limits_.bytes) {
    end();
    return Answer{Answer::End::out_of_memory,
                  fmt::format("{:.3g} GiB were resident, {:.3g} are allowed{}", bytes_now / kGiB,
                              limits_.bytes / kGiB, quoted(words_.take(limits_.aloud)))};
  }
  return {};
}

Answer ForkedWorker::say_how_it_ended() {
  const int status = end();
  const std::string said = quoted(words_.take(limits_.aloud));
  if (WIFEXITED(status))
    return {Answer::End::crashed, fmt::format("it left with exit status {}{}", WEXITSTATUS(status), said)};
  const int signal = WTERMSIG(status);
  if (signal == SIGKILL && out_of_memory_kills() > kills_before_)
    return {Answer::End::out_of_memory, "the system ended it for want of memory" + said};
  if (signal == SIGKILL) return {Answer::End::killed, "somebody killed it (SIGKILL)" + said};
  return {Answer::End::crashed, fmt::format("{} (SIG{}){}", strsignal(signal), sigabbrev_np(signal), said)};
}

// A process that has ended keeps its own status: the signal comes too late to change it.
int ForkedWorker::end() {
  if (pid_ < 0) return 0;
  int status = 0;
  kill(-pid_, SIGKILL), kill(pid_, SIGKILL);
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  close(channel_);
  return status;
}

}  // namespace lockstep
