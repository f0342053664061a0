#include <gtest/gtest.h>

#include "parallel/plan.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

std::string complaint(const std::string& line) {
  try {
    Plan::parse(line);
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

TEST(Plan, ReadsWordsAndPrintsThemInOneOrder) {
  const Plan p = Plan::parse("micro=2  pp=4 ckpt=full dp=2");
  EXPECT_EQ(p.ranks(), 8);
  EXPECT_EQ(p.line(), "dp=2 tp=1 pp=4 micro=2 ckpt=full");
  EXPECT_EQ(Plan::parse(p.line()).line(), p.line());
}

// reports/plans.py takes a plan's name from its line, and knows the mesh's defaults alone.
TEST(Plan, ItsLineNamesTheMeshAndWhatIsNotAtItsDefault) {
  EXPECT_EQ(Plan::parse("").line(), "dp=1 tp=1 pp=1");
  for (const Word& word : plan_words()) {
    const bool mesh = word.name == "dp" || word.name == "tp" || word.name == "pp";
    std::vector<std::string> values = word.values;
    if (values.empty()) values = {"1", "2"};
    for (const std::string& value : values) {
      const std::string said = word.name + "=" + value, line = " " + Plan::parse(said).line() + " ";
      const bool named = line.find(" " + said + " ") != std::string::npos;
      EXPECT_EQ(named, mesh || value != word.fallback) << said;
    }
  }
}

TEST(Plan, RefusesWhatNobodyKnowsAndNamesTheNearest) {
  EXPECT_EQ(complaint("ckp=full"), "plan: no word `ckp`; did you mean `ckpt`?");
  EXPECT_NE(complaint("ckpt=ful").find("did you mean `full`?"), std::string::npos);
  EXPECT_NE(complaint("dp=0").find("from 1 to 999999"), std::string::npos);
  EXPECT_NE(complaint("dp=two").find("from 1 to 999999"), std::string::npos);
  EXPECT_NE(complaint("dp").find("word=value"), std::string::npos);
  EXPECT_EQ(complaint("dp=2 dp=4"), "plan: `dp` is said twice");
}

// A plan's name, a value that it does not say, a beginning; nothing that is far from all.
TEST(Plan, MeansWhatIsNear) {
  const std::vector<std::string> known{"full", "selective", "swiglu", "none"};
  EXPECT_EQ(did_you_mean("sel", known), "; did you mean `selective`?");
  EXPECT_EQ(did_you_mean("ful", known), "; did you mean `full`?");
  EXPECT_EQ(did_you_mean("nnoe", known), "; did you mean `none`?");
  EXPECT_EQ(did_you_mean("certify", known), "");
  EXPECT_EQ(did_you_mean("4", {"0", "1", "2", "3"}), "");
}

TEST(Plan, MatchesWordsOrAPartOfItsLine) {
  const Plan p = Plan::parse("dp=2 pp=2 micro=2 zero=1 schedule=gpipe");
  for (const char* parts : {"", "dp=2", "zero=1 dp=2", "tp=1 ckpt=none", "gpipe dp=2", "zero="})
    EXPECT_TRUE(matches(p, parts)) << parts;
  for (const char* parts : {"dp=1", "dp=2 zero=2", "dp=20", "zero", "1f1b", "ckpt=full"})
    EXPECT_EQ(matches(p, parts), std::string(parts) == "zero") << parts;
}

std::string rule(const std::string& line,
                 const ModelConfig& m = load_model_config("suites/models/gate-tiny.json")) {
  Settings s;
  s.batch = 12, s.seq = 30;
  const auto r = refuse(Plan::parse(line), m, s);
  return r ? r->rule : "";
}

TEST(Plan, IllegalPlansAreRefusedByRule) {
  EXPECT_EQ(rule("dp=4 tp=2 pp=2"), "");
  EXPECT_EQ(rule("dp=2 zero=2"), "");  // six microbatches
  EXPECT_EQ(rule("dp=3"), "dp-power-of-two");
  EXPECT_EQ(rule("dp=8"), "dp-divides-batch");
  EXPECT_EQ(rule("dp=2 micro=4"), "micro-divides-batch");
  EXPECT_EQ(rule("tp=3"), "tp-divides-heads");
  EXPECT_EQ(rule("tp=16"), "tp-divides-heads");
  EXPECT_EQ(rule("tp=4"), "");  // two ranks for each of two key/value heads
  EXPECT_EQ(rule("tp=4 sp=1"), "sp-divides-sequence");
  EXPECT_EQ(rule("sp=1"), "word-without-effect");
  EXPECT_EQ(rule("to=disk"), "word-without-effect");
  EXPECT_EQ(rule("offload=optimizer to=disk"), "");
  EXPECT_EQ(rule("pp=32"), "pp-at-most-layers");
  EXPECT_EQ(rule("pp=4 schedule=interleaved virtual=2"), "");
  EXPECT_EQ(rule("dp=2 pp=4 schedule=interleaved virtual=2"), "interleaved-groups");  // six microbatches
  EXPECT_EQ(rule("dp=4 tp=2 pp=8"), "");
  EXPECT_EQ(rule("dp=32 tp=8 pp=4"), "dp-divides-batch");  // as many ranks as may be
  EXPECT_EQ(rule("dp=64 tp=8 pp=4"), "ranks-at-most-1024");
  EXPECT_EQ(rule("dp=4 zero=1 replicas=2"), "");
  EXPECT_EQ(rule("dp=4 zero=1 replicas=4"), "replicas-share") << "nobody to share with";
  EXPECT_EQ(rule("dp=4 zero=3 replicas=3"), "replicas-share");
  EXPECT_EQ(rule("zero=1 replicas=2"), "replicas-share");
  EXPECT_EQ(rule("dp=4 replicas=2"), "replicas-share") << "nothing to share";
}

// Ranks that share a key/value head each make a part of its columns.
TEST(Plan, TensorParallelRanksDivideTheKeyValueHeadsColumns) {
  ModelConfig m = load_model_config("suites/models/gate-tiny.json");
  m.kv_heads = 1, m.head_dim = 2;
  EXPECT_EQ(rule("tp=2", m), "");
  EXPECT_EQ(rule("tp=4", m), "tp-and-kv-heads");
}

}  // namespace
}  // namespace lockstep
