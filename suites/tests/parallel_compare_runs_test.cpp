// Two made-up runs side by side: what is said of them, and what counts as a fault. By hand: six steps have
// their smallest and largest as the median's 95 % interval (the sign test's tables: r = 1 of 6).
#include <gtest/gtest.h>

#include <limits>

#include "suites/sweep/compare_runs.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

PlanRecord plan(const std::string& line, const std::vector<double>& ms) {
  PlanRecord p;
  p.plan = line;
  p.words = {{"dp", "2"}, {"ckpt", "none"}};
  p.numbers = p.messages = p.memory = p.fast = "pass";
  p.hash = "aaaa";
  p.timed = !ms.empty();
  for (const double step : ms) p.step_seconds.push_back(step / 1e3);
  p.loss = {6, 5};
  p.tokens_per_step = 128;
  p.peak_bytes = 1000;
  p.traffic["dp"] = {7, 700};
  return p;
}

const std::vector<double> steady = {9, 10, 10, 10, 10, 11};

RunRecord run_of(const std::vector<PlanRecord>& plans) {
  RunRecord run;
  run.suite = "small", run.model_hash = "m1", run.data_hash = "d1", run.revision = "r1";
  run.compiler = "g++ 12", run.flags = "-O2", run.host = "here", run.cpu = "one", run.isa = "avx2";
  run.seed = 1, run.batch = 8, run.seq = 16, run.steps = 2, run.cores = 2;
  run.hash = run.reference_hash = "aaaa";
  run.plans = plans;
  return run;
}

// Through files, as the program does it.
RunComparison compared(const RunRecord& before, const RunRecord& after, const RunsAsked& asked = {}) {
  const TemporaryFolder folder;
  write_run(before, folder.path() + "/a.h5");
  write_run(after, folder.path() + "/b.h5");
  return compare_runs(read_run(folder.path() + "/a.h5"), read_run(folder.path() + "/b.h5"), asked);
}

std::string last_line(const std::string& text) { return text.substr(text.rfind('\n', text.size() - 2) + 1); }

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(CompareRuns, EqualRunsAreSaidToBeInFiveLines) {
  const RunRecord run = run_of({plan("dp=1", steady), plan("dp=2", {})});
  const RunComparison result = compared(run, run);
  EXPECT_TRUE(result.well);
  EXPECT_EQ(
      result.text,
      "the runs' circumstances are equal\n"
      "median step of a plan timed in both  before, ms  after, ms  ratio\n"
      "dp=1                                     10.000     10.000  1.000\n"
      "geometric mean of 1 ratio: 1.000; 0 slower, 0 faster, 1 within noise\n"
      "as right as before: of 2 plans in both, all that were ok still are, with the same hashes; a step "
      "takes 1.000 times as long, 0 slower and 0 faster of 1\n");
}

TEST(CompareRuns, SaysWhatDiffersInTheCircumstancesAndNothingElse) {
  const RunRecord before = run_of({plan("dp=1", {})});
  RunRecord after = before;
  after.started = "2026-01-01T00:00:00Z";  // two runs always differ in this
  EXPECT_TRUE(has(compared(before, after).text, "circumstances are equal\n"));
  after.suite = "large", after.model_hash = "m2", after.data_hash = "d2", after.dtype = "bf16";
  after.batch = 16, after.seq = 32, after.steps = 3, after.seed = -5, after.revision = "r2";
  after.compiler = "g++ 13", after.flags = "-O3", after.host = "there", after.cpu = "two", after.cores = 4;
  after.isa = "avx512", after.device = "cuda", after.launch = "srun -n {ranks}", after.comm = "mpi";
  after.reference_hash = "bbbb", after.plans[0].threads = 2;
  const std::string all =
      "the runs' circumstances differ\n  suite: small -> large\n  model hash: m1 -> m2\n  data hash: d1 -> "
      "d2\n  batch: 8 -> 16\n  seq: 16 -> 32\n  steps: 2 -> 3\n  seed: 1 -> -5\n  dtype: float32 -> bf16\n"
      "  revision: r1 -> r2\n  compiler: g++ 12 -> g++ 13\n  flags: -O2 -> -O3\n  host: here -> there\n"
      "  cpu: one -> two\n  cores: 2 -> 4\n  isa: avx2 -> avx512\n  device: cpu -> cuda\n"
      "  threads of a rank: 1 -> 2\n  launch: (none) -> srun -n {ranks}\n  comm: local -> mpi\n"
      "  reference hash: aaaa -> bbbb\nas right";
  EXPECT_TRUE(compared(before, after).text.starts_with(all)) << compared(before, after).text;
  RunRecord one = before;
  one.isa = "plain";
  EXPECT_TRUE(
      compared(before, one).text.starts_with("the runs' circumstances differ\n  isa: avx2 -> plain\nas"));
}

// Of six steps: 9 to 11 ms before. Slower for certain from above 11 on, faster below 9.
TEST(CompareRuns, TimesAreBeyondTheNoiseWhereIntervalsDoNotMeet) {
  const std::vector<double> touching = {11, 20, 20, 20, 20, 21}, above = {11.5, 20, 20, 20, 20, 21};
  const std::vector<double> below = {4, 5, 5, 5, 5, 8.5}, long_below = {4, 5, 5, 5, 5, 9};
  const RunRecord before = run_of({plan("p1", steady), plan("p2", steady), plan("p3", steady),
                                   plan("p4", steady), plan("p5", steady), plan("p6", {})});
  const RunRecord after = run_of({plan("p6", steady), plan("p5", steady), plan("p4", touching),
                                  plan("p3", below), plan("p2", long_below), plan("p1", above)});
  const RunComparison result = compared(before, after);
  EXPECT_TRUE(result.well);  // nobody asked whether it is slower
  // 20 / 10 twice and 5 / 10 twice: equal on a logarithmic scale, so they stay in the first run's order. The
  // geometric mean of 2, 1/2, 1/2, 2 and 1 is 1. p6 was not timed in the first.
  EXPECT_TRUE(has(result.text,
                  "median step of a plan timed in both  before, ms  after, ms  ratio\n"
                  "p1                                       10.000     20.000  2.000  slower\n"
                  "p2                                       10.000      5.000  0.500\n"
                  "p3                                       10.000      5.000  0.500  faster\n"
                  "p4                                       10.000     20.000  2.000\n"
                  "p5                                       10.000     10.000  1.000\n"
                  "geometric mean of 5 ratios: 1.000; 1 slower, 1 faster, 3 within noise\nas"))
      << result.text;
}

TEST(CompareRuns, TheMostChangedStandsFirstAndTheMedianIsComparedNotTheMean) {
  const RunRecord before = run_of({plan("p1", steady), plan("p2", steady), plan("p3", steady)});
  // Medians 12, 4 and 30; a step of a second moves none of them. Mean of 1.2, 0.4, 3: 1.44^(1/3) = 1.129.
  const RunRecord after = run_of({plan("p1", {12, 12, 12, 12, 12, 1000}), plan("p2", {4, 4, 4, 4, 4, 1000}),
                                  plan("p3", {30, 30, 30, 30, 30, 1000})});
  const std::string text = compared(before, after).text;
  EXPECT_LT(text.find("\np3 "), text.find("\np2 "));
  EXPECT_LT(text.find("\np2 "), text.find("\np1 "));
  EXPECT_TRUE(
      says(text, "  3.000  slower\n", "  0.400\n", "  1.200  slower\n", "geometric mean of 3 ratios: 1.129"));
}

TEST(CompareRuns, FewerThanSixStepsAreBeyondNothing) {
  const RunRecord before = run_of({plan("p1", {1, 1, 1, 1, 1}), plan("p2", steady)});
  const RunRecord after = run_of({plan("p1", steady), plan("p2", {1, 1, 1, 1, 1})});
  const RunComparison result = compared(before, after, {.slower = 5});
  EXPECT_TRUE(result.well);
  EXPECT_TRUE(
      says(result.text, "10.000  10.000\n", "0 slower, 0 faster, 2 within noise\n",
           "of these, 2 plans had fewer than 6 timed steps: no 95 % interval, so nothing is beyond it\n"));
  EXPECT_FALSE(has(compared(run_of({plan("p1", steady)}), run_of({plan("p1", steady)})).text, "fewer"));
}

TEST(CompareRuns, SlowerThanAskedIsAFault) {
  const RunRecord before = run_of({plan("p1", steady), plan("p2", steady)});
  const RunRecord after =
      run_of({plan("p1", {11.5, 12, 12, 12, 12, 13}), plan("p2", {11.5, 13, 13, 13, 13, 14})});
  EXPECT_TRUE(compared(before, after).well);
  EXPECT_TRUE(compared(before, after, {.slower = 31}).well);
  EXPECT_TRUE(says(last_line(compared(before, after, {.slower = 31}).text),
                   "2 slower and 0 faster of 2, none slower by more than 31 %\n"));
  const RunComparison one = compared(before, after, {.slower = 25}),
                      two = compared(before, after, {.slower = 0});
  EXPECT_FALSE(one.well);
  EXPECT_EQ(last_line(one.text), "worse: of 2 plans in both, 1 slower by more than 25 % (p2: by 30.0 %)\n");
  EXPECT_FALSE(two.well);
  EXPECT_TRUE(says(last_line(two.text), "2 slower by more than 0 % (first p2: by 30.0 %)"));
  // Twice as long, but the intervals meet.
  const RunRecord noisy = run_of({plan("p1", {10, 20, 20, 20, 20, 21}), plan("p2", steady)});
  EXPECT_TRUE(compared(before, noisy, {.slower = 5}).well);
  EXPECT_TRUE(compared(after, before, {.slower = 5}).well);  // faster is none
}

TEST(CompareRuns, APlanThatIsNoLongerOkIsAFault) {
  const RunRecord before = run_of({plan("p1", {}), plan("p2", {}), plan("p3", {})});
  RunRecord after = before;
  after.plans[0].peak_bytes = 1001;
  after.plans[1].status = "failed", after.plans[1].numbers = "step 0: loss", after.plans[1].hash = "cccc";
  after.plans[2].status = "crashed", after.plans[2].ended = "Aborted (SIGABRT)", after.plans[2].traffic = {};
  const RunComparison result = compared(before, after);
  EXPECT_FALSE(result.well);
  EXPECT_TRUE(has(result.text,
                  "3 plans in both with another status, hash, memory or traffic\n"
                  "  p2: ok -> failed (numbers: step 0: loss)\n  p3: ok -> crashed: Aborted (SIGABRT)\n"
                  "  p1: 1000 -> 1001 bytes at most\n"))
      << result.text;
  EXPECT_EQ(last_line(result.text), "worse: of 3 plans in both, 2 no longer ok (first p2: failed)\n");
  EXPECT_TRUE(compared(after, before).well);  // what is mended is no fault
  EXPECT_TRUE(says(compared(after, before).text, "p2: failed (numbers: step 0: loss) -> ok\n"));
  EXPECT_TRUE(compared(after, after).well);
}

TEST(CompareRuns, AnotherHashOfTheSameTrainingIsAFault) {
  const RunRecord before = run_of({plan("p1", {}), plan("p2", {})});
  RunRecord after = before;
  after.plans[1].hash = "bbbb";
  const RunComparison result = compared(before, after);
  EXPECT_FALSE(result.well);
  EXPECT_TRUE(says(result.text, "1 plan in both with another", "  p2: hash aaaa -> bbbb\n"));
  EXPECT_EQ(
      last_line(result.text),
      "worse: of 2 plans in both, 1 of another hash, though model, data, dtype, batch, seq, steps and seed "
      "are equal (p2)\n");
  // Of another training it says nothing: each of the seven alone.
  std::vector<RunRecord> others(7, after);
  others[0].model_hash = "m2", others[1].data_hash = "d2", others[2].dtype = "bf16", others[3].batch = 9;
  others[4].seq = 9, others[5].steps = 9, others[6].seed = 9;
  for (const RunRecord& other : others) {
    EXPECT_TRUE(compared(before, other).well);
    EXPECT_TRUE(says(last_line(compared(before, other).text), "but hashes say nothing, for ", " differs;"));
  }
  // Under weak scaling a plan's own batch is in its tokens alone.
  RunRecord weak = after;
  weak.plans[1].tokens_per_step = 256;
  EXPECT_TRUE(compared(before, weak).well);
  EXPECT_TRUE(says(last_line(compared(before, weak).text), "where their steps are of as many tokens"));
  weak.reference_hash = "bbbb";  // of the smallest batch, which may be another one
  EXPECT_TRUE(compared(before, weak).well);
  RunRecord reference = before;
  reference.reference_hash = "bbbb";
  EXPECT_FALSE(compared(before, reference).well);
  EXPECT_TRUE(says(last_line(compared(before, reference).text), "the reference of another hash, though"));
  reference.reference_hash = "";  // ended before there was one
  EXPECT_TRUE(compared(before, reference).well);
  // Nor do plans hide it that came to no verdict: nobody knows their tokens.
  RunRecord crashed = before;
  crashed.plans[1].status = "crashed", crashed.plans[1].hash = "", crashed.plans[1].tokens_per_step = 0;
  reference = crashed, reference.reference_hash = "bbbb";
  EXPECT_FALSE(compared(crashed, reference).well);
}

TEST(CompareRuns, MemoryAndTrafficThatDifferAreSaidAndNoFault) {
  RunRecord before = run_of({plan("p1", {}), plan("p2", {}), plan("p3", {})});
  RunRecord after = before;
  before.plans[1].traffic["tp"] = {3, 30};
  after.plans[0].traffic["dp"] = {7, 701};
  after.plans[2].traffic["pp"] = {2, 20}, after.plans[2].peak_bytes = 900;
  const RunComparison result = compared(before, after);
  EXPECT_TRUE(result.well);
  EXPECT_TRUE(has(result.text,
                  "3 plans in both with another status, hash, memory or traffic\n"
                  "  p1: dp: 7 messages, 700 -> 701 bytes\n  p2: tp: 3 -> 0 messages, 30 -> 0 bytes\n"
                  "  p3: 1000 -> 900 bytes at most; pp: 0 -> 2 messages, 0 -> 20 bytes\nas right"))
      << result.text;
}

// What is not run any more fails nowhere else.
TEST(CompareRuns, APlanThatIsMissingAfterwardsIsAFaultUnlessThatIsAllowed) {
  const RunRecord before = run_of({plan("p1", {}), plan("p2", {}), plan("p5", {})});
  const RunRecord after = run_of({plan("p4", {}), plan("p2", {}), plan("p3", {})});
  const RunComparison result = compared(before, after),
                      allowed = compared(before, after, {.allow_missing = true});
  EXPECT_FALSE(result.well);
  EXPECT_TRUE(has(result.text, "only before: 2 plans\n  p1\n  p5\nonly after: 2 plans\nworse: "))
      << result.text;
  EXPECT_EQ(last_line(result.text),
            "worse: 2 of 3 plans no longer there (first p1), which --allow-missing allows\n");
  EXPECT_TRUE(allowed.well);
  EXPECT_TRUE(has(allowed.text,
                  "only before: 2 plans\n  p1\n  p5\nonly after: 2 plans\nas right as before: of 1 plan in "
                  "both, 2 no longer there, all that were ok still are,"))
      << allowed.text;
  // One that failed is missed as well; one that is new is not.
  RunRecord failed = run_of({plan("p2", {}), plan("p6", {})});
  failed.plans[1].status = "failed", failed.plans[1].numbers = "step 0: loss";
  EXPECT_EQ(last_line(compared(failed, after).text),
            "worse: 1 of 2 plans no longer there (first p6), which --allow-missing allows\n");
  const RunRecord fewer = run_of({plan("p2", {})});
  EXPECT_TRUE(compared(fewer, after).well);
  EXPECT_TRUE(has(compared(fewer, after).text, "\nonly after: 2 plans\nas right as before: "));
  // The other faults stay faults.
  RunRecord crashed = fewer;
  crashed.plans[0].status = "crashed", crashed.plans[0].ended = "SIGSEGV";
  EXPECT_EQ(last_line(compared(before, crashed).text),
            "worse: 2 of 3 plans no longer there (first p1), which --allow-missing allows; of 1 plan in "
            "both, 1 no longer ok (p2: crashed)\n");
  EXPECT_EQ(last_line(compared(before, crashed, {.allow_missing = true}).text),
            "worse: of 1 plan in both, 2 no longer there, 1 no longer ok (p2: crashed)\n");
  std::vector<PlanRecord> many;
  for (int i = 0; i < 23; ++i) many.push_back(plan("p" + std::to_string(i), {}));
  EXPECT_TRUE(has(compared(run_of(many), fewer).text, "  p20\n  and 2 more: --all\nworse"));
  EXPECT_TRUE(has(compared(run_of(many), fewer, {.all = true}).text, "  p21\n  p22\nworse"));
  EXPECT_TRUE(says(refusal([&] { compared(before, run_of({plan("p7", {})})); }), "no plan in common"));
}

TEST(CompareRuns, ShowsTwentyRowsUnlessAllAreAskedFor) {
  std::vector<PlanRecord> plans, slower;
  for (int i = 0; i < 23; ++i) {
    plans.push_back(plan("p" + std::to_string(100 + i), steady));
    slower.push_back(plan("p" + std::to_string(100 + i), std::vector<double>(6, 12 + i)));
    slower.back().peak_bytes = 5;
  }
  slower[22].hash = "bbbb";
  const std::string some = compared(run_of(plans), run_of(slower)).text;
  const std::string every = compared(run_of(plans), run_of(slower), {.all = true}).text;
  EXPECT_TRUE(says(some, "  and 3 more: --all\ngeometric", "  and 3 more: --all\nworse", "\np103 ",
                   "23 slower",
                   "traffic\n  p122: hash"));  // what makes a fault stands first
  EXPECT_FALSE(has(some, "\np102 "));
  EXPECT_FALSE(has(some, "\n  p119:"));
  EXPECT_FALSE(has(every, "--all"));
  EXPECT_TRUE(says(every, "\np100 ", "\n  p121:"));
}

TEST(CompareRuns, AStepThatTookNoTimeIsDamage) {
  const RunRecord good = run_of({plan("p1", steady)});
  for (const double ms : {0.0, -1.0, std::numeric_limits<double>::infinity()})
    EXPECT_TRUE(says(refusal([&] {
                       compared(good, run_of({plan("p1", {ms, 1})}));
                     }),
                     "damaged", "a step of p1"));
}

}  // namespace
}  // namespace lockstep
