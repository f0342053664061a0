#include "suites/sweep/launched_worker.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

#include "ref/error.hpp"

namespace lockstep {
namespace {

constexpr const char* kOurs = "lockstep: ";  // begins what a rank complains of
// A launcher that is told to end has ranks on other machines to end first.
constexpr int kUsersMistake = 2, kUnexpected = 3, kNotFound = 127;  // exit statuses: ours, and the shell's
constexpr double kQuietStart = 5;         // seconds, after which what a launcher says is passed on
constexpr std::size_t kMostQuoted = 200;  // bytes of what a launcher has to say, in a sentence
constexpr double kToEndAlone = 30, kToEndOthers = 10;  // seconds

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  throw std::invalid_argument("no hexadecimal digit");
}

}  // namespace

std::string hexadecimal(const std::string& bytes) {
  std::string digits;
  digits.reserve(2 * bytes.size());
  for (const unsigned char c : bytes)
    digits += "0123456789abcdef"[c >> 4], digits += "0123456789abcdef"[c & 15];
  return digits;
}

std::string from_hexadecimal(const std::string& digits) {
  if (digits.size() % 2 != 0) throw std::invalid_argument("half a byte");
  std::string bytes;
  bytes.reserve(digits.size() / 2);
  for (std::size_t i = 0; i < digits.size(); i += 2)
    bytes += static_cast<char>(digit(digits[i]) << 4 | digit(digits[i + 1]));
  return bytes;
}

LaunchedWorker::LaunchedWorker(std::string command, double seconds, std::function<bool()> given_up)
    : command_(std::move(command)), seconds_(seconds), given_up_(std::move(given_up)) {}

LaunchedWorker::~LaunchedWorker() {
  if (pid_ < 0) return;
  if (!lost_) shutdown(in_, SHUT_WR);
  end(lost_ ? 0 : kToEndAlone);
  words_.take(true);
}

void LaunchedWorker::start() {
  int in[2], out[2];
  // A socket, that writing to it when nobody reads is an error and no signal.
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0 || pipe2(out, O_CLOEXEC) < 0)
    not_given("a job: no channel to it");
  const int said = words_.open();
  in_ = in[0], out_ = out[0];
  received_.clear(), besides_.clear();
  ready_ = lost_ = false;
  std::fflush(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0);                     // a terminal's Ctrl-C is for the parent, which decides
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // which a launcher passes on to its ranks
    if (getppid() != parent) _exit(0);
    std::signal(SIGINT, SIG_DFL), std::signal(SIGTERM, SIG_DFL);
    dup2(in[1], STDIN_FILENO), dup2(out[1], STDOUT_FILENO), dup2(said, STDERR_FILENO);
    execl("/bin/sh", "sh", "-c", ("exec " + command_).c_str(), nullptr);
    _exit(127);
  }
  close(in[1]), close(out[1]);
  if (pid_ < 0) not_given("a job: it cannot be started");
  setpgid(pid_, pid_);  // whoever of the two is first
}

void LaunchedWorker::begin(const std::string& request) {
  const std::string line = request + "\n";
  const auto take = [&] {
    if (pid_ < 0) start();
    return send(in_, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size());
  };
  const bool is_new = pid_ < 0;
  lost_ = !take();
  if (lost_ && !is_new) {  // it ended since its last answer: no fault of this request's
    end(0);
    words_.take(true);
    lost_ = !take();
  }
  asked_ = Clock::now();
}

std::optional<Answer> LaunchedWorker::glance(int milliseconds) {
  if (lost_) return say_how_it_ended();
  pollfd channel{out_, POLLIN, 0};
  if (poll(&channel, 1, milliseconds) > 0) {
    char buffer[1 << 16];
    const ssize_t n = read(out_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) return {};
    if (n <= 0) return say_how_it_ended();
    for (ssize_t i = 0; i < n; ++i) {
      if (buffer[i] != '\n') {
        received_ += buffer[i];
      } else {
        const std::string line = std::exchange(received_, "");
        if (auto answer = hear(line)) return answer;  // nothing follows one that was not asked for
      }
    }
    return {};
  }
  const double passed = std::chrono::duration<double>(Clock::now() - asked_).count();
  if (launcher_has_ended()) return say_how_it_ended();  // and left somebody who holds its output
  if (ready_ && passed > seconds_) {
    end(0);
    return Answer{Answer::End::timeout, fmt::format("no end after {:.3g} s{}", seconds_, words())};
  }
  if (ready_) return {};
  if (given_up_ && given_up_()) {
    end(0);
    return Answer{Answer::End::crashed, "given up before its job began" + words()};
  }
  if (passed > kQuietStart) besides_ += words_.take(true);  // "queued and waiting for resources"
  return {};
}

std::optional<Answer> LaunchedWorker::hear(const std::string& line) {
  // A launcher may put a tag before each line, and a library words without an end.
  const std::size_t ready = line.find(kJobReady), answer = line.find(kJobAnswer);
  if (ready != std::string::npos) {
    ready_ = true;
    asked_ = Clock::now();  // the time before was the launcher's, or a queue's
    return {};
  }
  if (answer == std::string::npos) {
    besides_ += line + "\n";
    return {};
  }
  words_.take(true);
  besides_.clear();
  answered_ = true;
  try {
    return Answer{Answer::End::answered, from_hexadecimal(line.substr(answer + std::strlen(kJobAnswer)))};
  } catch (const std::invalid_argument&) {
    end(0);
    return Answer{Answer::End::crashed, kDamaged};
  }
}

bool LaunchedWorker::launcher_has_ended() const {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid_;
}

Answer LaunchedWorker::say_how_it_ended() {
  const int status = end(kToEndOthers);
  const std::string said = words();
  const std::string how = WIFEXITED(status) ? fmt::format("exit status {}", WEXITSTATUS(status))
                                            : fmt::format("{}", strsignal(WTERMSIG(status)));
  if (!ready_) {
    // A rank's own complaint, and a program that the shell did not find, have nothing to do with numbers.
    const int left = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    const bool full = left != kUsersMistake && left != kUnexpected && left != kNotFound;
    throw UserError(fmt::format("no job began: `{}` ended with {}{}{}", command_, how, said,
                                full ? "; --limit-ranks N leaves plans of more than N ranks out" : ""));
  }
  if (!answered_ && WIFEXITED(status) && WEXITSTATUS(status) == kUsersMistake)
    throw UserError(fmt::format("the job refused its first plan{}", said));
  if (said.find("std::bad_alloc") != std::string::npos ||
      (said.starts_with("; it said: rank ") && said.find(": no memory for ") != std::string::npos))
    return {Answer::End::out_of_memory, "the system gave a rank no more memory" + said};
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    return {Answer::End::killed, "somebody killed the launcher" + said};
  // A rank that crashes gives its launcher another status: this job was about to end and did not hear.
  if (answered_ && WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return {Answer::End::killed, "the job ended by itself" + said};
  return {Answer::End::crashed, fmt::format("the job ended with {}{}", how, said)};
}

int LaunchedWorker::end(double patience) {
  if (pid_ < 0) return 0;
  int status = 0;
  const auto ended = [&](double seconds) {
    const Clock::time_point begin = Clock::now();
    for (;;) {
      const pid_t pid = waitpid(pid_, &status, WNOHANG);
      if (pid == pid_ || (pid < 0 && errno != EINTR)) return true;
      if (std::chrono::duration<double>(Clock::now() - begin).count() > seconds) return false;
      char unread[1 << 12];  // or whoever writes it would wait for ever
      for (pollfd channel{out_, POLLIN, 0};
           poll(&channel, 1, 0) > 0 && read(out_, unread, sizeof unread) > 0;) {
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  };
  if (!ended(patience)) {
    kill(pid_, SIGTERM);
    if (!ended(kToEndOthers)) {
      kill(-pid_, SIGKILL), kill(pid_, SIGKILL);
      while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
      }
    }
  }
  kill(-pid_, SIGKILL);  // what it started here and left
  pid_ = -1;
  close(in_), close(out_);
  return status;
}

std::string LaunchedWorker::words() {
  const std::string all = words_.take(false) + besides_;
  std::string ours, others;
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(kOurs))
      ours += (ours.empty() ? "" : " ") + line.substr(std::strlen(kOurs));
    else if (line.find_first_not_of('-') != std::string::npos)  // mpirun's rulers say nothing
      others += line + "\n";
  }
  if (!ours.empty()) return quoted(ours);
  if (others.size() <= kMostQuoted) return quoted(others);
  std::fputs(all.c_str(), stderr);
  return ready_ ? quoted(others) : "; what it said is above";
}

}  // namespace lockstep
