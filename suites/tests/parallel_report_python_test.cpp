// Python reads what C++ writes: runs reports/reports_test.py on files made here. Skipped where the packages
// of `ci/venv.sh report` are not installed.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "reports/dump.hpp"
#include "suites/tests/parallel_report_sample.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

// Values that Files in reports/reports_test.py expects.
RunRecord two_plans() {
  RunRecord run;
  run.suite = "smoke";
  run.verdict = "INVALID: 1 of 2 plans failed";
  run.parameters = i64{1} << 40;
  run.reference_hash = "ab12";
  run.cores = 2;
  run.refused = {{"dp-divides-batch", 4}};
  PlanRecord solo;
  solo.plan = "dp=1 tp=1 pp=1";
  solo.words = {{"dp", "1"}, {"tp", "1"}, {"pp", "1"}, {"ckpt", "none"}};
  solo.numbers = solo.messages = solo.memory = solo.fast = "pass";
  solo.hash = "ab12";
  solo.loss = {5.5, 5.25};
  solo.grad_norm = {1.5, 1.25};
  solo.peak_by_kind = {{"weights", 1000}, {"optimizer", 2000}};
  solo.peak_bytes = 3000;
  solo.resident_bytes = i64{5} << 33;
  PlanRecord split = solo;
  split.plan = "dp=2 tp=1 pp=1 ckpt=full";
  split.words["dp"] = "2";
  split.words["ckpt"] = "full";
  split.ranks = 2;
  split.status = "failed";
  split.numbers = "gradient of größe[3]: 1 ≠ 2";
  split.hash = "cd34";
  split.loss = {5.5};
  split.peak_by_kind = {{"weights", 500}};
  split.traffic["dp"] = {7, 70000};
  run.plans = {solo, split};
  return run;
}

void write_dump(const std::string& path) {
  ModelConfig model;
  model.vocab = 5;
  model.hidden = 2;
  model.tied = true;
  model.rope_scaling.kind = RopeScaling::Kind::llama3;
  model.rope_scaling.factor = 4.5;
  Settings settings;
  settings.batch = 1;
  settings.seq = 3;
  settings.lr = 0.1;
  const Param embedding{"model.embed_tokens.weight", Dim::vocab, Dim::model, 5, 2, 8, true, 0, -1};
  const Param norm{"model.norm.weight", Dim::one, Dim::model, 1, 2, 1, false, 1, -1};
  std::vector<float> values(10);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 4;
  DumpWriter dump(path, model, settings, "dp=1");
  dump.initial_weight(embedding, values.data());
  dump.initial_weight(norm, values.data());
  StepDump step;
  step.loss = 1.0 / 3;
  step.tokens = {0, 1, 2};
  step.labels = {1, -100, 2};
  dump.step(0, step);
  dump.gradient(0, embedding, values.data());
  dump.close();
}

template <class F>
void write_changed(const std::string& path, std::size_t plans, F change) {
  RunRecord run = sample_run(plans);
  change(run);
  write_run(run, path);
}

class PythonTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string name = (fs::temp_directory_path() / "lockstep-python-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    write_run(two_plans(), path("two_plans.h5"));
    write_dump(path("dump.h5"));
    write_run(sample_run(100), path("sample.h5"));
    std::ofstream(path("kernels.json"))
        << R"({"benchmarks": [{"name": "matmul/plain/M1", "cpu_time": 8000, "time_unit": "ns"},
          {"name": "matmul/avx2/M1", "cpu_time": 2, "time_unit": "us", "peak%": 31.4},
          {"name": "matmul/plain/M2", "cpu_time": 0.009, "time_unit": "ms"},
          {"name": "matmul/avx2/M2", "cpu_time": 1, "time_unit": "us", "peak%": 62.6},
          {"name": "matmul/avx512/M2", "cpu_time": 0.5, "time_unit": "us"},
          {"name": "memcpy", "cpu_time": 5, "time_unit": "ms", "GB/s": 8.2},
          {"name": "add/avx2/n", "cpu_time": 5, "time_unit": "us", "GB/s": 17.4}]})";
    write_changed(path("older.h5"), 30, [](RunRecord& r) {  // of before steps were simulated
      for (PlanRecord& p : r.plans) p.simulated_seconds = kNotTimed, p.simulated.clear(), p.timeline.clear();
    });
    write_changed(path("predicted.h5"), 20,
                  [](RunRecord& r) {  // one plan 30 % too slow, all others 5 % too fast
                    r.predicted_with = "# calibrated\nname = \"a <made-up> machine\"\n";
                    for (PlanRecord& p : r.plans) {
                      if (!p.timed) continue;
                      std::vector<double> steps = p.step_seconds;
                      std::sort(steps.begin(), steps.end());
                      p.predicted_seconds = steps[2] * (&p == &r.plans[1] ? 1.3 : 0.95);
                    }
                  });
    write_changed(path("untimed.h5"), 20, [](RunRecord& r) {
      for (PlanRecord& p : r.plans) p.timed = false;
    });
    write_changed(path("invalid.h5"), 20, [](RunRecord& r) {
      r.verdict = "INVALID: 2 of 20 plans failed";
      r.plans[10].status = "failed";
      r.plans[10].memory = "activations: 20 held <b> bytes, 10 foretold";
      PlanRecord& eater = r.plans[11];  // as a sweep records a plan that it had to end
      const PlanRecord was = std::exchange(eater, {});
      eater.plan = was.plan, eater.words = was.words, eater.ranks = was.ranks;
      eater.status = "out of memory", eater.ended = "3 GiB were resident, 2 are allowed";
      eater.numbers = eater.messages = eater.memory = eater.fast = "not run";
    });
    write_changed(path("alone.h5"), 20, [](RunRecord& r) {  // one that only fast mode can sum
      PlanRecord& p = r.plans[3];
      p.numbers = p.messages = p.memory = kNotPossible, p.hash = "", p.loss.clear(), p.grad_norm.clear();
    });
    write_changed(path("alone_wrong.h5"), 5, [](RunRecord& r) {
      PlanRecord& p = r.plans[3];
      p.numbers = p.messages = p.memory = kNotPossible, p.hash = "", p.fast = "numbers: too far";
    });
    write_changed(path("full.h5"), 400, [](RunRecord& r) {  // all recompute everything
      std::erase_if(r.plans, [](const PlanRecord& p) { return p.words.at("ckpt") != "full"; });
    });
    write_changed(path("shared.h5"), 400, [](RunRecord& r) {  // dp=2, tp=[1,2], zero=3, ckpt=full
      const std::map<std::string, std::string> same = {
          {"dp", "2"}, {"pp", "1"}, {"zero", "3"}, {"ckpt", "full"}, {"micro", "1"}};
      std::erase_if(r.plans, [&](const PlanRecord& p) {
        return std::any_of(same.begin(), same.end(),
                           [&](const auto& word) { return p.words.at(word.first) != word.second; });
      });
      r.cores = 4, r.plans.at(1).timed = true, r.plans[1].step_seconds = {0.1};
    });
    write_changed(path("launched.h5"), 5, [](RunRecord& r) {
      r.launch = "srun -n {ranks}", r.comm = "mpi";
      for (PlanRecord& p : r.plans) p.hosts = fmt::format("{} x node1", p.ranks);
      r.plans.at(3).timed = false, r.plans[3].step_seconds.clear(), r.plans[3].tokens_per_second = kNotTimed;
    });
    write_changed(path("lacking.h5"), 5, [](RunRecord& r) { r.plans[3].messages = ""; });
    write_changed(path("contradiction.h5"), 5, [](RunRecord& r) { r.plans[3].memory = "too much"; });
    write_changed(path("other_hash.h5"), 5, [](RunRecord& r) { r.plans[3].hash = "1234"; });
    write_changed(path("other_reference.h5"), 5, [](RunRecord& r) { r.reference_hash = "1234"; });
    write_changed(path("no_verdict.h5"), 5, [](RunRecord& r) { r.verdict = ""; });
    write_run(sample_run(0), path("empty.h5"));
  }
  static void TearDownTestSuite() { fs::remove_all(folder_); }
  static std::string path(const std::string& name) { return (folder_ / name).string(); }

  // Runs one class of reports/reports_test.py.
  static void python(const std::string& tests) {
    const std::string interpreter = "build/venv/bin/python";
    if (!fs::exists(interpreter)) GTEST_SKIP() << "no " << interpreter << "; `ci/venv.sh report` makes it";
    const std::string log = path(tests + ".log");
    const std::string command =
        interpreter + " reports/reports_test.py '" + folder_.string() + "' " + tests + " >'" + log + "' 2>&1";
    const int status = std::system(command.c_str());
    std::stringstream output;
    output << std::ifstream(log).rdbuf();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << output.str();
    EXPECT_EQ(status, 0) << output.str();
  }
  static fs::path folder_;
};
fs::path PythonTest::folder_;

TEST_F(PythonTest, ReadsRunsAndDumpsAsTheSchemaSays) { python("Files"); }
TEST_F(PythonTest, RefusesRecordsThatWouldMislead) { python("Refusals"); }
TEST_F(PythonTest, MakesAPageOfWhatTheRunHolds) { python("Page"); }
TEST_F(PythonTest, PicturesShowWhatTheRunHolds) { python("Pictures"); }
TEST_F(PythonTest, PicturesAreDrawnByAllCores) { python("DrawnTogether"); }
TEST_F(PythonTest, LabelsAndUnitsAreWords) { python("Words"); }
TEST_F(PythonTest, ThePageSortsFiltersAndAdvises) { python("Browser"); }

}  // namespace
}  // namespace lockstep
