// Sweeps whose launcher starts ranks as processes: the gates over them, the record, and what happens when a
// job does not begin or ends badly.
#include <nlohmann/json.hpp>
#include <regex>

#include "reports/h5.hpp"
#include "suites/gates/among.hpp"
#include "suites/sweep/check_plan.hpp"
#include "suites/tests/mpi_support.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep::test {
namespace {

// ---- a rank's side: gates of which one process alone sees something wrong

struct Scene {
  const TokenFile data{"datasets/excerpt-v509.tok"};
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  Scene() { settings.batch = 8, settings.seq = 16, settings.steps = 2, settings.clip = 0.5; }
  Prepared prepared(const std::string& plan) const {
    return prepare({model, settings, Plan::parse(plan), &data});
  }
  Whole reference(const MpiWorld& world) const {
    return world.rank() > 0 ? Whole{} : reference_run(model, settings, data, "auto", 1);
  }
};

void job_gates(MpiWorld& world) {
  const Scene scene;
  const Whole reference = scene.reference(world);
  const bool first = world.rank() == 0, last = world.rank() == world.size() - 1;
  const auto judged = [&](const Prepared& p, const Weights& initial) {
    return judge(p, reference, {.mpi = &world}, initial);
  };
  const Prepared right = scene.prepared("dp=2 zero=1");
  const Verdict well = judged(right, {});
  expect(!first || (well.pass() && well.hash == reference.hash()), "well: " + well.numbers + well.messages);

  Weights initial = fresh_weights(scene.model, scene.settings);
  if (last) initial[3][5] += 1;
  const Verdict numbers = judged(right, initial);
  expect(!first || numbers.numbers.find("instead of") != std::string::npos, "numbers: " + numbers.numbers);

  Prepared other = scene.prepared("dp=2 zero=1");
  if (last) other.posted[world.rank()].pop_back();  // as if a rank had posted one more than its trace
  const Verdict messages = judged(other, {});
  expect(!first || (messages.numbers == "pass" && messages.messages.find("rank 1") != std::string::npos),
         "messages: " + messages.messages);

  // Judged on rank 0 alone, from what the last says: it ran what the others did not.
  std::vector<Ran> ran(static_cast<std::size_t>(world.size()), {1, 0});
  if (last) ran[world.rank()].kernels = 2;
  collect(&world, ran);
  expect(!first || ran.back().kernels == 2, "what the last rank ran");
}

// A rank that ends must end the job: the others would wait for it.
void job_ended(MpiWorld& world) {
  const Scene scene;
  Prepared p = scene.prepared("dp=2");
  if (world.rank() == 1) p.run.plan = Plan::parse("dp=2 zero=1");  // sends what rank 0 does not expect
  judge(p, scene.reference(world), {.mpi = &world});
}

const AddJobs added_launches({{"gates", job_gates}, {"ended", job_ended}});

// ---- the tests' side

class Launched : public Mpi {
 protected:
  std::string suite(const std::string& more) {
    return folder_.write("suite.toml",
                         suite_text("batch = 8\nseq = 16\nsteps = 3\nlr = 0.003\nwarmup = 1\nclip = 0.5\n"
                                    "timed_steps = 2\ntimed_steps_most = 2\n" +
                                    more));
  }
  Ended lockstep(const std::string& words, const std::string& launch = launcher() + "{ranks}") {
    return shell(kAsRoot + "timeout 300 '" + beside("lockstep") + "' " + words + " --launch \"" + launch +
                 "\"");
  }
  // A launcher that is a script: $1 the number of ranks, $2 ... what to start. `calls` counts its calls.
  std::string script(const std::string& text) {
    const std::string path =
        folder_.write("launcher", "#!/bin/sh\nn=$1\nshift\necho call >>" + folder_.path() + "/calls\n" +
                                      text + "\nexec " + launcher() + "$n \"$@\"\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path + " {ranks}";
  }
  const TemporaryFolder folder_;
};

TEST_F(Launched, GatesSeeWhatIsWrongOnOneProcess) { succeeds(2, "gates"); }
TEST_F(Launched, ARankThatEndsEndsTheJob) {
  const Ended ended = job(2, "ended");
  EXPECT_EQ(ended.status, 3) << ended.out;
  EXPECT_TRUE(says(ended.err, "lockstep: rank "));
}

TEST_F(Launched, ASweepIsJudgedTimedAndRecorded) {
  const std::string file = suite("[axes]\ndp = [1, 2, 4]\ntp = [1, 2, 3]\nzero = [0, 1]\n");
  const std::string out = folder_.path() + "/out";
  const Ended ended = lockstep("sweep " + file + " --limit-ranks 4 --out " + out);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  // tp=1 with dp=1, 2, 4 and tp=2 with dp=1, 2, each with zero 0 and 1; refused: dp=4 tp=2 twice, tp=3 six
  // times.
  EXPECT_TRUE(says(ended.out, "VALID: 10 plans, one hash ", ", 8 refused, ", "limit-ranks 6"));
  const std::size_t at = ended.out.find("one hash ") + 9;
  const Ended threads = shell("'" + beside("lockstep") + "' gate " + file + " --limit-ranks 4");
  EXPECT_TRUE(says(threads.out, "one hash " + ended.out.substr(at, 16)));

  const h5::Reader run(out + "/run.h5");
  EXPECT_EQ(run.attribute("launch"), launcher() + "{ranks}");
  EXPECT_EQ(run.attribute("comm"), "mpi");
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const auto ranks = run.read<i64>("/plans/ranks").values, timed = run.read<i64>("/plans/timed").values,
             resident = run.read<i64>("/plans/resident_bytes").values;
  const auto hosts = run.strings("/plans/hosts"), measured = run.strings("/plans/measured_timeline");
  const int cores = std::stoi(run.attribute("cores"));
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    EXPECT_EQ(hosts[i], std::to_string(ranks[i]) + " x " + host);
    EXPECT_EQ(timed[i], ranks[i] <= cores);
    if (!timed[i]) continue;
    // Of all processes together, of which each has the program and its libraries.
    EXPECT_GT(4 * resident[i], (ranks[i] > 1 ? 5 : 3) * resident[0]);
    // A mean over ranks, of which none is missing.
    double together = 0;
    const nlohmann::json line = nlohmann::json::parse(measured[i]);
    for (const auto& [name, part] : line["parts"].items()) together += part.get<double>();
    EXPECT_GT(together, 0.8);
    EXPECT_LT(together, 1.001);
  }
  // Once more: nothing is run again, nothing is started.
  const Ended again = lockstep("sweep " + file + " --limit-ranks 4 --out " + out, "false {ranks}");
  EXPECT_EQ(again.status, 2) << again.out;
  EXPECT_TRUE(says(again.err, "launch was " + launcher()));
  const Ended same = lockstep("sweep " + file + " --limit-ranks 4 --out " + out);
  EXPECT_TRUE(says(same.out, "going on: 10 of 10 plans are recorded", "VALID: 10 plans"));
}

TEST_F(Launched, EachBatchOfWeakScalingHasItsReference) {
  const std::string file = suite("scaling = \"weak\"\n[axes]\ndp = [1, 2]\n"),
                    sweep = "sweep " + file + " --out " + folder_.path() + "/out";
  const Ended ended = lockstep(sweep);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "VALID: 2 plans, for each of 2 batches one hash"));
  EXPECT_TRUE(says(lockstep(sweep).out, "reference, kept of 8 sequences", "reference, kept of 16 sequences"));
}

TEST_F(Launched, AJobThatEndsBadlyCostsItsPlanAlone) {
  const std::string file = suite("[axes]\ndp = 2\nzero = [0, 1, 2]\n");
  const Ended ended =
      lockstep("sweep " + file + " --out " + folder_.path() + "/out",
               script("[ $(wc -l <" + folder_.path() +
                      "/calls) -gt 1 ] || { echo 'lockstep-ready 2 x here'; read plan; echo 'noise' >&2; "
                      "echo 'lockstep: rank 1 on node7: out of luck' >&2; exit 3; }"));
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "INVALID: 1 of 3 plans failed: dp=2 tp=1 pp=1",
                   "crashed: the job ended with exit status 3; it said: rank 1 on node7: out of luck"));
  const h5::Reader run(folder_.path() + "/out/run.h5");
  EXPECT_EQ(run.strings("/plans/status"), (std::vector<std::string>{"crashed", "ok", "ok"}));
}

// A host may have another file under the same name.
TEST_F(Launched, AJobThatHeldItsPlanToAnotherReferenceIsRefused) {
  const std::string file = suite("[axes]\ndp = 2\n");
  const Ended ended = lockstep("gate " + file, script("sed -i 's/^seq = 16/seq = 16\\nseed = 77/' " + file));
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(
      says(ended.out, "INVALID: 1 of 1 plans failed", "numbers: its job held it to a reference with hash "));
}

TEST_F(Launched, AnAnswerThatIsNoRecordCostsItsPlanAlone) {
  const std::string file = suite("[axes]\ndp = 2\nzero = [0, 1]\n");
  const Ended ended =
      lockstep("gate " + file, script("[ $(wc -l <" + folder_.path() +
                                      "/calls) -gt 1 ] || { echo 'lockstep-ready 2 x here'; read plan; "
                                      "echo lockstep-answer 4142; exit 0; }"));
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "INVALID: 1 of 2 plans failed", "crashed: its answer was damaged on the way"));
}

// At its time limit Slurm ends the steps as well as the script.
TEST_F(Launched, AJobThatIsEndedWithItsSweepIsNoFaultOfThePlan) {
  const std::string file = suite("[axes]\ndp = 2\n");
  const std::string launch = script("[ $(wc -l <" + folder_.path() +
                                    "/calls) -gt 1 ] || { echo 'lockstep-ready 2 x here'; read plan; "
                                    "kill -TERM $PPID; sleep 0.5; exit 143; }"),
                    sweep = "sweep " + file + " --out " + folder_.path() + "/out";
  EXPECT_TRUE(
      says(lockstep(sweep, launch).out, "INVALID: interrupted after 0 of 1 plans; the same command goes on"));
  EXPECT_TRUE(says(lockstep(sweep, launch).out, "VALID: 1 plan, one hash "));
}

// The record says on what ranks ran, so one folder holds no two kinds of them.
TEST_F(Launched, ASweepOfThreadsDoesNotGoOnInItsFolder) {
  const std::string file = suite("[axes]\ndp = 1\n"),
                    sweep = "sweep " + file + " --out " + folder_.path() + "/out";
  EXPECT_EQ(lockstep(sweep).status, 0);
  const Ended threads = shell("'" + beside("lockstep") + "' " + sweep);
  EXPECT_EQ(threads.status, 2) << threads.out;
  EXPECT_TRUE(says(threads.err, "launch was " + launcher()));
}

// What carries the messages is in a shared object of its own.
TEST_F(Launched, AnotherCommunicatorDoesNotGoOnInItsFolder) {
  for (const char* name : {"lockstep", "lockstep_mpi.so"})
    std::filesystem::copy_file(beside(name), folder_.path() + "/" + name);
  const std::string sweep = kAsRoot + "timeout 300 " + folder_.path() + "/lockstep sweep " +
                            suite("[axes]\ndp = 1\n") + " --out " + folder_.path() + "/out --launch \"" +
                            launcher() + "{ranks}\"";
  EXPECT_EQ(shell(sweep).status, 0);
  EXPECT_TRUE(says(shell(sweep).out, "going on: 1 of 1 plans are recorded"));
  std::ofstream(folder_.path() + "/lockstep_mpi.so", std::ios::app) << 'x';
  const Ended other = shell(sweep);
  EXPECT_EQ(other.status, 2) << other.out;
  EXPECT_TRUE(says(other.err, "holds another sweep: build was "));
}

TEST_F(Launched, ALauncherOfOneProcessIsToldSo) {
  const Ended ended = lockstep("gate suites/smoke.toml --plan dp=2", "env N={ranks}");
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "the launcher started 1 process and not 2"));
  // One line, beside those of progress that a slow machine has.
  const std::string said = std::regex_replace(ended.err, std::regex("[^\n]* s left\n"), "");
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << ended.err;
}

}  // namespace
}  // namespace lockstep::test
