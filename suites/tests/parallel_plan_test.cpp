#include <gtest/gtest.h>

#include <optional>

#include "parallel/plan.hpp"
#include "ref/error.hpp"
#include "suites/settings_list.hpp"
#include "suites/tests/user_error.hpp"

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
  const Plan cut = Plan::parse("cp=4 tp=2 dp=2");
  EXPECT_EQ(cut.ranks(), 16);
  EXPECT_EQ(cut.sharers(), 8);
  EXPECT_EQ(p.sharers(), 2);
  EXPECT_EQ(cut.line(), "dp=2 tp=2 pp=1 cp=4");
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
  EXPECT_EQ(did_you_mean("--hlep", {"--help", "--out"}), "; did you mean `--help`?");
  EXPECT_EQ(did_you_mean("--shard", {"--help", "--out"}), "") << "the dashes are no letters in common";
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
  EXPECT_EQ(rule("dp=32 tp=8 pp=4 cp=2"), "ranks-at-most-1024");
  EXPECT_EQ(rule("dp=4 zero=1 replicas=2"), "");
  EXPECT_EQ(rule("dp=4 zero=1 replicas=4"), "replicas-share") << "nobody to share with";
  EXPECT_EQ(rule("dp=4 zero=3 replicas=3"), "replicas-share");
  EXPECT_EQ(rule("zero=1 replicas=2"), "replicas-share");
  EXPECT_EQ(rule("dp=4 replicas=2"), "replicas-share") << "nothing to share";
}

// A rank's samples are segments of sequences: as many times more as shorter. All else is the run's.
TEST(Plan, CutsSequencesIntoSamples) {
  Settings s;
  s.batch = 6, s.seq = 40, s.segments = 4, s.steps = 7;
  const Settings seen = in_segments(s, Plan::parse("dp=2 cp=4"));
  EXPECT_EQ(seen.batch, 24);
  EXPECT_EQ(seen.seq, 10);
  EXPECT_EQ(seen.segments, 4);
  EXPECT_EQ(seen.steps, 7);
  const Settings same = in_segments(s, Plan::parse("dp=2 tp=2"));
  EXPECT_EQ(same.batch, 6);
  EXPECT_EQ(same.seq, 40);
}

// Six divides the sequence, sixteen is a power of two.
TEST(Plan, SegmentsAreAPowerOfTwoThatDividesTheSequence) {
  Settings s;
  s.seq = 24;
  for (const i64 segments : {1, 2, 8}) {
    s.segments = segments;
    EXPECT_EQ(refusal([&] { check_settings(s); }), "");
  }
  for (const i64 segments : {6, 16}) {
    s.segments = segments;
    EXPECT_EQ(refusal([&] { check_settings(s); }),
              "segments is " + std::to_string(segments) + "; it must be a power of two that divides seq, 24");
  }
}

struct CutScene {
  i64 segments = 2, batch = 12, seq = 30;
  bool fast = false;
  std::string model = "gate-untied";  // 8 heads, 4 of keys and values
};
auto cut_refusal(const std::string& line, const CutScene& cut) {
  Settings s;
  s.batch = cut.batch, s.seq = cut.seq, s.segments = cut.segments, s.fast = cut.fast;
  return refuse(Plan::parse(line), load_model_config("suites/models/" + cut.model + ".json"), s);
}
std::string cut_rule(const std::string& line, const CutScene& cut) {
  const auto r = cut_refusal(line, cut);
  return r ? r->rule : "";
}
std::string cut_why(const std::string& line, const CutScene& cut) {
  const auto r = cut_refusal(line, cut);
  return r ? r->why : "";
}

TEST(Plan, IllegalCutsOfSequencesAreRefusedByRule) {
  EXPECT_EQ(cut_rule("cp=2", {}), "");
  EXPECT_EQ(cut_rule("dp=4 cp=2 tp=2 pp=2", {}), "");
  EXPECT_EQ(cut_rule("dp=1", {}), "cp-is-segments");
  EXPECT_EQ(cut_rule("cp=2", {.segments = 1}), "cp-is-segments");
  EXPECT_EQ(cut_rule("cp=4", {.seq = 32}), "cp-is-segments");
  EXPECT_EQ(cut_rule("dp=1", {.fast = true}), "") << "fast mode sums in any order";
  EXPECT_EQ(cut_rule("cp=2", {.segments = 1, .fast = true}), "");
  EXPECT_EQ(cut_rule("cp=4", {.segments = 4}), "cp-divides-sequence");
  EXPECT_EQ(cut_rule("cp=4", {.segments = 4, .fast = true}), "cp-divides-sequence");
  EXPECT_EQ(cut_rule("cp=3", {.fast = true}), "cp-divides-heads");
  EXPECT_EQ(cut_rule("cp=3", {.seq = 60, .fast = true, .model = "gate-thirds"}), "")
      << "in fast mode any number";
  EXPECT_EQ(cut_rule("cp=4", {.segments = 4, .seq = 32}), "");
  EXPECT_EQ(cut_rule("cp=4 tp=2", {.segments = 4, .seq = 32}), "") << "2 key/value heads for 4 ranks of cp";
  EXPECT_EQ(cut_rule("cp=4", {.segments = 4, .seq = 32, .model = "gate-tiny"}), "");
  EXPECT_EQ(cut_why("cp=4 tp=4", {.segments = 4, .seq = 32}),
            "cp x tp = 16 does not divide the model's 8 attention heads");
  EXPECT_EQ(cut_rule("cp=4 tp=4", {.segments = 4, .seq = 32}), "cp-divides-heads");
  EXPECT_EQ(cut_rule("cp=2", {.seq = 32, .model = "gate-thirds"}), "cp-and-kv-heads");
  EXPECT_EQ(cut_why("cp=2", {.seq = 32, .model = "gate-thirds"}),
            "cp=2 and 3 key/value heads of a rank of tp: one must be a multiple of the other");
  EXPECT_EQ(cut_why("cp=4", {.segments = 4}), "cp=4 does not divide the sequence of 30 tokens");
  EXPECT_EQ(cut_why("cp=2", {.segments = 1}),
            "cp=2 cuts sequences otherwise than the run's segments=1: exact mode needs them alike "
            "(--segments 2, or "
            "segments = 2 in a suite)");
  // The 30 tokens of a sequence are 15 on a rank, which two ranks of tp do not part.
  EXPECT_EQ(cut_rule("tp=2 sp=1", {.segments = 1}), "");
  EXPECT_EQ(cut_why("tp=2 sp=1 cp=2", {}), "sp=1 needs tp to divide the 15 tokens of a sequence");
  EXPECT_EQ(cut_rule("tp=2 sp=1 cp=2", {.seq = 32}), "");
}

TEST(Plan, ReplicasAreGroupsOfWholeSegmentsOrOfWholeReplicas) {
  EXPECT_EQ(cut_rule("dp=2 cp=2 zero=1 replicas=2", {}), "");
  EXPECT_EQ(cut_rule("cp=2 zero=3 bucket=1", {}), "");
  EXPECT_EQ(cut_rule("dp=4 cp=2 zero=2 replicas=4", {}), "");
  EXPECT_EQ(cut_rule("dp=2 cp=4 zero=1 replicas=2", {.segments = 4, .seq = 32}), "");
  EXPECT_EQ(cut_rule("dp=2 cp=2 zero=1 replicas=4", {}), "replicas-share") << "nobody to share with";
  EXPECT_EQ(cut_why("dp=2 cp=2 zero=1 replicas=4", {}),
            "replicas=4 cannot cut dp x cp = 4 into groups of two ranks or more, all of one size");
  // dp x cp = 12 in 4 groups of 3 would give a group parts of two segments, or 3 segments to 2 groups.
  EXPECT_EQ(cut_why("dp=4 cp=3 zero=1 replicas=4", {.seq = 60, .fast = true, .model = "gate-thirds"}),
            "replicas=4 and cp=3: one must be a multiple of the other");
  EXPECT_EQ(cut_rule("dp=4 cp=3 zero=1 replicas=6", {.seq = 60, .fast = true, .model = "gate-thirds"}), "");
}

// Segments of one replica's sequences are reduced too.
TEST(Plan, BucketsNeedRanksThatReduce) {
  EXPECT_EQ(cut_rule("cp=2 bucket=3", {}), "");
  EXPECT_EQ(cut_rule("bucket=3", {.segments = 1}), "bucket-needs-replicas");
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
