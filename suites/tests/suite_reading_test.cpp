// Suites as TOML: what is read, and how mistakes are named.
#include <gtest/gtest.h>

#include <set>

#include "suites/sweep/suite.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

const std::string run = "[run]\nmodel = \"models/m.json\"\ndata = \"d.tok\"\n";  // 3 lines

std::string mistake(const std::string& text) {
  const TemporaryFolder folder;
  const std::string path = folder.write("s.toml", text);
  return refusal([&] { read_suite(path); });
}

TEST(Suite, ReadsEverything) {
  const TemporaryFolder folder;
  const Suite s = read_suite(
      folder.write("mine.toml",
                   "[run]\nmodel = \"../m.json\"\ndata = \"d.tok\"\nbatch = 4\nlr = 1\n"
                   "weight_decay = 0.2\nisa = \"plain\"\nthreads = 2\ntimed_steps = 7\ntimed_spread = 0.1\n"
                   "[axes]\nckpt = [\"full\", \"none\"]\ntp = 2\ndp = [1, 2]\n"
                   "[limits]\nranks = 3\nseconds = 1.5\nmemory = 2\n[[also]]\nplan = "
                   "\"pp=2\"\n[[also]]\nplan = \"tp=4\"\n"));
  EXPECT_EQ(s.name, "mine");
  EXPECT_EQ(s.model, (std::filesystem::path(folder.path()).parent_path() / "m.json").string());
  EXPECT_EQ(s.data, folder.path() + "/d.tok");
  EXPECT_EQ(s.settings.batch, 4);
  EXPECT_EQ(s.settings.lr, 1.0);
  EXPECT_EQ(s.settings.weight_decay, 0.2);
  EXPECT_EQ(s.isa, "plain");
  EXPECT_EQ(s.threads, 2);
  EXPECT_EQ(s.repeats.least, 7);
  EXPECT_EQ(s.repeats.most, 30);
  EXPECT_EQ(s.repeats.spread, 0.1);
  EXPECT_EQ(s.max_seconds, 1.5);
  EXPECT_EQ(s.max_memory, 2);
  EXPECT_EQ(s.max_ranks, 3);
  ASSERT_EQ(s.grids.size(), 1u);
  ASSERT_EQ(s.grids[0].size(), 3u);
  EXPECT_EQ(s.grids[0][0].word, "dp");
  EXPECT_EQ(s.grids[0][0].values, (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(s.grids[0][1].word, "tp");
  EXPECT_EQ(s.grids[0][2].values, (std::vector<std::string>{"full", "none"}));
  ASSERT_EQ(s.also.size(), 2u);
  EXPECT_EQ(s.also[1].line(), "dp=1 tp=4 pp=1");
}

TEST(Suite, AsManyStepsAreTimedAsAreAskedFor) {
  const TemporaryFolder folder;
  const Suite s = read_suite(folder.write(
      "s.toml", "[run]\nmodel = \"m.json\"\ndata = \"d.tok\"\ntimed_steps = 50\n[axes]\ndp = 1\n"));
  EXPECT_EQ(s.repeats.least, 50);
  EXPECT_GE(s.repeats.most, 50);  // of itself it is 30
}

TEST(Suite, EnumeratesEveryCombinationOnce) {
  Suite s;
  s.grids = {{{"dp", {"1", "2"}}, {"tp", {"1", "3"}}, {"pp", {"1", "2"}}}};
  s.also = {Plan::parse("dp=2"), Plan::parse("tp=2")};  // the first is among the axes
  s.max_ranks = 3;
  s.settings.batch = 8;
  const Enumeration all = enumerate(s, load_model_config("suites/models/gate-tiny.json"));
  std::vector<std::string> lines, rules;
  for (const Plan& p : all.plans) lines.push_back(p.line());
  for (const auto& r : all.refused) rules.push_back(r.plan.line() + ": " + r.refusal.rule);
  EXPECT_EQ(lines, (std::vector<std::string>{"dp=1 tp=1 pp=1", "dp=1 tp=1 pp=2", "dp=2 tp=1 pp=1",
                                             "dp=1 tp=2 pp=1"}));
  EXPECT_EQ(rules, (std::vector<std::string>{"dp=1 tp=3 pp=1: tp-divides-heads",
                                             "dp=1 tp=3 pp=2: limit-ranks", "dp=2 tp=1 pp=2: limit-ranks",
                                             "dp=2 tp=3 pp=1: limit-ranks", "dp=2 tp=3 pp=2: limit-ranks"}));
}

TEST(Suite, SeveralAxesAreSeveralGrids) {
  const TemporaryFolder folder;
  Suite s = read_suite(
      folder.write("s.toml", run + "[[axes]]\ndp = [1, 2]\ntp = 2\n[[axes]]\npp = [1, 2]\ntp = 2\n"));
  const Enumeration all = enumerate(s, load_model_config("suites/models/gate-tiny.json"));
  std::vector<std::string> lines;
  for (const Plan& p : all.plans) lines.push_back(p.line());
  EXPECT_EQ(lines, (std::vector<std::string>{"dp=1 tp=2 pp=1", "dp=2 tp=2 pp=1", "dp=1 tp=2 pp=2"}));
  for (const char* header : {"[*run]", "[.x]", "[\xc3\xa9]", "[`axes]]", "[{t}]", "["})
    EXPECT_TRUE(says(mistake(run + header + "\n"), "s.toml", "not TOML")) << header;
  std::string hundreds = "[[axes]]\n";
  for (const char* word : {"dp", "micro", "every"}) {
    hundreds += std::string(word) + " = [1";
    for (int i = 2; i <= 47; ++i) hundreds += ", " + std::to_string(i);
    hundreds += "]\n";
  }
  EXPECT_TRUE(
      says(mistake(run + hundreds), "s.toml:4: ", "103823 combinations", "at most 100000", "[cover]"));
  EXPECT_TRUE(
      says(mistake(run + "[[axes]]\ndp = 1\n[[axes]]\ntpp = 1\n"), "s.toml:7: ", "`tpp` in [[axes]]"));
}

TEST(Suite, ReadsACover) {
  const TemporaryFolder folder;
  const Suite s = read_suite(folder.write(
      "s.toml", run + "[cover]\npp = 2\ndp = [4, 1]\nzero = \"*\"\nckpt = \"full\"\nplans = 7\nseed = 3\n"));
  ASSERT_TRUE(s.cover);
  EXPECT_EQ(s.cover->plans, 7);
  EXPECT_EQ(s.cover->seed, 3);
  ASSERT_EQ(s.cover->axes.size(), 4u);
  EXPECT_EQ(s.cover->axes[0].values, (std::vector<std::string>{"4", "1"}));
  EXPECT_EQ(s.cover->axes[1].word, "pp");
  EXPECT_EQ(s.cover->axes[2].word, "ckpt");
  EXPECT_EQ(s.cover->axes[2].values, (std::vector<std::string>{"full"}));
  EXPECT_EQ(s.cover->axes[3].values, (std::vector<std::string>{"0", "1", "2", "3"}));
  EXPECT_FALSE(read_suite(folder.write("t.toml", run + "[axes]\ndp = 1\n")).cover);

  // others: every further word whose values are listed; every=k is a number, and stays out.
  const Suite others = read_suite(folder.write("u.toml", run + "[cover]\nckpt = \"full\"\nothers = \"*\"\n"));
  std::set<std::string> found, listed;
  for (const SuiteAxis& axis : others.cover->axes) {
    EXPECT_TRUE(found.insert(axis.word).second);
    EXPECT_EQ(axis.values.size() == 1, axis.word == "ckpt");
  }
  for (const Word& word : plan_words())
    if (!word.values.empty()) listed.insert(word.name);
  EXPECT_EQ(found, listed);
  EXPECT_TRUE(found.count("zero") && found.count("schedule") && !found.count("every"));
}

TEST(Suite, MistakesInACoverAreNamed) {
  const std::string cover = run + "[cover]\n";  // line 4
  EXPECT_TRUE(says(mistake(cover + "dp = 1\ntpp = 2\n"), "s.toml:6: ", "`tpp` in [cover]", "`tp`"));
  EXPECT_TRUE(says(mistake(cover + "ckpt = [\"none\", \"ful\"]\n"), "s.toml:5: ", "`ckpt=ful`", "`full`"));
  EXPECT_TRUE(says(mistake(cover + "dp = [1, 2.5]\n"), "s.toml:5: ", "dp", "2.5"));
  EXPECT_TRUE(says(mistake(cover + "dp = []\n"), "s.toml:5: ", "dp needs at least one value"));
  EXPECT_TRUE(says(mistake(cover + "dp = [1, 2, 1]\n"), "s.toml:5: ", "dp: a value is said twice"));
  EXPECT_TRUE(says(mistake(cover + "dp = \"*\"\n"), "s.toml:5: ", "dp", "number from 1 to 999999"));
  EXPECT_TRUE(says(mistake(cover + "dp = 1\nothers = \"zero\"\n"), "s.toml:6: ", "others is \"zero\""));
  EXPECT_TRUE(
      says(mistake(cover + "dp = 1\nplans = \"many\"\n"), "s.toml:6: ", "plans must be a whole number"));
  EXPECT_TRUE(says(mistake(cover + "dp = 1\nplans = -1\n"), "s.toml:6: ", "plans is -1", "from 0"));
  EXPECT_TRUE(says(mistake(cover + "plans = 3\n"), "s.toml:4: ", "[cover] needs at least one word"));
  EXPECT_TRUE(says(mistake("cover = 3\n" + run), "s.toml:1: ", "must be a table: write [cover]"));
  std::string many = "micro = [1";
  for (int i = 2; i <= 65; ++i) many += ", " + std::to_string(i);
  EXPECT_TRUE(says(mistake(cover + many + "]\n"), "s.toml:5: ", "micro has 65 values", "64"));
}

TEST(Suite, UnknownKeysAreNamedWithTheNearestKnownOne) {
  EXPECT_TRUE(says(mistake(run + "stesp = 3\n"), "s.toml:4: ", "no key `stesp` in [run]", "`steps`"));
  EXPECT_TRUE(says(mistake("[run]\nmodle = \"m.json\"\ndata = \"d.tok\"\n"),
                   "s.toml:2: no key `modle` in [run]; did you mean `model`?"));
  EXPECT_TRUE(says(mistake(run + "[axis]\n"), "s.toml:4: ", "`axis`", "`axes`"));
  EXPECT_TRUE(says(mistake(run + "[axes]\ndp = 1\ntpp = [1, 2]\n"), "s.toml:6: ", "`tpp` in [axes]", "`tp`"));
  EXPECT_TRUE(says(mistake(run + "[limits]\nrank = 3\n"), "s.toml:5: ", "`rank` in [limits]", "`ranks`"));
  EXPECT_TRUE(
      says(mistake(run + "[[also]]\nplans = \"dp=2\"\n"), "s.toml:5: ", "`plans` in [[also]]", "`plan`"));
}

TEST(Suite, WrongTypesAreNamed) {
  EXPECT_TRUE(
      says(mistake(run + "batch = \"16\"\n"), "s.toml:4: ", "batch must be a whole number, not \"16\""));
  EXPECT_TRUE(says(mistake(run + "batch = 1.5\n"), "s.toml:4: ", "whole number, not 1.5"));
  EXPECT_TRUE(says(mistake(run + "lr = true\n"), "s.toml:4: ", "lr must be a number, not true or false"));
  EXPECT_TRUE(says(mistake("[run]\nmodel = 3\n"), "s.toml:2: ", "model must be a text"));
  EXPECT_TRUE(says(mistake("run = 3\n"), "s.toml:1: ", "must be a table"));
  EXPECT_TRUE(says(mistake(run + "[axes]\ndp = [1, 2.5]\n"), "s.toml:5: ", "dp", "2.5"));
  EXPECT_TRUE(says(mistake(run + "also = 3\n"), "s.toml:4: "));
  EXPECT_TRUE(says(mistake(run + "also = 3\n"), "no key `also` in [run]"));
}

TEST(Suite, WrongValuesAreNamed) {
  EXPECT_TRUE(says(mistake(run + "threads = 0\n"), "s.toml:4: ", "threads is 0", "from 1"));
  EXPECT_TRUE(says(mistake(run + "clip = -1\n[axes]\ndp = 1\n"), "clip is -1"));
  EXPECT_TRUE(
      says(mistake(run + "[axes]\nckpt = [\"none\",\n  \"ful\"]\n"), "s.toml:6: ", "`ckpt=ful`", "`full`"));
  EXPECT_TRUE(says(mistake(run + "[axes]\ndp = [0]\n"), "s.toml:5: ", "dp=0"));
  EXPECT_TRUE(says(mistake(run + "[axes]\ndp = []\n"), "s.toml:5: ", "dp needs at least one value"));
  EXPECT_TRUE(says(mistake(run + "[[also]]\nplan = \"dp=2 dp=2\"\n"), "s.toml:", "said twice"));
}

TEST(Suite, MissingPartsAreNamed) {
  EXPECT_TRUE(says(mistake("[run]\nmodel = \"m.json\"\n"), "s.toml", "data is missing in [run]"));
  EXPECT_TRUE(says(mistake("[axes]\ndp = 1\n"), "model is missing in [run]"));
  EXPECT_TRUE(says(mistake(run), "[axes], [cover] or [[also]] is missing"));
  EXPECT_TRUE(says(mistake(run + "[[also]]\n"), "s.toml:4: ", "plan is missing in [[also]]"));
  EXPECT_TRUE(says(mistake("[run\n"), "s.toml:1: ", "not TOML"));
  EXPECT_TRUE(says(refusal([] { read_suite("no/such.toml"); }), "no/such.toml"));
}

// The suite that comes with the program keeps what its comments promise.
TEST(Suite, SmokeIsBroad) {
  const Suite s = read_suite("suites/smoke.toml");
  const ModelConfig m = load_model_config(s.model);
  const Enumeration all = enumerate(s, m);
  EXPECT_GE(all.plans.size(), 80u);
  EXPECT_LT(m.kv_heads, 4);
  EXPECT_TRUE(m.tied);
  bool wide_dp = false, wide_tp = false, wide_pp = false;
  std::size_t three_microbatches = 0;
  for (const Plan& p : all.plans) {
    const int dp = p.number("dp"), tp = p.number("tp"), pp = p.number("pp");
    EXPECT_LE(p.ranks(), 16);
    wide_dp |= dp == 4 && tp >= 2 && pp >= 2;
    wide_tp |= dp >= 2 && tp == 4 && pp >= 2;
    wide_pp |= dp >= 2 && tp >= 2 && pp == 4;
    three_microbatches += s.settings.batch / dp / p.number("micro") >= 3;
  }
  EXPECT_TRUE(wide_dp && wide_tp && wide_pp);
  EXPECT_GT(three_microbatches * 2, all.plans.size());
}

}  // namespace
}  // namespace lockstep
