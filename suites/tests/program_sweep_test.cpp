// lockstep sweep: a suite's plans, its verdict and its record.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/cores.hpp"
#include "reports/h5.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

std::string swept_suite(const std::string& more) {
  return suite_text("batch = 8\nseq = 16\nclip = 0.5\nlr = 0.01\nwarmup = 1\n" + more);
}

// A job that may use one core of many times no plan of two ranks.
TEST(ProgramSweep, CoresAreThoseThatItMayUse) {
  const TemporaryFolder folder;
  const std::string suite = folder.write(
      "tiny.toml", swept_suite("steps = 1\ntimed_steps = 2\ntimed_steps_most = 2\n[axes]\ndp = [1, 2]\n"));
  const Ended ended = lockstep_program("sweep " + suite + " --out " + folder.path() + "/out",
                                       "taskset -c " + std::to_string(core_numbers().front()) + " ");
  ASSERT_EQ(ended.status, 0) << ended.out << ended.err;
  const h5::Reader run(folder.path() + "/out/run.h5");
  EXPECT_EQ(run.attribute("cores"), "1");
  EXPECT_EQ(run.read<i64>("/plans/timed").values, (std::vector<i64>{1, 0}));
  // Two threads of a rank want two of them.
  ASSERT_EQ(lockstep_program("sweep " + suite + " --only dp=1 --threads 2 --out " + folder.path() + "/two",
                             "taskset -c " + std::to_string(core_numbers().front()) + " ")
                .status,
            0);
  EXPECT_EQ(h5::Reader(folder.path() + "/two/run.h5").read<i64>("/plans/timed").values, std::vector<i64>{0});
}

TEST(ProgramSweep, TinySuiteIsValidAndRecorded) {
  const TemporaryFolder folder;
  const std::string suite =
      folder.write("tiny.toml", swept_suite("timed_steps = 2\ntimed_steps_most = 2\n[axes]\ntp = [1, 2, "
                                            "3]\npp = [1, 2]\n[[also]]\nplan = \"dp=2 ckpt=full\"\n"));
  const Ended ended = lockstep_program("sweep " + suite + " --out " + folder.path() + "/out");
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  const std::string last = ended.out.substr(ended.out.rfind('\n', ended.out.size() - 2) + 1);
  EXPECT_TRUE(last.starts_with("VALID: 5 plans, one hash ")) << ended.out;
  EXPECT_TRUE(says(last, ", 2 refused, "));

  const h5::Reader run(folder.path() + "/out/run.h5");
  EXPECT_EQ(run.strings("/plans/plan"),
            (std::vector<std::string>{"dp=1 tp=1 pp=1", "dp=1 tp=1 pp=2", "dp=1 tp=2 pp=1", "dp=1 tp=2 pp=2",
                                      "dp=2 tp=1 pp=1 ckpt=full"}));
  EXPECT_EQ(run.strings("/plans/status"), std::vector<std::string>(5, "ok"));
  EXPECT_EQ(run.strings("/plans/hash"), std::vector<std::string>(5, run.attribute("hash")));
  EXPECT_EQ(run.attribute("reference_hash"), run.attribute("hash"));
  EXPECT_EQ(run.attribute("verdict") + "\n", last);
  EXPECT_EQ(run.strings("/refused/rule"), std::vector<std::string>{"tp-divides-heads"});
  // 509 x 64 embedding, final norm, 8 layers: 2 norms, q and o 64 x 64, k and v 16 x 64, MLP 3 x 172 x 64.
  EXPECT_EQ(run.attribute("parameters"),
            std::to_string(509 * 64 + 64 + 8 * (2 * 64 + 2 * 64 * 64 + 2 * 16 * 64 + 3 * 172 * 64)));
  // A whole replica holds every stored weight (512 padded rows) once, its moments twice.
  const auto weights = run.read<i64>("/plans/peak_by_kind/weights").values;
  EXPECT_EQ(weights[0], 4 * (512 * 64 + 64 + 8 * (2 * 64 + 2 * 64 * 64 + 2 * 16 * 64 + 3 * 172 * 64)));
  EXPECT_EQ(run.read<i64>("/plans/peak_by_kind/optimizer").values[0], 2 * weights[0]);
  // One rank sends nothing; two replicas reduce every gradient element once on each, and a tied weight's two
  // gradients apart (kernels/EXACT.md).
  EXPECT_EQ(run.read<i64>("/plans/traffic/dp/bytes").values[0], 0);
  EXPECT_EQ(run.read<i64>("/plans/traffic/dp/bytes").values[4], 2 * (weights[0] + 4 * 512 * 64));
  // Two stages hand on 8 x 16 x 64 floats and get as many back; what is received is not sent once more.
  EXPECT_EQ(run.read<i64>("/plans/traffic/pp/bytes").values[1], 2 * 4 * 8 * 16 * 64);
  // Timed if a core is there for every rank.
  const auto timed = run.read<i64>("/plans/timed").values, ranks = run.read<i64>("/plans/ranks").values;
  for (std::size_t i = 0; i < ranks.size(); ++i)
    EXPECT_EQ(timed[i], ranks[i] <= std::stoi(run.attribute("cores")));
  EXPECT_EQ(run.read<double>("/plans/step_seconds").shape, (h5::Shape{5, 2}));
  const auto seconds = run.read<double>("/plans/step_seconds").values,
             speed = run.read<double>("/plans/tokens_per_second").values;
  for (std::size_t i = 0; i < ranks.size(); ++i)  // by the median, which of two is their mean
    if (timed[i]) {
      EXPECT_NEAR(speed[i] * (seconds[2 * i] + seconds[2 * i + 1]) / 2, 8 * 16, 1e-6);
    }
  // Before it has learned anything it guesses one of 509 tokens; and the exact sums keep more than the fast.
  const auto loss = run.read<double>("/plans/loss").values,
             norm = run.read<double>("/plans/grad_norm").values;
  const auto peak = run.read<i64>("/plans/peak_bytes").values,
             exact = run.read<i64>("/plans/exact_peak_bytes").values;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    EXPECT_NEAR(loss[i * loss.size() / 5], std::log(509.0), 0.1);
    EXPECT_GT(norm[i * norm.size() / 5], 0.5) << "it was clipped";
    EXPECT_LT(norm[i * norm.size() / 5], 3);
    EXPECT_GT(exact[i], peak[i]);
  }
  // One more step of a timed plan is recorded as it went: every instant of every rank belongs to something.
  const auto measured = run.strings("/plans/measured_timeline");
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    ASSERT_EQ(measured[i].empty(), !timed[i]);
    if (!timed[i]) continue;
    const auto step = nlohmann::json::parse(measured[i]);
    double parts = 0;
    for (const auto& [name, part] : step["parts"].items()) parts += part.get<double>();
    EXPECT_GT(parts, 0.5);  // ranks begin and end at different moments
    EXPECT_LT(parts, 1 + 1e-9);
    for (const char* pass : {"forward", "backward", "update"})
      EXPECT_NE(std::find(step["passes"].begin(), step["passes"].end(), pass), step["passes"].end()) << pass;
    std::set<int> stages;
    for (const auto& stream : step["streams"])
      if (stream[1] == "compute") stages.insert(stream[0].get<int>());
    EXPECT_EQ(stages.size(), i % 2 + 1);  // pp of the five plans
  }
}

// A replica keeps its 4 sequences: one device of 4 and one of 8 have each a reference of their own.
TEST(ProgramSweep, WeakScalingHoldsEachBatchToItsOwnReference) {
  const TemporaryFolder folder;
  const std::string suite =
      folder.write("weak.toml", swept_suite("scaling = \"weak\"\n[axes]\ndp = [1, 2]\nzero = [0, 1]\n"));
  const std::string out = folder.path() + "/out";
  const Ended ended = lockstep_program("sweep " + suite + " --out " + out);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "reference of 8 sequences: hash ", "reference of 16 sequences: hash ",
                   "for each of 2 batches one hash "));
  const h5::Reader run(out + "/run.h5");
  EXPECT_EQ(run.read<i64>("/plans/tokens_per_step").values, (std::vector<i64>{128, 128, 256, 256}));
  const auto hash = run.strings("/plans/hash");
  EXPECT_EQ(hash[0], run.attribute("reference_hash"));
  EXPECT_EQ(hash[1], hash[0]);
  EXPECT_NE(hash[2], hash[0]);
  EXPECT_EQ(hash[3], hash[2]);
  // The hash of two replicas is that of one device on 16 sequences.
  std::string other = swept_suite("[[also]]\nplan = \"dp=1\"\n");
  other.replace(other.find("batch = 8"), 9, "batch = 16");
  EXPECT_TRUE(
      says(lockstep_program("gate " + folder.write("sixteen.toml", other)).out, "exact: hash " + hash[2]));
  // Going on needs neither reference again.
  EXPECT_TRUE(says(lockstep_program("sweep " + suite + " --out " + out).out, "reference, kept of 8 sequences",
                   "reference, kept of 16 sequences"));
  EXPECT_TRUE(
      says(lockstep_program("sweep " + folder.write("x.toml", swept_suite("scaling = \"week\"\n"))).err,
           "scaling is \"week\"; it can be \"strong\", or \"weak\""));
}

// ci/sweep.sh holds the verdict back, so that it stands last.
TEST(ProgramSweep, TheVerdictGoesToAFileWhenAsked) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("one.toml", swept_suite("[[also]]\nplan = \"dp=1\"\n"));
  const std::string file = folder.path() + "/verdict.txt";
  const Ended ended = lockstep_program("sweep " + suite + " --verdict " + file);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_EQ(ended.out.find("VALID: "), std::string::npos) << ended.out;
  std::string verdict;
  std::getline(std::ifstream(file), verdict);
  EXPECT_TRUE(verdict.starts_with("VALID: 1 plan, one hash ")) << verdict;
  EXPECT_TRUE(says(lockstep_program("sweep " + suite + " --jobs 0").err, "--jobs"));
}

// A run file has seed and data, but not the learning rate: with another one the same training, as far as it
// says, has another hash.
TEST(ProgramSweep, TwoSweepsAreComparedPlanByPlan) {
  const TemporaryFolder folder;
  const auto sweep = [&](const std::string& name, const std::string& from, const std::string& to) {
    std::string text = swept_suite("seed = 1\ntimed_steps = 6\ntimed_steps_most = 6\n[axes]\ndp = [1, 2]\n");
    text.replace(text.find(from), from.size(), to);
    const std::string suite = folder.write("tiny.toml", text), out = folder.path() + "/" + name;
    const Ended ended = lockstep_program("sweep " + suite + " --out " + out);
    EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
    return out;
  };
  const std::string before = sweep("before", "seed = 1", "seed = 1"),
                    after = sweep("after", "dp = [", "dp = [");
  const Ended same = lockstep_program("compare " + before + " " + after + "/run.h5");
  EXPECT_EQ(same.status, 0) << same.err;
  EXPECT_TRUE(
      says(same.out, "circumstances are equal\nmedian step of a plan timed in both ", "\ndp=1 tp=1 pp=1 ",
           "geometric mean of ", " ratio",
           "\nas right as before: of 2 plans in both, all that were ok still are, with the same hashes; a "
           "step takes "));
  EXPECT_FALSE(says(same.out, "another status"));
  EXPECT_EQ(lockstep_program("compare --slower 1e9 " + before + " " + after).status, 0);

  // A plan that the second sweep does not run any more.
  const std::string one = sweep("one", "dp = [1, 2]", "dp = [1]");
  const Ended missing = lockstep_program("compare " + before + " " + one);
  EXPECT_EQ(missing.status, 1);
  EXPECT_TRUE(
      says(missing.out, "\nonly before: 1 plan\n  dp=2 tp=1 pp=1\nworse: 1 of 2 plans no longer there "));
  EXPECT_EQ(lockstep_program("compare --allow-missing " + before + " " + one).status, 0);
  EXPECT_EQ(lockstep_program("compare " + one + " " + before).status, 0);

  const Ended seed = lockstep_program("compare " + before + " " + sweep("seed", "seed = 1", "seed = 2"));
  EXPECT_EQ(seed.status, 0);
  EXPECT_TRUE(says(seed.out, "  seed: 1 -> 2\n", "  model hash: ", "  reference hash: ",
                   "\n2 plans in both with another status, hash, memory or traffic\n  dp=1 tp=1 pp=1: hash ",
                   "but hashes say nothing, for model hash, seed differ;"));
  const Ended rate = lockstep_program("compare " + before + " " + sweep("rate", "lr = 0.01", "lr = 0.02"));
  EXPECT_EQ(rate.status, 1);
  EXPECT_TRUE(says(rate.out, "\nworse: of 2 plans in both, 2 of another hash, though model, data, "));
}

TEST(ProgramSweep, DryRunListsPlansAndRefusals) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("tiny.toml", swept_suite("[axes]\ntp = [1, 3]\nsp = [0, 1]\n"));
  const Ended ended = lockstep_program("sweep --dry-run " + suite);
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "dp=1 tp=1 pp=1\n", "refused by tp-divides-heads: 2",
                   "refused by word-without-effect: 1", "does not divide", "1 plans, 3 refused"));
}

// Whatever computes the plans, a list of them needs it not.
TEST(ProgramSweep, DryRunNeedsNoGpu) {
  const Ended ended = lockstep_program("sweep --dry-run suites/gpu.toml");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "126 plans, "));
}

// Somebody copied it there: that plan has not run.
TEST(ProgramSweep, ARecordUnderAnotherPlansNameIsNone) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("tiny.toml", swept_suite("[axes]\ndp = [1, 2]\n")),
                    out = folder.path() + "/out";
  ASSERT_EQ(lockstep_program("sweep " + suite + " --out " + out).status, 0);
  std::filesystem::copy_file(out + "/plans/dp=1_tp=1_pp=1.h5", out + "/plans/dp=2_tp=1_pp=1.h5",
                             std::filesystem::copy_options::overwrite_existing);
  ASSERT_EQ(lockstep_program("sweep " + suite + " --out " + out).status, 0);
  EXPECT_EQ(h5::Reader(out + "/run.h5").strings("/plans/plan"),
            (std::vector<std::string>{"dp=1 tp=1 pp=1", "dp=2 tp=1 pp=1"}));
}

TEST(ProgramSweep, DryRunSaysWhatIsCovered) {
  const TemporaryFolder folder;
  // Legal: tp 1 with sp 0, tp 2 with either, and ckpt free; of these pairs of values only tp 1, sp 1 is not.
  const std::string suite =
      folder.write("c.toml", swept_suite("[cover]\ntp = [1, 2]\nsp = \"*\"\nckpt = [\"none\", \"full\"]\n"));
  const Ended ended = lockstep_program("sweep --dry-run " + suite);
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, " plans: 11 of 11 legal pairs of values\n",
                   "2 of 2 legal pairs of strategies\n", "0 of 0 legal triples of strategies\n",
                   " 0 refused"));
}

TEST(ProgramSweep, ClippingThatNeverActsIsInvalid) {
  const TemporaryFolder folder;
  std::string text = swept_suite("[axes]\ndp = [1, 2]\n");
  text.replace(text.find("clip = 0.5"), 10, "clip = 1e9");
  const Ended ended =
      lockstep_program("sweep " + folder.write("tiny.toml", text) + " --out " + folder.path());
  EXPECT_EQ(ended.status, 1);
  EXPECT_TRUE(says(ended.out, "INVALID: ", "clipping"));
  EXPECT_TRUE(h5::Reader(folder.path() + "/run.h5").attribute("verdict").starts_with("INVALID"));
}

// Each step has other data, so a loss may fall by chance.
TEST(ProgramSweep, WeightsThatStayAreInvalid) {
  const TemporaryFolder folder;
  std::string text = swept_suite("[axes]\ndp = [1, 2]\n");
  text.replace(text.find("lr = 0.01"), 9, "lr = 0.0");
  const Ended ended = lockstep_program("sweep " + folder.write("tiny.toml", text));
  EXPECT_EQ(ended.status, 1);
  EXPECT_TRUE(says(ended.out, "INVALID: ", "do not change")) << ended.out << ended.err;
}

TEST(ProgramSweep, APartOfASuiteIsSaidToBeOne) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("tiny.toml", swept_suite("[axes]\ndp = [1, 2]\nzero = [0, 1]\n"));
  const Ended ended = lockstep_program("gate " + suite + " --only 'zero=0 dp=2'");
  EXPECT_EQ(ended.status, 0);
  EXPECT_TRUE(says(ended.out, "VALID: 1 plan, ", "(of 4: --only \"zero=0 dp=2\")")) << ended.out;
}

// A sweep that gets signals once its log shows such a line; how it ended, and its last words.
Ended interrupted(const TemporaryFolder& folder, const std::string& suite, const std::string& line,
                  const std::string& signals) {
  const std::string log = folder.path() + "/log";
  return shell("'" + beside("lockstep") + "' sweep " + suite + " --out " + folder.path() + "/out >" + log +
               " & pid=$!\nuntil grep -q '" + line + "' " + log +
               " 2>/dev/null; do kill -0 $pid || break; done\nfor s in " + signals +
               "; do kill -$s $pid; done; wait $pid; status=$?; tail -n 1 " + log + "; exit $status");
}
const char* const kManyPlans = "[axes]\ndp = [1, 2, 4, 8]\nmicro = [1, 2, 4, 8]\npp = [1, 2, 4, 8]\n";

// A terminal's Ctrl-C: the record says which plans were checked before it.
TEST(ProgramSweep, InterruptedSweepKeepsItsRecord) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("many.toml", swept_suite(kManyPlans));
  const Ended ended = interrupted(folder, suite, "^1/", "TERM");
  EXPECT_EQ(ended.status, 1);
  EXPECT_TRUE(says(ended.out, "INVALID: interrupted after "));
  EXPECT_TRUE(says(ended.err, "ends when the plans under way do; a second time ends at once"));
  const h5::Reader run(folder.path() + "/out/run.h5");
  EXPECT_GE(run.strings("/plans/plan").size(), 1u);
  EXPECT_TRUE(says(run.attribute("verdict"), "interrupted"));
  EXPECT_EQ(run.attribute("hash"), "");
}

TEST(ProgramSweep, ASecondSignalOfAnotherKindEndsAtOnce) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("many.toml", swept_suite(kManyPlans));
  const Ended ended = interrupted(folder, suite, "^1/", "TERM INT");
  EXPECT_GT(ended.status, 128) << ended.out << ended.err;  // by a signal, whichever came last
}

// Nothing is lost with a reference that is not made yet; of this one a step takes very long.
TEST(ProgramSweep, ASignalEndsTheReference) {
  const TemporaryFolder folder;
  std::string text = swept_suite("[axes]\ndp = 1\n");
  text.replace(text.find("batch = "), 8, "batch = 100000 #");
  const Ended ended = interrupted(folder, folder.write("long.toml", text), "100000 x ", "TERM");
  EXPECT_EQ(ended.status, 128 + 15) << ended.out << ended.err;
}

}  // namespace
}  // namespace lockstep
