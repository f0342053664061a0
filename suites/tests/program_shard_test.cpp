// lockstep gate --shard: several jobs share a suite, and together judge all of it.
#include <gtest/gtest.h>

#include <set>

#include "suites/sweep/shard.hpp"
#include "suites/tests/junit_reader.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// micro=1 to micro=N, and as many combinations that a rule refused.
Enumeration numbered(int plans, int refused) {
  Enumeration all;
  for (int i = 1; i <= plans; ++i) all.plans.push_back(Plan::parse("micro=" + std::to_string(i)));
  for (int i = 1; i <= refused; ++i)
    all.refused.push_back({Plan::parse("tp=" + std::to_string(i)), {"rule", "why"}});
  return all;
}

std::vector<int> dealt(int plans, const Shard& shard) {
  Enumeration all = numbered(plans, 0);
  deal(all, shard);
  std::vector<int> numbers;
  for (const Plan& p : all.plans) numbers.push_back(p.number("micro"));
  return numbers;
}

TEST(Shard, APartIsANumberOfANumber) {
  const auto right = shard_of("2/4");
  ASSERT_TRUE(right);
  EXPECT_EQ(right->part, 2);
  EXPECT_EQ(right->parts, 4);
  EXPECT_TRUE(shard_of("1/1") && shard_of("4/4"));
  for (const char* wrong : {"",      "x",     "2",     "/",     "2/",
                            "/4",    "0/4",   "5/4",   "2/0",   "0/0",
                            "-1/4",  "+1/4",  "2/-4",  " 2/4",  "2/4 ",
                            "2 / 4", "1.5/4", "2/4/8", "0x1/4", "99999999999/99999999999"})
    EXPECT_FALSE(shard_of(wrong)) << wrong;
}

TEST(Shard, PlansAreDealtBackAndForth) {
  EXPECT_EQ(dealt(10, {1, 4}), (std::vector<int>{1, 8, 9}));
  EXPECT_EQ(dealt(10, {2, 4}), (std::vector<int>{2, 7, 10}));
  EXPECT_EQ(dealt(10, {3, 4}), (std::vector<int>{3, 6}));
  EXPECT_EQ(dealt(10, {4, 4}), (std::vector<int>{4, 5}));
  // An axis of two values alternates: odd and even are in each of two parts.
  EXPECT_EQ(dealt(6, {1, 2}), (std::vector<int>{1, 4, 5}));
}

TEST(Shard, PartsHaveEachPlanOnceAndAreOfOneSize) {
  for (int plans = 1; plans <= 23; ++plans)
    for (int parts = 1; parts <= plans; ++parts) {
      std::multiset<int> seen;
      for (int part = 1; part <= parts; ++part) {
        const std::vector<int> some = dealt(plans, {part, parts});
        EXPECT_GE(static_cast<int>(some.size()), plans / parts);
        EXPECT_LE(static_cast<int>(some.size()), plans / parts + (plans % parts != 0));
        seen.insert(some.begin(), some.end());
      }
      std::multiset<int> whole;
      for (int i = 1; i <= plans; ++i) whole.insert(i);
      EXPECT_EQ(seen, whole) << parts << " parts of " << plans;
    }
}

TEST(Shard, WhatIsRefusedIsToldOnce) {
  std::size_t refused = 0;
  for (int part = 1; part <= 3; ++part) {
    Enumeration all = numbered(7, 5);
    deal(all, {part, 3});
    EXPECT_EQ(all.refused.size(), part == 1 ? 5u : 0u);
    refused += all.refused.size();
  }
  EXPECT_EQ(refused, 5u);
  EXPECT_TRUE(says(refusal([] {
                     Enumeration all = numbered(2, 9);
                     deal(all, {1, 3});
                   }),
                   "--shard 1/3: there are 2 plans to deal out, so at most 2 parts"));
}

// ---- The program --------------------------------------------------------------------------------------

std::string shared_suite(const std::string& more) {
  return suite_text("batch = 6\nseq = 16\nclip = 0.5\nlr = 0.003\nwarmup = 1\n" + more);
}

std::string verdict(const Ended& ended) {
  return ended.out.substr(ended.out.rfind('\n', ended.out.size() - 2) + 1);
}

std::string read_all(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ProgramShard, TogetherTheyJudgeTheSuiteAndEachKnowsItsPart) {
  const TemporaryFolder folder;
  const std::string axes = "[axes]\ntp = [1, 2, 3]\nckpt = [\"none\", \"full\"]\n[expect]\nplans = 4\n";
  const std::string suite = folder.write("g.toml", shared_suite(axes));
  const std::string one = folder.path() + "/1.xml", two = folder.path() + "/2.xml";
  const Ended first = lockstep_program("gate " + suite + " --shard 1/2 --junit " + one);
  const Ended second = lockstep_program("gate " + suite + " --shard 2/2 --junit " + two);
  EXPECT_EQ(first.status, 0) << first.out << first.err;
  EXPECT_EQ(second.status, 0) << second.out << second.err;
  EXPECT_TRUE(says(verdict(first), "VALID: 2 plans, one hash ", ", 2 refused, ", " s (of 4: --shard 1/2)\n"));
  EXPECT_TRUE(
      says(verdict(second), "VALID: 2 plans, one hash ", ", 0 refused, ", " s (of 4: --shard 2/2)\n"));
  const std::string why =
      " skipped: tp=3 does not divide the model's 8 attention heads (rule tp-divides-heads)\n";
  EXPECT_EQ(read_junit(one), "4 0 0\ndp=1 tp=1 pp=1\ndp=1 tp=2 pp=1 ckpt=full\ndp=1 tp=3 pp=1" + why +
                                 "dp=1 tp=3 pp=1 ckpt=full" + why);
  EXPECT_EQ(read_junit(two), "2 0 0\ndp=1 tp=1 pp=1 ckpt=full\ndp=1 tp=2 pp=1\n");
  // Their suites have names of their own; a plan's testcase is the same in whichever part it is.
  EXPECT_TRUE(says(read_all(one), "<testsuite name=\"g 1/2\" ", "<testcase classname=\"g\" "));
  EXPECT_TRUE(says(read_all(two), "<testsuite name=\"g 2/2\" ", "<testcase classname=\"g\" "));
  const Ended some = lockstep_program("gate " + suite + " --only tp=2 --shard 2/2");
  EXPECT_TRUE(says(verdict(some), "VALID: 1 plan, ", " (of 4: --only \"tp=2\" --shard 2/2)\n")) << some.err;
}

// The number of plans is the whole suite's, the hash everybody's: each part checks both.
TEST(ProgramShard, EachPartHoldsTheSuiteToWhatItExpects) {
  const TemporaryFolder folder;
  const std::string axes = "[axes]\ntp = [1, 2]\nckpt = [\"none\", \"full\"]\n[expect]\n";
  const std::string fewer = folder.write("p.toml", shared_suite(axes + "plans = 5\n")),
                    other = folder.write("h.toml", shared_suite(axes + "plans = 4\nhash = \"00\"\n"));
  for (const std::string part : {"1/2", "2/2"}) {
    const Ended plans = lockstep_program("gate " + fewer + " --shard " + part);
    EXPECT_EQ(plans.status, 1);
    EXPECT_TRUE(says(verdict(plans), "INVALID: 4 plans may run, and the suite expects 5; ",
                     " (of 4: --shard " + part + ")\n"));
    const std::string junit = folder.path() + "/j.xml";
    const Ended hash = lockstep_program("gate " + other + " --junit " + junit + " --shard " + part);
    EXPECT_EQ(hash.status, 1);
    EXPECT_TRUE(says(verdict(hash), "INVALID: the reference's hash is ", "the suite expects 00: "));
    EXPECT_TRUE(says(read_junit(junit), "1 0 1\nthe suite " + part + " error: INVALID: "));
  }
  // Under weak scaling it is the smallest batch's: dp=1 and dp=4 are part 1, dp=2 and dp=2 tp=2 part 2.
  const std::string weak = folder.write(
      "w.toml", shared_suite("scaling = \"weak\"\n[[axes]]\ndp = [1, 2]\n[[also]]\nplan = \"dp=2 tp=2\"\n"
                             "[[also]]\nplan = \"dp=4\"\n[expect]\nplans = 4\nhash = \"00\"\n"));
  EXPECT_TRUE(says(verdict(lockstep_program("gate " + weak + " --shard 1/2")), "the suite expects 00: "));
  EXPECT_TRUE(says(verdict(lockstep_program("gate " + weak + " --shard 2/2")), "VALID: 2 plans, "));
}

TEST(ProgramShard, WhatIsNoPartIsRefused) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("g.toml", shared_suite("[axes]\ntp = [1, 2]\n"));
  for (const auto& [said, sentence] :
       {std::pair{
            "0/4",
            "--shard: `0/4` is no part; write this job's number, from 1, and how many jobs there are: 2/4"},
        {"5/4", "`5/4` is no part"},
        {"x", "`x` is no part"},
        {"''", "`` is no part"},
        {"1/3", "--shard 1/3: there are 2 plans to deal out, so at most 2 parts"},
        {"1/2 --plan tp=2", "--plan excludes --shard"}}) {
    const Ended ended = lockstep_program("gate " + suite + " --shard " + said);
    EXPECT_EQ(ended.status, 2) << said;
    EXPECT_TRUE(says(ended.err, sentence));
  }
}

}  // namespace
}  // namespace lockstep
