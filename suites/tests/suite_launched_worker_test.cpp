// What is heard of a job: its launcher here is a shell script, which says what rank 0 would.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>

#include "suites/sweep/job_command.hpp"
#include "suites/sweep/launched_worker.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

using End = Answer::End;

Answer ask(LaunchedWorker& worker, const std::string& request) {
  worker.begin(request);
  for (;;)
    if (const auto answer = worker.glance(20)) return *answer;
}

// Whether a child of this process has ended, and waits for somebody to look.
bool has_ended(pid_t pid) {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

std::string shell(const std::string& script) { return "sh -c '" + script + "'"; }

// "lockstep-ready", then for each line it reads the bytes "A" and its number of lines so far, 0 to 9.
const std::string kAnswers =
    "echo lockstep-ready 1 x here; n=0; while read line; do n=$((n + 1)); echo $line >>$log; "
    "echo a library says; echo lockstep-answer 413$n; done; echo end >>$log";

TEST(Hexadecimal, KeepsEveryByte) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(hexadecimal(std::string("\0\x0f\xff", 3)), "000fff");
  EXPECT_EQ(from_hexadecimal(hexadecimal(all)), all);
  EXPECT_THROW(from_hexadecimal("0"), std::invalid_argument);
  EXPECT_THROW(from_hexadecimal("0g"), std::invalid_argument);
}

// As a shell reads it: a path may hold what a shell has a use for.
TEST(JobCommand, PathsAreOneWordEach) {
  Suite suite;
  suite.path = "it's \"here\"/$a b.toml", suite.launch = "printf '%s\\n' {ranks}", suite.comm = "mpi";
  FILE* const said = popen(job_command(suite, 4, true, "kept's").c_str(), "r");
  std::string words(4096, '\0');
  words.resize(std::fread(words.data(), 1, words.size(), said));
  EXPECT_EQ(pclose(said), 0);
  EXPECT_TRUE(says(words, "\njob\nit's \"here\"/$a b.toml\n--ranks\n4\n", "\n--reference\nkept's\n"));
}

TEST(LaunchedWorker, OneJobAnswersOneRequestAfterAnother) {
  const TemporaryFolder folder;
  const std::string log = folder.path() + "/log";
  {
    LaunchedWorker worker("env log=" + log + " " + shell(kAnswers), 60);
    const Answer first = ask(worker, "dp=1 tp=2"), second = ask(worker, "dp=2");
    EXPECT_EQ(first.end, End::answered);
    EXPECT_EQ(first.text, "A1");
    EXPECT_EQ(second.text, "A2");
  }
  // It ends by itself when there is nothing more to read.
  std::stringstream text;
  text << std::ifstream(log).rdbuf();
  EXPECT_EQ(text.str(), "dp=1 tp=2\ndp=2\nend\n");
}

TEST(LaunchedWorker, AJobThatNeverWasReadyIsTheUsersToMend) {
  LaunchedWorker silent(shell("exit 7"), 60),
      spoken(shell("echo noise >&2; echo lockstep: no GPU >&2; exit 2"), 60);
  EXPECT_TRUE(says(refusal([&] { ask(silent, "dp=2"); }), "no job began", "exit 7", "exit status 7"));
  const std::string why = refusal([&] { ask(spoken, "dp=2"); });
  EXPECT_TRUE(says(why, "exit status 2; it said: no GPU"));
  EXPECT_EQ(why.find("noise; "), std::string::npos);
}

TEST(LaunchedWorker, AMistakeThatTheFirstPlanShowsIsTheUsersToo) {
  const std::string refuses = "echo lockstep: no room in scratch >&2; exit 2";
  LaunchedWorker first(shell("echo lockstep-ready x; read line; " + refuses), 60);
  EXPECT_TRUE(
      says(refusal([&] { ask(first, "dp=2"); }), "refused its first plan; it said: no room in scratch"));
  LaunchedWorker second(
      shell("echo lockstep-ready x; read line; echo lockstep-answer 41; read line; " + refuses), 60);
  EXPECT_EQ(ask(second, "dp=2").text, "A");
  EXPECT_EQ(ask(second, "dp=2").end, End::crashed);
}

TEST(LaunchedWorker, HowItEndedIsSaidAndANewJobAnswersTheNext) {
  const TemporaryFolder folder;
  const std::string once = "echo lockstep-ready x; read line; if [ ! -e " + folder.path() +
                           "/x ]; then touch " + folder.path() + "/x; ";
  const std::string then = "; fi; echo lockstep-answer 41; read line";
  const auto crash = [&](const std::string& how) {
    std::filesystem::remove(folder.path() + "/x");
    LaunchedWorker worker(shell(once + how + then), 60);
    const Answer bad = ask(worker, "dp=2");
    EXPECT_EQ(ask(worker, "dp=2").text, "A");
    return bad;
  };
  const Answer left = crash("echo noise >&2; echo lockstep: rank 3 on n7: out of luck >&2; exit 3");
  EXPECT_EQ(left.end, End::crashed);
  EXPECT_EQ(left.text, "the job ended with exit status 3; it said: rank 3 on n7: out of luck");
  EXPECT_EQ(crash("echo lockstep: rank 0 on n1: std::bad_alloc >&2; exit 3").end, End::out_of_memory);
  EXPECT_EQ(crash("echo lockstep: rank 0 on n1: no memory for tea >&2; exit 3").end, End::out_of_memory);
  EXPECT_EQ(crash("kill -9 $$").end, End::killed);
  const Answer signal = crash("kill -11 $$");
  EXPECT_EQ(signal.end, End::crashed);
  EXPECT_TRUE(says(signal.text, "Segmentation fault"));
  EXPECT_TRUE(says(crash("echo the launcher has words >&2; exit 1").text, "it said: the launcher has words"));
  EXPECT_TRUE(says(crash("echo lockstep-answer 4x").text, "damaged"));
}

// A launcher that is told to end has processes to end, elsewhere too: it gets the time for that.
TEST(LaunchedWorker, AHangIsEndedWithWordsFirst) {
  const TemporaryFolder folder;
  const std::string told = folder.path() + "/told";
  LaunchedWorker worker(shell("trap \"touch " + told +
                              "; exit 1\" TERM; echo lockstep-ready x; "
                              "while :; do sleep 0.01; done"),
                        0.3);
  const Answer answer = ask(worker, "dp=2");
  EXPECT_EQ(answer.end, End::timeout);
  EXPECT_TRUE(says(answer.text, "no end after 0.3 s"));
  EXPECT_TRUE(std::filesystem::exists(told));
}

// As `mpirun --tag-output` and `srun --label` have it, and a library that ends no line.
TEST(LaunchedWorker, LinesMayBeginWithSomethingElse) {
  LaunchedWorker worker(shell("echo \"[1,0]<stdout>:lockstep-ready 1 x here\"; read line; printf working...; "
                              "echo lockstep-answer 41; read line"),
                        60);
  EXPECT_EQ(ask(worker, "dp=2").text, "A");
}

TEST(LaunchedWorker, AJobThatEndedAfterItsAnswerCostsNoPlan) {
  LaunchedWorker worker(shell("echo lockstep-ready x; read line; echo lockstep-answer 41"), 60);
  EXPECT_EQ(ask(worker, "dp=1").text, "A");
  while (kill(worker.pid(), 0) == 0 && !has_ended(worker.pid())) {
  }
  EXPECT_EQ(ask(worker, "dp=2").text, "A");
}

TEST(LaunchedWorker, WhoeverHoldsItsOutputIsNotWaitedFor) {
  LaunchedWorker worker(shell("echo lockstep-ready x; read line; sleep 100 & exit 3"), 60);
  EXPECT_TRUE(says(ask(worker, "dp=2").text, "exit status 3"));
}

TEST(LaunchedWorker, AQueueMayBeGivenUp) {
  bool given_up = false;
  LaunchedWorker worker("sleep 100", 60, [&] { return given_up; });
  worker.begin("dp=2");
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(worker.glance(10));
  given_up = true;
  const auto answer = worker.glance(10);
  ASSERT_TRUE(answer);
  EXPECT_TRUE(says(answer->text, "given up before its job began"));
}

// The time before a job is ready is its queue's.
TEST(LaunchedWorker, TimeBeginsWhenTheJobIsReady) {
  LaunchedWorker worker(
      shell("sleep 1; echo lockstep-ready x; read line; echo lockstep-answer 41; read line"), 0.5);
  EXPECT_EQ(ask(worker, "dp=2").text, "A");
}

}  // namespace
}  // namespace lockstep
