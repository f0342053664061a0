// A sweep may be ended at any moment, and so may the process that runs its plans: what was finished stays,
// and the same command goes on to the record that an undisturbed sweep makes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "reports/h5.hpp"
#include "reports/record.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Processes whose command line names this folder.
std::vector<pid_t> processes_in(const std::string& folder) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos || std::stoi(name) == getpid()) continue;
    if (read(entry.path() / "cmdline").find(folder) != std::string::npos) found.push_back(std::stoi(name));
  }
  return found;
}

// The plans that a journal's lines with this word name.
std::vector<std::string> plans_of(const std::string& journal, const std::string& word) {
  std::vector<std::string> plans;
  for (std::size_t at = 0; (at = journal.find(word, at)) != std::string::npos;) {
    at += word.size();
    plans.push_back(journal.substr(at, journal.find_first_of(":\n", at) - at));
  }
  return plans;
}

// Waits for something that must come soon.
template <class Condition>
bool soon(const Condition& condition) {
  const Clock::time_point begin = Clock::now();
  while (!condition())
    if (Clock::now() - begin > std::chrono::seconds(60)) return false;
  return true;
}

// Everything of a plan but what a clock or the system's memory says.
std::string lasting_part(PlanRecord p) {
  p.step_seconds.clear();
  p.tokens_per_second = p.median_spread = p.wall_seconds = 0, p.resident_bytes = 0;
  p.measured_timeline.clear();
  return bytes_of(p);
}

// By file name. Every file must be whole.
std::map<std::string, std::string> plans_in(const std::string& out) {
  std::map<std::string, std::string> plans;
  for (const auto& entry : fs::directory_iterator(out + "/plans"))
    if (entry.path().extension() == ".h5")
      plans[entry.path().filename()] =
          lasting_part(read_plan(h5::Reader(entry.path()).attribute("identity"), entry.path()));
  return plans;
}

class Sweeping : public testing::Test {
 protected:
  Sweeping() {
    suite_ = folder_.write(
        "kill.toml",
        suite_text("batch = 8\nseq = 16\nclip = 0.5\nlr = 0.01\nwarmup = 1\n"
                   "steps = 2\ntimed_steps = 1\ntimed_steps_most = 2\n[axes]\ndp = [1, 2]\npp = [1, 2]\n"
                   "ckpt = [\"none\", \"full\"]\n"));  // 8 plans
  }

  // Runs the sweep to its end; its exit status, and what it said in log().
  int sweep(const std::string& out, const std::string& more = "") {
    const Ended ended = lockstep_program("sweep " + suite_ + " --out " + out + " " + more);
    log_ = ended.out + ended.err;
    return ended.status;
  }
  // Starts it and returns at once.
  pid_t start(const std::string& out) {
    const std::string program = (fs::read_symlink("/proc/self/exe").parent_path() / "lockstep").string();
    const pid_t pid = fork();
    if (pid == 0) {
      for (const int fd : {STDOUT_FILENO, STDERR_FILENO})
        dup2(open((out + ".log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666), fd);
      execl(program.c_str(), "lockstep", "sweep", suite_.c_str(), "--out", out.c_str(), nullptr);
      _exit(127);
    }
    return pid;
  }
  // The process at work for a sweep; 0: none just now.
  pid_t worker_of(pid_t sweeper, const std::string& out) {
    for (const pid_t pid : processes_in(out))
      if (pid != sweeper) return pid;
    return 0;
  }
  // Waits until the sweep has finished this many plans.
  bool comes_to(const std::string& out, int plans) {
    return soon([&] { return count(read(out + "/journal"), " ended ") >= plans; });
  }
  static int count(const std::string& text, const std::string& part) {
    int n = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
    return n;
  }
  // What must be so at any moment: files under their own names are whole, and what the journal calls ended
  // has one.
  void check_kept(const std::string& out) {
    if (!fs::exists(out + "/plans")) return;
    const auto plans = plans_in(out);
    std::istringstream journal(read(out + "/journal"));
    for (std::string line; std::getline(journal, line);) {
      const std::size_t at = line.find(" ended ");
      if (at == std::string::npos) continue;
      std::string name = line.substr(at + 7, line.find(':', at) - at - 7) + ".h5";
      std::replace(name.begin(), name.end(), ' ', '_');
      EXPECT_TRUE(plans.count(name)) << name << " ended, and is not kept";
    }
    if (fs::exists(out + "/run.h5")) h5::Reader(out + "/run.h5").strings("/plans/plan");
  }

  const TemporaryFolder folder_;
  std::string suite_, log_;
};

// LOCKSTEP_KILLS=50 for a long run; the moments are spread over a sweep's whole time.
TEST_F(Sweeping, KilledAtAnyMomentLosesNoFinishedPlan) {
  const char* wanted = std::getenv("LOCKSTEP_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 4;
  const Clock::time_point begin = Clock::now();
  ASSERT_EQ(sweep(folder_.path() + "/whole"), 0) << log_;
  const auto whole = Clock::now() - begin;
  const auto undisturbed = plans_in(folder_.path() + "/whole");
  ASSERT_EQ(undisturbed.size(), 8u);

  int survived = 0;
  for (int i = 0; i < kills; ++i) {
    const std::string out = folder_.path() + "/killed" + std::to_string(i);
    const pid_t sweeper = start(out);
    const auto moment = begin - begin + whole * (2 * i + 1) / (2 * kills);
    const Clock::time_point started = Clock::now();
    while (Clock::now() - started < moment && waitpid(sweeper, nullptr, WNOHANG) == 0) usleep(500);
    // Of every three the third is first deprived of its worker, and goes on without.
    if (const pid_t worker = i % 3 == 2 ? worker_of(sweeper, out) : 0; worker > 0) {
      kill(worker, SIGKILL);
      usleep(static_cast<useconds_t>(1000 * (i % 7)));
    }
    kill(sweeper, SIGKILL);
    waitpid(sweeper, nullptr, 0);
    EXPECT_TRUE(soon([&] { return processes_in(out).empty(); })) << "a process outlives the sweeper";
    check_kept(out);
    survived += fs::exists(out + "/plans") ? static_cast<int>(plans_in(out).size()) : 0;
    ASSERT_EQ(sweep(out), 0) << "kill " << i << ": " << log_;
    EXPECT_TRUE(plans_in(out) == undisturbed) << "kill " << i;
    EXPECT_EQ(h5::Reader(out + "/run.h5").strings("/plans/plan").size(), undisturbed.size());
    fs::remove_all(out);
  }
  EXPECT_GT(survived, 0);
}

TEST_F(Sweeping, GoesOnWithoutRunningAgainWhatIsRecorded) {
  const std::string out = folder_.path() + "/out";
  const pid_t sweeper = start(out);
  ASSERT_TRUE(comes_to(out, 3));
  kill(sweeper, SIGKILL);
  waitpid(sweeper, nullptr, 0);
  const int ended = count(read(out + "/journal"), " ended ");
  const auto first = fs::last_write_time(out + "/plans/dp=1_tp=1_pp=1.h5");
  ASSERT_EQ(sweep(out), 0) << log_;
  EXPECT_TRUE(says(log_, "going on: ", " of 8 plans are recorded", "reference, kept: ", "VALID: 8 plans"));
  EXPECT_EQ(fs::last_write_time(out + "/plans/dp=1_tp=1_pp=1.h5"), first);
  const std::string journal = read(out + "/journal");
  EXPECT_EQ(count(journal, " ended "), 8);
  for (const std::string& line : plans_of(journal, " ended "))  // so that who dies in a plan is known by it
    EXPECT_TRUE(says(journal.substr(0, journal.find(" ended " + line)), " begun " + line + "\n"));
  EXPECT_GE(ended, 3);
  // And once more: nothing is left to do.
  ASSERT_EQ(sweep(out), 0) << log_;
  EXPECT_TRUE(says(log_, "going on: 8 of 8", "VALID: 8 plans"));
  // Anew: everything.
  ASSERT_EQ(sweep(out, "--fresh --only 'dp=1 tp=1 pp=1'"), 0) << log_;
  for (const char* old : {"going on", "reference, kept"})
    EXPECT_EQ(log_.find(old), std::string::npos) << log_;
  EXPECT_EQ(plans_in(out).size(), 2u);
}

TEST_F(Sweeping, WorkerKilledByOthersIsReplacedAndThePlanRunAgain) {
  const std::string out = folder_.path() + "/out";
  const pid_t sweeper = start(out);
  ASSERT_TRUE(comes_to(out, 1));
  const pid_t worker = worker_of(sweeper, out);
  ASSERT_GT(worker, 0);
  kill(worker, SIGKILL);
  int status = 0;
  waitpid(sweeper, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0) << read(out + ".log");
  EXPECT_TRUE(says(read(out + ".log"), "VALID: 8 plans"));
}

TEST_F(Sweeping, APlanThatCrashesIsRecordedAndTheNextRuns) {
  const std::string out = folder_.path() + "/out";
  const pid_t sweeper = start(out);
  ASSERT_TRUE(comes_to(out, 1));
  kill(worker_of(sweeper, out), SIGSEGV);
  int status = 0;
  waitpid(sweeper, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_TRUE(
      says(read(out + ".log"), "INVALID: 1 of 8 plans failed: ", ": crashed: Segmentation fault (SIGSEGV)"));
  std::string crashed;
  {
    const h5::Reader run(out + "/run.h5");
    const auto all = run.strings("/plans/status"), ended = run.strings("/plans/ended");
    ASSERT_EQ(all.size(), 8u);
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i] != "ok") {
        EXPECT_EQ(all[i], "crashed");
        EXPECT_TRUE(says(ended[i], "Segmentation fault (SIGSEGV)"));
        crashed = run.strings("/plans/plan")[i];
      }
  }
  EXPECT_FALSE(crashed.empty());
  // It is recorded, so it is not run again, unless that is asked for.
  EXPECT_EQ(sweep(out), 1);
  EXPECT_TRUE(says(log_, "going on: 8 of 8", "INVALID: 1 of 8 plans failed: " + crashed));
  EXPECT_EQ(sweep(out, "--retry"), 0) << log_;
  EXPECT_TRUE(says(log_, "going on: 7 of 8", "VALID: 8 plans"));
}

TEST_F(Sweeping, LimitsOfTimeAndMemoryAreStatusesOfTheirOwn) {
  for (const auto& [limit, status, why] :
       {std::tuple{"seconds = 0.001", "timeout", "no end after 0.001 s"},
        {"memory = 0.001", "out of memory", " GiB were resident, 0.001 are allowed"}}) {
    const std::string out = folder_.path() + "/" + status[0];
    const std::string suite =
        folder_.write("limit.toml", read(suite_).substr(0, read(suite_).find("[axes]")) +
                                        "[axes]\ntp = [1, 4]\n[limits]\n" + limit);
    const Ended ended = lockstep_program("sweep " + suite + " --out " + out);
    EXPECT_EQ(ended.status, 1);
    EXPECT_TRUE(
        says(ended.out, "INVALID: 2 of 2 plans failed: dp=1 tp=1 pp=1: " + std::string(status) + ": ", why));
    EXPECT_EQ(h5::Reader(out + "/run.h5").strings("/plans/status"), std::vector<std::string>(2, status));
    EXPECT_EQ(h5::Reader(out + "/run.h5").strings("/plans/numbers"), std::vector<std::string>(2, "not run"));
  }
}

TEST_F(Sweeping, WhatDiffersFromTheRecordedSweepIsNamed) {
  const std::string out = folder_.path() + "/out", only = "--only 'dp=1 tp=1 pp=1' ";
  ASSERT_EQ(sweep(out, only), 0) << log_;
  // All that decides a number or a time (reports/schema.md); what is not here may change unseen.
  const auto known = nlohmann::json::parse(read(out + "/identity.json"));
  for (const char* name :
       {"suite",   "model",  "data",         "dtype",   "isa",         "build",        "cpu",   "device",
        "threads", "launch", "comm",         "scaling", "timed_steps", "timed_spread", "batch", "seq",
        "steps",   "seed",   "leaves",       "lr",      "min_ratio",   "warmup",       "total", "beta1",
        "beta2",   "eps",    "weight_decay", "clip",    "ignore",      "segments"})
    EXPECT_TRUE(known.contains(name)) << name;
  EXPECT_EQ(known.value("device", ""), "cpu");
  EXPECT_EQ(known.value("dtype", ""), "float32");
  EXPECT_EQ(known.value("comm", ""), "local");
  EXPECT_EQ(sweep(out, only + "--isa plain --threads 3"), 2);
  EXPECT_TRUE(
      says(log_, "'" + out + "' holds another sweep", "and is plain", "threads was 1 and is 3", "--fresh"));
  EXPECT_EQ(count(log_, "\n"), 1);
  const auto kept = plans_in(out);
  folder_.write("kill.toml", read(suite_).replace(read(suite_).find("seq = 16"), 8, "seq = 24"));
  EXPECT_EQ(sweep(out, only), 2);
  EXPECT_TRUE(says(log_, "seq was 16 and is 24"));
  EXPECT_TRUE(plans_in(out) == kept);
  EXPECT_EQ(sweep(out, only + "--fresh"), 0) << log_;
}

TEST_F(Sweeping, DamagedFilesAreMadeAgain) {
  const std::string out = folder_.path() + "/out", only = "--only 'dp=1 tp=1 pp=1' ";
  ASSERT_EQ(sweep(out, only), 0) << log_;
  const auto kept = plans_in(out);
  const std::string plan = out + "/plans/dp=1_tp=1_pp=1_ckpt=full.h5";
  fs::resize_file(plan, fs::file_size(plan) / 2);
  // One bit of one weight: HDF5 does not see it, the hash does.
  const std::string reference = out + "/reference.h5";
  std::string bytes = read(reference);
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(reference, std::ios::binary) << bytes;
  ASSERT_EQ(sweep(out, only), 0) << log_;
  EXPECT_TRUE(says(log_, "going on: 1 of 2", "\nreference: hash ", "VALID: 2 plans"));
  EXPECT_TRUE(plans_in(out) == kept);
  std::ofstream(out + "/identity.json") << "{\"suite\": ";
  EXPECT_EQ(sweep(out, only), 2);
  EXPECT_TRUE(says(log_, "identity.json' is damaged", "--fresh"));
}

TEST_F(Sweeping, TwoInOneFolderAreRefused) {
  const std::string out = folder_.path() + "/out";
  const pid_t first = start(out);
  ASSERT_TRUE(comes_to(out, 1));
  EXPECT_EQ(sweep(out), 2);
  EXPECT_TRUE(says(log_, "another sweep is at work in this folder"));
  kill(first, SIGKILL);
  waitpid(first, nullptr, 0);
}

}  // namespace
}  // namespace lockstep
