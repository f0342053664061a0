// What a run file holds after write_run, read back through the HDF5 layer that reports share.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <set>
#include <tuple>

#include "ref/error.hpp"
#include "reports/h5.hpp"
#include "reports/record.hpp"
#include "suites/sweep/record_of.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

class RecordTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "lockstep-record-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  fs::path folder_;
};

PlanRecord solo() {
  PlanRecord p;
  p.plan = "dp=1 ckpt=none";
  p.words = {{"dp", "1"}, {"ckpt", "none"}, {"schedule", "1f1b"}};
  p.numbers = p.messages = p.memory = "pass";
  p.hash = "ab12";
  p.loss = {5.5, 5.25};
  p.grad_norm = {1.5, 1.25};
  p.timed = true;
  p.step_seconds = {0.5, 0.25, 0.125};
  p.tokens_per_step = 512;
  p.peak_by_kind = {{"weights", 1000}, {"optimizer", 2000}};
  p.peak_bytes = 3000;
  p.arena_bytes = 3100;
  p.resident_bytes = i64{5} << 33;  // more than 32 bits hold
  return p;
}

PlanRecord split() {
  PlanRecord p = solo();
  p.plan = "dp=2 ckpt=full";
  p.words = {{"dp", "2"}, {"ckpt", "full"}, {"schedule", "2"}};
  p.ranks = 2;
  p.numbers = "gradient of größe[3]: 1 ≠ 2";  // UTF-8 must survive
  p.status = "failed";
  p.timed = false;
  p.loss = {5.5};
  p.step_seconds = {};
  p.peak_by_kind = {{"weights", 500}};
  p.traffic["dp"] = {7, 70000};
  return p;
}

RunRecord whole_run() {
  RunRecord run;
  run.suite = "smoke";
  run.verdict = "INVALID: 1 of 2 plans failed";
  run.seed = -3;
  run.parameters = i64{1} << 40;
  run.cores = 2;
  run.predicted_with = "name = \"a machine\"\n", run.device = "cuda";
  run.launch = "srun -n {ranks}", run.comm = "nccl";
  run.refused = {{"dp must divide the batch", 4}, {"tp must divide R", 9}};
  run.plans = {solo(), split()};
  return run;
}

// Of its six verdicts, three of each mode, any makes a plan fail, and is what its record complains of.
TEST(RecordOf, APlanIsOkWhereEveryGatePassesInBothModes) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = 2, settings.seq = 8, settings.steps = 1;
  const Prepared p = prepare({model, settings, Plan::parse("dp=1"), nullptr});
  Verdict exact;
  FastVerdict fast;
  std::string* const verdicts[] = {&exact.numbers, &exact.messages, &exact.memory,
                                   &fast.numbers,  &fast.messages,  &fast.memory};
  for (std::string* v : verdicts) *v = "pass";
  EXPECT_EQ(record_of(&p, exact, p, fast, 1).status, "ok");
  const char* complaints[] = {"numbers: is off",       "messages: is off",       "memory: is off",
                              "fast: numbers: is off", "fast: messages: is off", "fast: memory: is off"};
  for (int i = 0; i < 6; ++i)
    for (const char* others : {"pass", "not run"}) {
      for (std::string* v : verdicts) *v = others;
      *verdicts[i] = "is off";
      const PlanRecord record = record_of(&p, exact, p, fast, 1);
      EXPECT_EQ(record.status, "failed");
      EXPECT_EQ(complaint(record), complaints[i]);
    }
  for (std::string* v : verdicts) *v = "not run";
  EXPECT_EQ(record_of(&p, exact, p, fast, 1).status, "failed");
}

// The most of any rank, and no rank is left out: an embedding is on the first stage, logits on the last.
TEST(RecordOf, PeaksAreThoseOfTheFullestRank) {
  const ModelConfig model = load_model_config("suites/models/gate-untied.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  Settings settings, fast;
  settings.batch = fast.batch = 8, settings.seq = fast.seq = 16, settings.steps = fast.steps = 1;
  fast.fast = true;
  std::set<bool> fullest, fullest_of_kind;  // the last rank?
  const auto most = [](const std::vector<i64>& bytes, std::set<bool>& who) {
    if (bytes[0] != bytes[1]) who.insert(bytes[1] > bytes[0]);
    return std::max(bytes[0], bytes[1]);
  };
  for (const char* line : {"pp=2 micro=8", "pp=2 micro=1"}) {
    const Prepared exact = prepare({model, settings, Plan::parse(line), &data}),
                   p = prepare({model, fast, Plan::parse(line), &data});
    const PlanRecord record = record_of(&exact, Verdict{}, p, FastVerdict{}, 1);
    const auto of_ranks = [&](const auto& bytes) { return std::vector<i64>{bytes(0), bytes(1)}; };
    for (int k = 0; k < static_cast<int>(Kind::count); ++k)
      EXPECT_EQ(record.peak_by_kind.at(kind_name(static_cast<Kind>(k))),
                most(of_ranks([&](int rank) { return price(p.run.plan, model, fast, rank).peak[k]; }),
                     fullest_of_kind));
    EXPECT_EQ(record.peak_bytes,
              most(of_ranks([&](int rank) { return peaks(p.traces[rank]).total; }), fullest));
    EXPECT_EQ(record.exact_peak_bytes,
              most(of_ranks([&](int rank) { return peaks(exact.traces[rank]).total; }), fullest));
    EXPECT_NE(record.peak_bytes, record.exact_peak_bytes);
  }
  EXPECT_EQ(fullest.size(), 2u);
  EXPECT_EQ(fullest_of_kind.size(), 2u);
}

// What rests on the host beside a device is set aside too, and a rank sends itself nothing.
TEST(RecordOf, ArenasAreOfBothMemoriesAndTrafficIsBetweenRanks) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  Settings settings;
  settings.batch = 8, settings.seq = 16, settings.steps = 1, settings.fast = true;
  for (const char* line : {"activations=host", "tp=2 offload=optimizer"}) {
    const PlanRecord record =
        record_of(nullptr, Verdict{}, prepare({model, settings, Plan::parse(line), &data}), FastVerdict{}, 1);
    EXPECT_GE(record.arena_bytes, record.peak_bytes) << line;
    EXPECT_LE(record.arena_bytes, 1.05 * static_cast<double>(record.peak_bytes)) << line;
    const bool alone = line == std::string("activations=host");
    EXPECT_EQ(record.traffic.empty(), alone) << line;
    EXPECT_EQ(record.traffic.count("tp"), alone ? 0u : 1u) << line;
    for (const char* axis : {"dp", "pp"}) EXPECT_EQ(record.traffic.count(axis), 0u) << line;
  }
}

// Of a pipeline of two: each of 8 microbatches goes forward once and its gradient back once, 16 tokens of 64
// float32. What is sent is not counted again where it is received.
TEST(RecordOf, AMessageIsCountedWhereItIsSent) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  Settings settings;
  settings.batch = 8, settings.seq = 16;
  Prepared p = prepare({model, settings, Plan::parse("pp=2"), &data});
  for (auto& posted : p.posted)  // of a tied table's gradient once more
    std::erase_if(posted, [](const Posted& m) { return m.microbatch < 0; });
  const AxisTraffic pp = traffic(p, 0, 2).at("pp");
  EXPECT_EQ(pp.messages, 2 * 8);
  EXPECT_EQ(pp.bytes, 2 * 8 * 16 * 64 * 4);
}

TEST_F(RecordTest, KeepsEveryFieldOfARun) {
  write_run(whole_run(), path("run.h5"));
  EXPECT_FALSE(fs::exists(path("run.h5.tmp")));
  const h5::Reader file(path("run.h5"));
  EXPECT_EQ(file.attribute("format"), "lockstep run");
  EXPECT_EQ(file.attribute("suite"), "smoke");
  EXPECT_EQ(file.attribute("verdict"), "INVALID: 1 of 2 plans failed");
  EXPECT_EQ(file.attribute("hash"), "");
  EXPECT_EQ(file.attribute("device"), "cuda");
  EXPECT_EQ(file.attribute("launch"), "srun -n {ranks}");
  EXPECT_EQ(file.attribute("comm"), "nccl");
  EXPECT_EQ(file.attribute("predicted_with"), "name = \"a machine\"\n");
  EXPECT_EQ(file.attribute("seed"), "-3");
  EXPECT_EQ(file.attribute("parameters"), "1099511627776");
  EXPECT_EQ(file.attributes().size(), 2u + 21u + 6u);  // format and version, texts, numbers

  EXPECT_EQ(file.strings("/refused/rule"),
            (std::vector<std::string>{"dp must divide the batch", "tp must divide R"}));
  EXPECT_EQ(file.read<i64>("/refused/plans").values, (std::vector<i64>{4, 9}));

  EXPECT_EQ(file.strings("/plans/plan"), (std::vector<std::string>{"dp=1 ckpt=none", "dp=2 ckpt=full"}));
  EXPECT_EQ(file.strings("/plans/numbers")[1], "gradient of größe[3]: 1 ≠ 2");
  EXPECT_EQ(file.strings("/plans/status"), (std::vector<std::string>{"ok", "failed"}));
  EXPECT_EQ(file.read<i64>("/plans/ranks").values, (std::vector<i64>{1, 2}));
  EXPECT_EQ(file.read<i64>("/plans/timed").values, (std::vector<i64>{1, 0}));
  EXPECT_EQ(file.read<i64>("/plans/resident_bytes").values[0], 42949672960);
}

TEST_F(RecordTest, FillsShortRowsWithNaN) {
  write_run(whole_run(), path("run.h5"));
  const h5::Reader file(path("run.h5"));
  const auto loss = file.read<double>("/plans/loss");
  EXPECT_EQ(loss.shape, (h5::Shape{2, 2}));
  EXPECT_EQ(loss.values[1], 5.25);
  EXPECT_EQ(loss.values[2], 5.5);
  EXPECT_TRUE(std::isnan(loss.values[3]));
  const auto seconds = file.read<double>("/plans/step_seconds");
  EXPECT_EQ(seconds.shape, (h5::Shape{2, 3}));
  EXPECT_EQ(seconds.values[2], 0.125);
  EXPECT_TRUE(std::isnan(seconds.values[3]) && std::isnan(seconds.values[5]));
}

TEST_F(RecordTest, TypesPlanWordsByTheirValues) {
  write_run(whole_run(), path("run.h5"));
  const h5::Reader file(path("run.h5"));
  EXPECT_EQ(file.read<i64>("/plans/word/dp").values, (std::vector<i64>{1, 2}));
  EXPECT_EQ(file.strings("/plans/word/ckpt"), (std::vector<std::string>{"none", "full"}));
  EXPECT_EQ(file.strings("/plans/word/schedule"), (std::vector<std::string>{"1f1b", "2"}));
}

TEST_F(RecordTest, CountsNothingWhereAPlanHasNone) {
  write_run(whole_run(), path("run.h5"));
  const h5::Reader file(path("run.h5"));
  EXPECT_EQ(file.read<i64>("/plans/peak_by_kind/weights").values, (std::vector<i64>{1000, 500}));
  EXPECT_EQ(file.read<i64>("/plans/peak_by_kind/optimizer").values, (std::vector<i64>{2000, 0}));
  EXPECT_EQ(file.read<i64>("/plans/traffic/dp/messages").values, (std::vector<i64>{0, 7}));
  EXPECT_EQ(file.read<i64>("/plans/traffic/dp/bytes").values, (std::vector<i64>{0, 70000}));
}

// Every field with a value of its own; numbers that are none, and infinite ones, as a failed plan may have.
PlanRecord unusual() {
  PlanRecord p = split();
  p.fast = "memory: more", p.fast_worst = 1.5, p.fast_where = "step 0: loss", p.exact_peak_bytes = 15;
  p.status = "crashed", p.ended = "Aborted (SIGABRT); it said: größe";
  p.messages = "not run", p.memory = "weights: 1 byte more";
  p.threads = 3, p.timed = true, p.hosts = "2 x one, 6 x other";
  p.loss = {5.5, std::numeric_limits<double>::quiet_NaN(), 0x1.fffffffffffffp-3};
  p.grad_norm = {std::numeric_limits<double>::infinity(), -0.0};
  p.step_seconds = {0.5, 0.25, 0.125, 1.0 / 3};
  p.tokens_per_second = 1234.5, p.median_spread = 0.01, p.wall_seconds = 7.25;
  p.peak_bytes = 11, p.arena_bytes = 12, p.resident_bytes = 13, p.tokens_per_step = 14;
  p.traffic["tp"] = {1, i64{1} << 40};
  p.predicted_seconds = 0.3125, p.simulated_seconds = 0.375,
  p.simulated = {{"bubble", 0.125}, {"compute", 0.25}}, p.timeline = "{\"seconds\":0.375}";
  return p;
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](double x, double y) {
           return (std::isnan(x) && std::isnan(y)) || (x == y && std::signbit(x) == std::signbit(y));
         });
}

void expect_same(const PlanRecord& a, const PlanRecord& b) {
  EXPECT_EQ(std::tie(a.plan, a.words, a.fast, a.fast_worst, a.fast_where, a.exact_peak_bytes, a.status,
                     a.ended, a.numbers, a.messages, a.memory, a.hash, a.simulated, a.timeline, a.hosts),
            std::tie(b.plan, b.words, b.fast, b.fast_worst, b.fast_where, b.exact_peak_bytes, b.status,
                     b.ended, b.numbers, b.messages, b.memory, b.hash, b.simulated, b.timeline, b.hosts));
  EXPECT_EQ(std::tie(a.ranks, a.threads, a.timed, a.tokens_per_step, a.peak_bytes, a.arena_bytes,
                     a.resident_bytes, a.peak_by_kind),
            std::tie(b.ranks, b.threads, b.timed, b.tokens_per_step, b.peak_bytes, b.arena_bytes,
                     b.resident_bytes, b.peak_by_kind));
  EXPECT_TRUE(same_bits(a.loss, b.loss) && same_bits(a.grad_norm, b.grad_norm) &&
              same_bits(a.step_seconds, b.step_seconds));
  EXPECT_TRUE(same_bits(
      {a.tokens_per_second, a.median_spread, a.wall_seconds, a.simulated_seconds, a.predicted_seconds},
      {b.tokens_per_second, b.median_spread, b.wall_seconds, b.simulated_seconds, b.predicted_seconds}));
  ASSERT_EQ(a.traffic.size(), b.traffic.size());
  for (const auto& [axis, traffic] : a.traffic) {
    EXPECT_EQ(traffic.messages, b.traffic.at(axis).messages);
    EXPECT_EQ(traffic.bytes, b.traffic.at(axis).bytes);
  }
}

TEST_F(RecordTest, APlanComesBackFromItsFile) {
  for (const PlanRecord& plan : {solo(), split(), unusual(), PlanRecord{}}) {
    write_plan(plan, "this sweep", path("plan.h5"));
    expect_same(read_plan("this sweep", path("plan.h5")), plan);
  }
}

TEST_F(RecordTest, APlanComesBackFromAnotherProcess) {
  for (const PlanRecord& plan : {solo(), split(), unusual(), PlanRecord{}})
    expect_same(plan_of(bytes_of(plan)), plan);
}

TEST_F(RecordTest, APlansFileMustBeWholeAndOfThisSweep) {
  const auto refused = [&](const std::string& identity, const std::string& name) {
    try {
      read_plan(identity, path(name));
      return false;
    } catch (const UserError&) {
      return true;
    }
  };
  write_plan(unusual(), "this sweep", path("plan.h5"));
  EXPECT_FALSE(refused("this sweep", "plan.h5"));
  EXPECT_TRUE(refused("another", "plan.h5"));
  EXPECT_TRUE(refused("this sweep", "none.h5"));
  write_run(whole_run(), path("run.h5"));
  EXPECT_TRUE(refused("this sweep", "run.h5"));
  for (std::uintmax_t size = fs::file_size(path("plan.h5")); size > 40; size -= 40) {
    fs::resize_file(path("plan.h5"), size - 40);
    EXPECT_TRUE(refused("this sweep", "plan.h5")) << size - 40;
  }
}

// Of several gates the one whose finding explains the others': numbers, then messages, memory, fast mode.
TEST_F(RecordTest, TheFirstGateThatFailedIsTheComplaint) {
  PlanRecord p = solo();
  EXPECT_EQ(complaint(p), "");
  p.status = "failed", p.fast = "numbers: far", p.memory = "too much", p.messages = "one more",
  p.numbers = "wrong";
  EXPECT_EQ(complaint(p), "numbers: wrong");
  p.numbers = "pass";
  EXPECT_EQ(complaint(p), "messages: one more");
  p.messages = kNotPossible;
  EXPECT_EQ(complaint(p), "memory: too much");
  p.memory = "pass";
  EXPECT_EQ(complaint(p), "fast: numbers: far");
  p.status = "timeout", p.ended = "no end after 3 s";
  EXPECT_EQ(complaint(p), "timeout: no end after 3 s");
}

TEST_F(RecordTest, WritesARunWithoutPlans) {
  write_run(RunRecord{}, path("run.h5"));
  const h5::Reader file(path("run.h5"));
  EXPECT_TRUE(file.strings("/plans/plan").empty());
  EXPECT_EQ(file.read<double>("/plans/loss").shape, (h5::Shape{0, 0}));
}

TEST_F(RecordTest, ReplacesAnOlderFileOnlyWhenComplete) {
  std::ofstream(path("run.h5")) << "old";
  write_run(whole_run(), path("run.h5"));
  EXPECT_EQ(h5::Reader(path("run.h5")).attribute("suite"), "smoke");
  {
    h5::Writer half(path("run.h5"));
    half.attribute("suite", std::string("half written"));
  }
  EXPECT_EQ(h5::Reader(path("run.h5")).attribute("suite"), "smoke");
  EXPECT_FALSE(fs::exists(path("run.h5.tmp")));
}

std::string sentence_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(RecordTest, SaysWhyItCannotWrite) {
  const std::string nowhere = path("missing/run.h5");
  EXPECT_EQ(sentence_of([&] { write_run(whole_run(), nowhere); }),
            "cannot write '" + nowhere + "': there is no folder '" + path("missing") +
                "'; make it, or name another place");
  EXPECT_NE(sentence_of([&] { write_run(whole_run(), folder_.string()); }).find("it is a folder"),
            std::string::npos);
  EXPECT_NE(sentence_of([&] { write_run(whole_run(), "/proc/run.h5"); }).find("cannot write '/proc/run.h5'"),
            std::string::npos);
}

TEST_F(RecordTest, DescribesTheMachine) {
  RunRecord run;
  describe_machine(run);
  EXPECT_TRUE(std::regex_match(run.started, std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"))) << run.started;
  EXPECT_TRUE(std::regex_match(run.revision, std::regex("unknown|.*[0-9a-f]{7,40}(-dirty)?")))
      << run.revision;
  EXPECT_NE(run.compiler.find(__VERSION__), std::string::npos);
  EXPECT_FALSE(run.flags.empty());
  EXPECT_FALSE(run.host.empty());
  EXPECT_FALSE(run.cpu.empty());
  EXPECT_GE(run.cores, 1);
}

}  // namespace
}  // namespace lockstep
