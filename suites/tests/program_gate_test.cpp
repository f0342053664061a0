// lockstep gate, and plans that only fast mode can sum: what continuous integration sees of them.
#include <gtest/gtest.h>
#include <hdf5.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "reports/h5.hpp"
#include "reports/junit.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/suite_options.hpp"
#include "suites/sweep/sweep.hpp"
#include "suites/tests/junit_reader.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

std::string gate_suite(const std::string& more, const std::string& model = "gate-tiny") {
  return suite_text("batch = 6\nseq = 16\nclip = 0.5\nlr = 0.003\nwarmup = 1\n" + more, model);
}

std::string last_line(const std::string& text) { return text.substr(text.rfind('\n', text.size() - 2) + 1); }

TEST(ProgramGate, PassesAndSaysWhoStandsBehindTheHash) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("g.toml", gate_suite("[axes]\ntp = [1, 2, 3]\npp = [1, 2]\n"));
  const std::string junit = folder.path() + "/gate.xml";
  const Ended ended = lockstep_program("gate " + suite + " --junit " + junit);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(last_line(ended.out), "VALID: 4 plans, one hash ", ", 2 refused, ")) << ended.out;
  EXPECT_TRUE(says(ended.out, " of 4 plans; fast: 4 plans within ", " of the bound ("));
  EXPECT_EQ(
      read_junit(junit),
      "6 0 0\ndp=1 tp=1 pp=1\ndp=1 tp=1 pp=2\ndp=1 tp=2 pp=1\ndp=1 tp=2 pp=2\n"
      "dp=1 tp=3 pp=1 skipped: tp=3 does not divide the model's 8 attention heads (rule tp-divides-heads)\n"
      "dp=1 tp=3 pp=2 skipped: tp=3 does not divide the model's 8 attention heads (rule tp-divides-heads)\n");
  std::ostringstream text;
  text << std::ifstream(junit).rdbuf();
  EXPECT_TRUE(says(text.str(), "<property name=\"refused by tp-divides-heads\" value=\"2\"/>"));
}

// A rule that refuses too much, and kernels that are wrong for all plans alike.
TEST(ProgramGate, ASuiteKnowsItsPlansAndItsHash) {
  const TemporaryFolder folder;
  const auto ended = [&](const std::string& expected, const std::string& options = "") {
    const std::string text = gate_suite("[axes]\ntp = [1, 2, 3]\n[expect]\n" + expected);
    return lockstep_program("gate " + folder.write("g.toml", text) + options);
  };
  const std::string right = ended("plans = 2\n").out;
  const std::string hash = right.substr(right.find("reference: hash ") + 16, 16);
  EXPECT_EQ(ended("plans = 2\nhash = \"" + hash + "\"\n").status, 0) << right;
  EXPECT_TRUE(says(last_line(ended("plans = 3\n").out), "INVALID: 2 plans may run, and the suite expects 3"));
  EXPECT_EQ(ended("plans = 3\n", " --only tp=2").status, 0);
  EXPECT_EQ(ended("plans = 2\n", " --limit-ranks 1").status, 0);
  const Ended other = ended("hash = \"00\"\n", " --plan tp=2");
  EXPECT_EQ(other.status, 1);
  EXPECT_TRUE(says(last_line(other.out), "INVALID: the reference's hash is " + hash, "expects 00: kernels"));
  EXPECT_EQ(ended("hash = \"0x\"\n").status, 2);
  // Under weak scaling the hash is of the smallest batch, which a part may not have.
  EXPECT_EQ(lockstep_program("gate suites/weak.toml --plan dp=2").status, 0);
  EXPECT_EQ(ended("plans = 0\n").status, 2);
}

// What the limit on a file's size cuts off is as on a full disk.
std::string in_no_room(const std::string& arguments, const char* kib) {
  return shell("(ulimit -f " + std::string(kib) + "; '" + beside("lockstep") + "' " + arguments +
               "; echo status $?) 2>&1 | cat")
      .out;
}
void expect_nothing_at(const std::string& file) {
  for (const char* end : {"", ".tmp"}) EXPECT_FALSE(std::filesystem::exists(file + end)) << file << end;
}

TEST(ProgramGate, WhatThereIsNoRoomForLeavesNothing) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("g.toml", gate_suite("[axes]\ntp = 1\n"));
  const std::string junit = folder.path() + "/gate.xml", plan = folder.path() + "/plan.sh";
  EXPECT_TRUE(says(in_no_room("gate " + suite + " --junit " + junit, "1"),
                   "gate.xml: cannot be written; its folder must exist and have room\nstatus 2"));
  EXPECT_TRUE(
      says(in_no_room("plan --model suites/models/gate-tiny.json --cluster suites/clusters/h100x64.toml "
                      "--devices 2 --batch 8 --seq 16 --export megatron --explain dp=2 --out " +
                          plan,
                      "1"),
           "cannot write " + plan + "; its folder must exist and have room\nstatus 2"));
  expect_nothing_at(junit), expect_nothing_at(plan);
}

// By a rank's thread, in the middle of the file.
TEST(ProgramGate, ADumpThatThereIsNoRoomForLeavesNothing) {
  const TemporaryFolder folder;
  const std::string dump = folder.path() + "/dump.h5";
  const std::string said = in_no_room("train " + tiny_run + "--steps 2 --plan dp=2 --dump " + dump, "2000");
  if (H5_VERSION_GE(2, 0, 0) && said.find("Assertion `H5") != std::string::npos)
    GTEST_SKIP() << "this HDF5 is built to end a program whose disk is full: " << said;
  EXPECT_TRUE(says(said,
                   "cannot write '" + dump + "': the folder must be writable and its disk must have room",
                   "status 2"));
  EXPECT_EQ(said.find("HDF5-DIAG"), std::string::npos) << said;
  expect_nothing_at(dump);
}

// A link is written through, and a run that never began leaves no success behind.
TEST(ProgramGate, TheFileOfAnEarlierRunSaysNothingOfThisOne) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("g.toml", gate_suite("[axes]\ntp = 1\n"));
  const std::string real = folder.path() + "/real.xml", link = folder.path() + "/link.xml";
  std::filesystem::create_symlink(real, link);
  ASSERT_EQ(lockstep_program("gate " + suite + " --junit " + link).status, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(read_junit(real), "1 0 0\ndp=1 tp=1 pp=1\n");
  EXPECT_EQ(lockstep_program("gate " + suite + " --junit " + link + " --only tp=2").status, 2);
  EXPECT_TRUE(says(read_junit(real), "1 0 1\n", "no plan was judged"));
  const std::string verdict = folder.path() + "/verdict", names = folder.path() + "/names";
  std::filesystem::create_symlink(verdict, names);
  EXPECT_EQ(lockstep_program("sweep " + suite + " --verdict " + names).status, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(names) && std::filesystem::file_size(verdict) > 0);
  EXPECT_TRUE(says(lockstep_program("gate " + suite + " --junit /dev/stdout | cat").out, "<testsuites"));
  // A pipe gets one answer, and stays one.
  const std::string pipe = folder.path() + "/pipe", got = folder.path() + "/got.xml";
  const std::string listen = "mkfifo " + pipe + "; timeout 60 cat " + pipe + " >" + got + " & ";
  EXPECT_EQ(lockstep_program("gate " + suite + " --junit " + pipe + " && wait", listen).status, 0);
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  EXPECT_EQ(read_junit(got), "1 0 0\ndp=1 tp=1 pp=1\n");
}

// What a closed stream would be printed to is no file of the sweep's.
TEST(ProgramGate, ClosedStreamsAreNobodysFile) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("g.toml", gate_suite("[axes]\ntp = 1\n"));
  const std::string sweep = "sweep " + suite + " --out " + folder.path() + "/out ";
  EXPECT_EQ(lockstep_program(sweep + "<&- >&- 2>&-").status, 0);
  std::ifstream journal(folder.path() + "/out/journal");
  int lines = 0;
  for (std::string line; std::getline(journal, line); ++lines) EXPECT_TRUE(line.starts_with("20")) << line;
  EXPECT_GT(lines, 2);
  EXPECT_EQ(lockstep_program("gate nowhere.toml 2>&-").status, 2);
}

TEST(ProgramGate, APlanWithoutAVerdictIsAnErrorInJUnitAndAnExitStatus) {
  const TemporaryFolder folder;
  const std::string suite =
      folder.write("g.toml", gate_suite("[[also]]\nplan = \"tp=2\"\n[limits]\nseconds = 1e-6\n"));
  const std::string junit = folder.path() + "/gate.xml";
  const Ended ended = lockstep_program("gate " + suite + " --junit " + junit);
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(
      says(last_line(ended.out), "INVALID: 1 of 1 plans failed: dp=1 tp=2 pp=1: timeout: no end after"));
  EXPECT_TRUE(says(read_junit(junit), "1 0 1\ndp=1 tp=2 pp=1 error: timeout: no end after",
                   "again: ", "gate " + suite + " --plan \"dp=1 tp=2 pp=1\""));
}

TEST(ProgramGate, ASuiteThatProvesNothingIsNoSuccess) {
  const TemporaryFolder folder;
  std::string text = gate_suite("[axes]\ndp = [1, 2]\n");
  text.replace(text.find("clip = 0.5"), 10, "clip = 1e9");
  const std::string junit = folder.path() + "/gate.xml";
  EXPECT_EQ(lockstep_program("gate " + folder.write("g.toml", text) + " --junit " + junit).status, 1);
  EXPECT_TRUE(says(read_junit(junit), "1 0 1\n", "the suite error: INVALID: ", "clipping"));
}

TEST(ProgramGate, WhatCannotBeAskedIsOneSentence) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("g.toml", gate_suite("[axes]\ntp = 2\n"));
  for (const auto& [arguments, sentence] :
       {std::pair{"--junit /nowhere/gate.xml", "--junit /nowhere/gate.xml: No such file"},
        {"--plan dp=3", "exact mode needs dp to be a power of two, not 3 (rule dp-power-of-two)"},
        {"--only pp=8", "no plan to run: no other has `pp=8`; `lockstep sweep "},
        {"--only zero=5", "zero is one of 0, 1, 2, 3"},
        {"--only pp=2 --plan dp=2", "gate: --only excludes --plan"},
        {"--plan dp=2 --plan dp=1", "gate: --plan is given 2 times; it takes one value"},
        {"--only dp=2 --only tp=2", "gate: --only is given 2 times; it takes one value"}}) {
    const Ended ended = lockstep_program("gate " + suite + " " + arguments);
    EXPECT_EQ(ended.status, 2) << arguments;
    EXPECT_TRUE(says(ended.err, sentence));
  }
}

// ---- A plan that is wrong -------------------------------------------------------------------------------

// Kernels that go wrong in another process than this one, and there only where a rank has four query heads:
// tp=2.
pid_t sweeper = 0;
i64 wrong_heads = 4;
Ops<float> right;
void wrong_for_some_heads(Lanes& l, float* dq, float* dk, float* dv, const float* d_o, const float* q,
                          const float* k, const float* v, const float* o, const float* lse, i64 B, i64 T,
                          i64 H, i64 K, i64 hd) {
  right.attention_dx(l, dq, dk, dv, d_o, q, k, v, o, lse, B, T, H, K, hd);
  if (H == wrong_heads) dq[0] += 1;
}
const KernelSet planted{"test-worker", 2000, [] { return sweeper != 0 && getpid() != sweeper; },
                        [](Ops<float>& ops) {
                          right = ops;
                          ops.attention_dx.call = wrong_for_some_heads;
                        }};

TEST(ProgramGate, AWrongPlanIsAFailureWithItsPlaceAndTheCommandThatShowsIt) {
  const TemporaryFolder folder;
  SuiteOptions asked;
  asked.suite = folder.write("g.toml", gate_suite("[axes]\ntp = [1, 2]\nckpt = [\"none\", \"full\"]\n"));
  Chosen chosen = chosen_plans(asked);
  sweeper = getpid();
  testing::internal::CaptureStdout();
  Sweep sweep(chosen.suite, std::move(chosen.all), {.timed = false});
  const int status = sweep.run();
  const std::string said = testing::internal::GetCapturedStdout();
  sweeper = 0;
  EXPECT_EQ(status, 1);
  EXPECT_TRUE(says(last_line(said),
                   "INVALID: 2 of 4 plans failed: dp=1 tp=2 pp=1: numbers: step 0: gradient of "
                   "model.layers.7.self_attn.q_proj.weight at [",
                   "from there down: layer 7's backward of attention"));
  const std::string again = judge_again(chosen.suite, "dp=1 tp=2 pp=1");
  EXPECT_TRUE(says(said, "FAILED dp=1 tp=2 pp=1: numbers: ", "again: " + again + "\n"));
  const std::string junit = folder.write("gate.xml", junit_text(sweep.record(), [&](const std::string& plan) {
                                           return judge_again(chosen.suite, plan);
                                         }));
  EXPECT_TRUE(says(read_junit(junit), "4 2 0\ndp=1 tp=1 pp=1\n",
                   "\ndp=1 tp=2 pp=1 failure: numbers: step 0: ", "again: " + again));
  // That command, without its program: the real one has no fault, and says so of this one plan.
  const Ended ended = lockstep_program(again.substr(again.find("gate ")));
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "VALID: 1 plan, one hash " + sweep.record().reference_hash.substr(0, 16)));
}

// On other hosts it goes wrong there, and so it is judged there.
TEST(ProgramGate, APlanOfALauncherIsJudgedAgainByIt) {
  Suite suite;
  suite.path = "a.toml", suite.isa = "plain", suite.threads = 2;
  suite.launch = "mpirun -n {ranks}", suite.comm = "mpi";
  EXPECT_TRUE(says(judge_again(suite, "dp=2"),
                   " gate a.toml --plan \"dp=2\" --isa plain --device cpu --threads 2 --launch \"mpirun -n "
                   "{ranks}\" --comm mpi"));
}

// A single device has eight heads.
TEST(ProgramTrain, AStepBeyondTheBoundOfFastModeIsAFailure) {
  for (const auto& [heads, said] :
       {std::pair{i64{4}, "not right in fast mode: numbers: step 0: gradient of "},
        {i64{8}, "the single device is wrong: step 0: gradient of "}}) {
    CLI::App app;
    const std::vector<const Command*> all = commands();
    const Command::Action train =
        (*std::find_if(all.begin(), all.end(), [](auto* c) { return c->name == "train"; }))->declare(app);
    app.parse(tiny_run + "--steps 1 --plan tp=2 --fast --check");
    wrong_heads = heads, sweeper = getppid();
    testing::internal::CaptureStdout();
    const int status = train();
    const std::string out = testing::internal::GetCapturedStdout();
    wrong_heads = 4, sweeper = 0;
    EXPECT_EQ(status, 1) << out;
    EXPECT_TRUE(says(out, said));
  }
}

// ---- Fast mode alone ------------------------------------------------------------------------------------

TEST(ProgramFast, ASuiteAdmitsWhatOnlyFastModeCanSum) {
  const TemporaryFolder folder;
  const std::string axes = "[axes]\ndp = [1, 3]\ntp = [1, 3]\n[limits]\nranks = 4\n";
  const std::string suite = folder.write("f.toml", gate_suite("mode = \"fast\"\n" + axes, "gate-thirds"));
  const std::string out = folder.path() + "/out";
  const Ended ended = lockstep_program("sweep " + suite + " --out " + out);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(
      says(last_line(ended.out), "VALID: 3 plans, one hash ", " of 1, 2 in fast mode alone, 1 refused"));
  const h5::Reader run(out + "/run.h5");
  EXPECT_EQ(run.strings("/plans/plan"),
            (std::vector<std::string>{"dp=1 tp=1 pp=1", "dp=1 tp=3 pp=1", "dp=3 tp=1 pp=1"}));
  for (const char* gate : {"numbers", "messages", "memory"})
    EXPECT_EQ(run.strings(std::string("/plans/") + gate),
              (std::vector<std::string>{"pass", "not possible", "not possible"}));
  EXPECT_EQ(run.strings("/plans/fast"), std::vector<std::string>(3, "pass"));
  EXPECT_EQ(run.strings("/plans/status"), std::vector<std::string>(3, "ok"));
  EXPECT_EQ(run.strings("/plans/hash"), (std::vector<std::string>{run.attribute("hash"), "", ""}));
  EXPECT_GT(run.read<i64>("/plans/peak_bytes").values[2], 0);
  EXPECT_EQ(run.read<i64>("/plans/exact_peak_bytes").values[2], 0);
  // Without the word they are refused.
  const std::string exact = folder.write("e.toml", gate_suite(axes, "gate-thirds"));
  EXPECT_TRUE(says(lockstep_program("sweep --dry-run " + exact).out, "1 plans, 3 refused"));
  EXPECT_TRUE(
      says(lockstep_program("sweep " + folder.write("x.toml", gate_suite("mode = \"fats\"\n" + axes))).err,
           "x.toml:9", "mode is \"fats\"; it can be \"exact\", or \"fast\""));
}

TEST(ProgramFast, TrainsThreeReplicasWithinTheBound) {
  const std::string run =
      "train --model suites/models/gate-thirds.json --data datasets/excerpt-v509.tok --batch 6 --seq 16 "
      "--steps 2 "
      "--plan 'dp=3 tp=3 zero=1' ";
  const Ended ended = lockstep_program(run + "--fast --check");
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "within the bound of fast mode: 2 steps, at most 0."));
  const Ended refused = lockstep_program(run + "--check");
  EXPECT_EQ(refused.status, 2);
  EXPECT_TRUE(says(refused.err, "exact mode needs dp to be a power of two"));
}

}  // namespace
}  // namespace lockstep
