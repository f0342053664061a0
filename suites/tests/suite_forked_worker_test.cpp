// A worker's process may crash, hang or take all memory: the one that asks it goes on.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <system_error>
#include <thread>

#include "suites/run/machine_memory.hpp"
#include "suites/sweep/forked_worker.hpp"
#include "suites/sweep/launched_worker.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

using End = Answer::End;
constexpr ForkedWorker::Limits kWide{60, i64{1} << 40};

// Whether a process is there and no mere entry of one that has ended.
bool runs(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string number, name, state;
  stat >> number >> name >> state;
  return !state.empty() && state != "Z" && state != "X";
}

// Ends when the process has: soon, or the test has failed.
bool ends_soon(pid_t pid) {
  const auto begin = std::chrono::steady_clock::now();
  while (runs(pid))
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(20)) return false;
  return true;
}

Answer ask(Worker& worker, const std::string& request) {
  worker.begin(request);
  for (;;)
    if (const auto answer = worker.glance(20)) return *answer;
}

[[noreturn]] void spin() {
  for (;;) getppid();
}

// What asking says of it where no file can be opened.
std::string without_files(Worker& worker) {
  rlimit usual;
  getrlimit(RLIMIT_NOFILE, &usual);
  const rlimit none{0, usual.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  std::string said;
  try {
    worker.begin("a");
  } catch (const std::system_error& error) {
    said = error.what();
  }
  setrlimit(RLIMIT_NOFILE, &usual);
  return said;
}

TEST(Workers, WhatTheSystemDoesNotGiveIsSaid) {
  ForkedWorker forked([](const std::string& request) { return request; }, kWide);
  LaunchedWorker launched("true", 60);
  EXPECT_EQ(without_files(forked), "a worker process: no channel to it: Too many open files");
  EXPECT_EQ(without_files(launched), "a job: no channel to it: Too many open files");
  EXPECT_EQ(ask(forked, "b").text, "b");  // and later it is there
}

TEST(ForkedWorker, AnswersOneRequestAfterAnotherInOneProcess) {
  int asked = 0;
  ForkedWorker worker(
      [&](const std::string& request) {
        return request + " " + std::to_string(++asked) + " " + std::to_string(getpid());
      },
      kWide);
  const Answer first = ask(worker, "a");
  const std::string pid = std::to_string(worker.pid());
  EXPECT_NE(pid, std::to_string(getpid()));
  EXPECT_EQ(first.text, "a 1 " + pid);
  EXPECT_EQ(ask(worker, "b").text, "b 2 " + pid);
  EXPECT_EQ(ask(worker, "").text, " 3 " + pid);
  EXPECT_EQ(asked, 0);  // that was the other process's
}

TEST(ForkedWorker, SharesWhatWasMadeBefore) {
  std::vector<float> weights(1 << 20, 1.5f);
  ForkedWorker worker([&](const std::string&) { return std::to_string(weights[12345]); }, kWide);
  weights[12345] = 2;  // the process is not there yet
  EXPECT_EQ(ask(worker, "").text, std::to_string(2.0));
}

// One answers only after the other has: they must work at once.
TEST(ForkedWorker, TwoWorkAtOnce) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ForkedWorker writer([&](const std::string&) { return std::to_string(write(ends[1], "x", 1)); }, kWide);
  ForkedWorker reader(
      [&](const std::string&) {
        char byte;
        return std::to_string(read(ends[0], &byte, 1));
      },
      kWide);
  reader.begin("");
  EXPECT_FALSE(reader.glance(1));
  writer.begin("");
  std::optional<Answer> read_one, wrote_one;
  while (!read_one || !wrote_one) {
    if (!read_one) read_one = reader.glance(1);
    if (!wrote_one) wrote_one = writer.glance(1);
  }
  EXPECT_EQ(read_one->text, "1");
  EXPECT_EQ(wrote_one->text, "1");
  close(ends[0]), close(ends[1]);
}

TEST(ForkedWorker, WhatItSaysMayBeKeptQuiet) {
  ForkedWorker::Limits quiet = kWide;
  quiet.aloud = false;
  ForkedWorker worker(
      [](const std::string&) -> std::string {
        std::fputs("not to be heard", stderr);
        std::abort();
      },
      quiet);
  testing::internal::CaptureStderr();
  const Answer answer = ask(worker, "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_NE(answer.text.find("it said: not to be heard"), std::string::npos) << answer.text;
}

TEST(ForkedWorker, AnswersMayBeLong) {
  const std::string request(3'000'000, 'x');
  ForkedWorker worker([](const std::string& r) { return r + r; }, kWide);
  const Answer answer = ask(worker, request);
  EXPECT_EQ(answer.end, End::answered);
  EXPECT_TRUE(answer.text == request + request);
}

TEST(ForkedWorker, AnExceptionIsSaidAndTheProcessGoesOn) {
  ForkedWorker worker(
      [](const std::string& r) -> std::string {
        if (r == "bad") throw std::runtime_error("rank 3: no such thing");
        return "well";
      },
      kWide);
  const Answer bad = ask(worker, "bad");
  const pid_t pid = worker.pid();
  EXPECT_EQ(bad.end, End::failed);
  EXPECT_EQ(bad.text, "rank 3: no such thing");
  EXPECT_EQ(ask(worker, "good").text, "well");
  EXPECT_EQ(worker.pid(), pid);
}

// Every way for a process to end by itself: what is said of it, and the next request is answered.
struct Crash {
  const char* name;
  std::string (*body)(const std::string&);
  const char* said;
};
class EveryCrash : public testing::TestWithParam<Crash> {};

TEST_P(EveryCrash, IsNamedAndANewProcessAnswersTheNext) {
  ForkedWorker worker(
      [](const std::string& r) { return r == "crash" ? GetParam().body(r) : std::string("well"); }, kWide);
  EXPECT_EQ(ask(worker, "first").text, "well");
  const pid_t before = worker.pid();
  const Answer crash = ask(worker, "crash");
  EXPECT_EQ(crash.end, End::crashed) << crash.text;
  EXPECT_TRUE(says(crash.text, GetParam().said));
  EXPECT_FALSE(runs(before));
  EXPECT_EQ(ask(worker, "next").text, "well");
  EXPECT_NE(worker.pid(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Worker, EveryCrash,
    testing::Values(Crash{"Aborts", [](const std::string&) -> std::string { abort(); }, "Aborted (SIGABRT)"},
                    Crash{"SegmentationFault",
                          [](const std::string&) -> std::string {
                            signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would make it an exit
                            raise(SIGSEGV);
                            return "";
                          },
                          "Segmentation fault (SIGSEGV)"},
                    Crash{"FloatingPoint",
                          [](const std::string&) -> std::string {
                            signal(SIGFPE, SIG_DFL);
                            raise(SIGFPE);
                            return "";
                          },
                          "Floating point exception (SIGFPE)"},
                    Crash{"Leaves", [](const std::string&) -> std::string { _exit(3); }, "exit status 3"},
                    Crash{"LeavesAsIfWell", [](const std::string&) -> std::string { _exit(0); },
                          "exit status 0"}),
    [](const auto& test) { return test.param.name; });

TEST(ForkedWorker, LastWordsAreKept) {
  ForkedWorker worker(
      [](const std::string& r) -> std::string {
        if (r == "speak") std::fprintf(stderr, "a mere remark\n");
        if (r != "die") return "well";
        std::fprintf(stderr, "\nbuffer used\nafter its release\n");
        abort();
      },
      kWide);
  testing::internal::CaptureStderr();
  EXPECT_EQ(ask(worker, "speak").text, "well");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "a mere remark\n");
  EXPECT_EQ(ask(worker, "die").text, "Aborted (SIGABRT); it said: buffer used after its release");
}

TEST(ForkedWorker, AHangIsEndedWithAllThatItStarted) {
  const auto child_file =
      std::filesystem::temp_directory_path() / ("lockstep-child-" + std::to_string(getpid()));
  ForkedWorker worker(
      [&](const std::string& r) -> std::string {
        if (r != "hang") return "well";
        signal(SIGTERM, SIG_IGN);
        if (const pid_t child = fork(); child > 0) {
          std::ofstream(child_file) << child << std::flush;
        }
        std::thread other(spin);  // not only the thread that was asked
        spin();
      },
      {0.5, kWide.bytes});
  const Answer hang = ask(worker, "hang");
  EXPECT_EQ(hang.end, End::timeout);
  EXPECT_TRUE(says(hang.text, "no end after 0.5 s"));
  pid_t child = 0;
  std::ifstream(child_file) >> child;
  EXPECT_GT(child, 0);
  EXPECT_TRUE(ends_soon(child));
  if (child > 0) kill(child, SIGKILL);  // a failing test leaves nothing either
  EXPECT_EQ(ask(worker, "next").text, "well");
  std::filesystem::remove(child_file);
}

TEST(ForkedWorker, TakingMoreMemoryThanAllowedIsEnded) {
  const i64 allowed = resident_bytes() + (i64{64} << 20);
  ForkedWorker worker(
      [](const std::string& r) -> std::string {
        if (r != "eat") return "well";
        std::vector<std::vector<char>> eaten;
        while (eaten.size() < 1024) eaten.emplace_back(1 << 20, 'x');  // 1 GiB, if nobody minds
        return "eaten";
      },
      {60, allowed});
  const Answer eater = ask(worker, "eat");
  EXPECT_EQ(eater.end, End::out_of_memory) << eater.text;
  EXPECT_TRUE(says(eater.text, "GiB were resident"));
  EXPECT_EQ(ask(worker, "next").text, "well");
}

TEST(ForkedWorker, NoMemoryToBeHadIsNoCrash) {
  ForkedWorker worker(
      [](const std::string& r) -> std::string {
        if (r == "ask") throw std::bad_alloc();
        if (r == "say") throw OutOfMemory("rank 3: no memory for tea");
        return "well";
      },
      kWide);
  EXPECT_EQ(ask(worker, "ask").end, End::out_of_memory);
  const Answer eater = ask(worker, "say");
  EXPECT_EQ(eater.end, End::out_of_memory);
  EXPECT_EQ(eater.text, "the system gave it no more memory: rank 3: no memory for tea");
  EXPECT_EQ(ask(worker, "next").text, "well");
}

TEST(ForkedWorker, KilledBySomebodyElseIsNoCrash) {
  ForkedWorker worker(
      [](const std::string& r) -> std::string {
        if (r == "kill") raise(SIGKILL);
        return "well";
      },
      kWide);
  EXPECT_EQ(ask(worker, "kill").end, End::killed);
  EXPECT_EQ(ask(worker, "next").text, "well");
  // Between two requests, too.
  kill(worker.pid(), SIGKILL);
  ASSERT_TRUE(ends_soon(worker.pid()));
  EXPECT_EQ(ask(worker, "next").end, End::killed);
  EXPECT_EQ(ask(worker, "next").text, "well");
}

TEST(ForkedWorker, SignalsToEndAreForTheParent) {
  ForkedWorker worker(
      [](const std::string&) {
        raise(SIGTERM), raise(SIGINT);
        return std::string(getpgrp() == getpid() ? "alone" : "in its parent's group");
      },
      kWide);
  EXPECT_EQ(ask(worker, "").text, "alone");
}

// Where memory runs out the system ends what has the most points, and the sweep is to outlive its plans.
TEST(ForkedWorker, IsEndedForMemoryBeforeItsParent) {
  const auto points = [] {
    int adjusted = -1000;
    std::ifstream("/proc/self/oom_score_adj") >> adjusted;
    return adjusted;
  };
  ForkedWorker worker([&](const std::string&) { return std::to_string(points()); }, kWide);
  EXPECT_GT(std::stoi(ask(worker, "").text), points());
}

TEST(ForkedWorker, NoProcessIsLeftWhenItGoes) {
  pid_t pid = 0;
  {
    ForkedWorker worker([](const std::string&) { return ""; }, kWide);
    ask(worker, "");
    pid = worker.pid();
    EXPECT_TRUE(runs(pid));
  }
  EXPECT_FALSE(runs(pid));
}

// kill -9 of the process that asks: no handler of its own can help.
TEST(ForkedWorker, DiesWithItsParent) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    ForkedWorker worker(
        [&](const std::string&) -> std::string {
          const pid_t me = getpid();
          if (write(pipe_ends[1], &me, sizeof me) < 0) abort();
          spin();
        },
        kWide);
    ask(worker, "");
    _exit(0);
  }
  pid_t worker = 0;
  ASSERT_EQ(read(pipe_ends[0], &worker, sizeof worker), static_cast<ssize_t>(sizeof worker));
  EXPECT_TRUE(runs(worker));
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_TRUE(ends_soon(worker));
  kill(worker, SIGKILL);  // a failing test leaves nothing either
}

}  // namespace
}  // namespace lockstep
