// A GPU's calibration, on an accelerator that is not there: what is measured, and that the planner prices by
// it what was measured.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "kernels/extents.hpp"
#include "suites/planner/cluster_text.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/measure/check_times.hpp"
#include "suites/planner/measure/event_times.hpp"
#include "suites/planner/measure/kernel_bench.hpp"
#include "suites/planner/measure/kernel_shapes.hpp"
#include "suites/planner/measure/measure.hpp"
#include "suites/planner/prediction.hpp"
#include "suites/tests/far_accelerator.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

constexpr i64 kFree = i64{1} << 30, kOfEngine = 3 << 20, kCode = 5 << 20;

// An engine takes some of its memory, and the first one leaves some code there.
class Holding final : public far::Far {
 public:
  i64 free_bytes() const override { return kFree - held_; }
  std::unique_ptr<Engine> engine(int, const Ops<float>& host, bool fast) override {
    EXPECT_TRUE(fast);
    return std::make_unique<One>(host, &seen, held_);
  }

 private:
  struct One final : far::FarEngine {
    One(const Ops<float>& host, far::Seen* seen, i64& held) : FarEngine(host, seen), held_(held) {
      held_ += kOfEngine;
    }
    ~One() override { held_ = kCode; }
    i64& held_;
  };
  i64 held_ = 0;
};

Calibration calibrated(bool bf16) {
  Holding gpu;
  Calibration found;
  MeasureHow how;
  how.quick = true, how.accelerator = &gpu, how.bf16 = bf16;
  how.near = how.far = 1e6, how.most = i64{1} << 21;
  for (const MeasureStep& step : measure_steps(how, found)) step.run();
  EXPECT_EQ(gpu.seen.mixed > 0, bf16);
  // Kernels go on when their calls have returned: each of five batches is waited for.
  const auto kernels = std::count_if(found.notes.begin(), found.notes.end(),
                                     [](const Measurement& m) { return m.what == "kernel"; });
  EXPECT_GE(gpu.seen.downloads, 5 * kernels);
  return found;
}

const Calibration& found_in_bf16() {
  static const Calibration found = calibrated(true);
  return found;
}

TEST(CalibrateGpu, ItsClusterPricesWhatWasMeasuredAsItWas) {
  for (const bool bf16 : {true, false}) {
    const Calibration found = bf16 ? found_in_bf16() : calibrated(false);
    const Cluster& c = found.cluster;
    const CostModel model(c, Mesh{});
    const auto long_one = std::find_if(found.notes.begin(), found.notes.end(),
                                       [](const Measurement& m) { return m.what == "sustained kernel"; });
    ASSERT_NE(long_one, found.notes.end());
    const auto same = std::find_if(found.notes.begin(), found.notes.end(), [&](const Measurement& m) {
      return m.what == "kernel" && m.name == long_one->name && m.sizes == long_one->sizes;
    });
    ASSERT_NE(same, found.notes.end());
    const double sustained = std::min(1.0, same->sample.seconds / long_one->sample.seconds);
    std::map<std::string, int> kinds, kernels;
    double least = 1e9, host = 0;
    std::map<double, double> slower;  // copies: by bytes, seconds
    for (const Measurement& m : found.notes) {
      ++kinds[m.what];
      if (m.what == "copy") slower[m.amount] = std::max(slower[m.amount], m.sample.seconds);
      if (m.what == "host kernel") host = m.amount / m.sample.seconds;
      if (m.what != "kernel") continue;
      ++kernels[m.name];
      least = std::min(least, m.sample.seconds);
      Trace::Event e{Trace::Event::run};
      e.name = m.name.c_str();
      std::istringstream sizes(m.sizes);
      for (double x; sizes >> x;) e.numbers.push_back(x);
      const bool whole =
          m.name == "swiglu" || m.name.starts_with("matmul") || m.name.starts_with("attention");
      if (!whole) continue;  // of these all operands are stored alike
      const std::vector<double>& x = e.numbers;
      if (m.name == "swiglu") {
        EXPECT_DOUBLE_EQ(m.amount, (bf16 ? 2 : 4) * 3 * x[0]);
      } else if (m.name == "matmul") {
        EXPECT_DOUBLE_EQ(m.amount, 2 * x[0] * x[1] * x[2]);
      }
      View view;
      view.type = bf16 ? Type::bf16 : Type::f32;
      e.views.assign(extents_of(e.name, e.numbers).size(), view);
      // Products that go on for long may be slower, and attention with them.
      const double left = m.name == "swiglu" ? 1 : sustained;
      EXPECT_NEAR(model.kernel(e) * left / m.sample.seconds, 1, 1e-9) << m.name << " " << m.sizes;
    }
    for (const std::string& name : kernel_names_and_classes())
      EXPECT_TRUE(name == "rows" || kernels[name] > 1) << name;
    EXPECT_EQ(c.dispatch, least);
    EXPECT_EQ(c.host_bandwidth, host);
    EXPECT_GT(slower.size(), 1u);
    for (const auto& [bytes, seconds] : slower)
      EXPECT_NEAR(c.host.bandwidth * c.host.by_bytes.at(bytes) * seconds / bytes, 1, 1e-9) << bytes;
    EXPECT_EQ(kinds["message start"] + kinds["message wait"] + kinds["process"], 0);
  }
}

TEST(CalibrateGpu, ItsClusterIsOneDeviceAndKnowsWhatThatHolds) {
  const Cluster& c = found_in_bf16().cluster;
  EXPECT_EQ(c.name, "far");
  EXPECT_EQ(c.devices, 1);
  EXPECT_EQ(c.memory, kFree);
  EXPECT_EQ(c.workspace, kOfEngine);
  EXPECT_EQ(c.context, kCode);
  EXPECT_EQ(c.weight_bytes, 2);
  EXPECT_EQ(c.gradient_bytes, 4);
  EXPECT_EQ(c.activation_bytes, 2);
  EXPECT_FALSE(c.messages_block || c.copies_block);
  EXPECT_EQ(c.pace.flops, 0) << "a core's, not a GPU's";

  // What is written is what is read.
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/gpu.toml";
  std::ofstream(path) << cluster_text(c, "of a test");
  const Cluster again = load_cluster(path);
  EXPECT_EQ(again.weight_bytes, 2);
  EXPECT_NEAR(again.dispatch / c.dispatch, 1, 1e-3);
  EXPECT_NEAR(again.memory / c.memory, 1, 1e-3);
  EXPECT_NEAR(again.context / c.context, 1, 1e-3);
  EXPECT_NEAR(again.host.bandwidth / c.host.bandwidth, 1, 1e-3);
  for (const auto& [name, grid] : c.grids)
    EXPECT_NEAR(again.grids.at(name).rates.back() / grid.rates.back(), 1, 1e-3) << name;
}

// The types are those of PyTorch's mixed precision: everything that layers hand on in 16 bits, what is summed
// up and the optimizer's in 32.
TEST(CalibrateGpu, KernelsAreTimedOnOperandsAsTheirTrainingStoresThem) {
  Cluster c;
  c.weight_bytes = c.activation_bytes = 2;
  const StoredOperands bf16 = stored_operands(settings_on(c, {}));
  c.weight_bytes = c.activation_bytes = 4;
  const StoredOperands float32 = stored_operands(settings_on(c, {}));
  for (const std::string& name : kernel_names_and_classes()) {
    if (name == "rows") continue;
    ASSERT_TRUE(bf16.count(name) && float32.count(name)) << name;
    EXPECT_EQ(float32.at(name).halves, 0u) << name;
    EXPECT_EQ(float32.at(name).number_bytes, 4) << name;
  }
  EXPECT_EQ(bf16.at("matmul").halves, 0b111u);
  EXPECT_EQ(bf16.at("matmul_dw").halves, 0b110u) << "the gradient is a sum";
  EXPECT_EQ(bf16.at("attention").halves, 0b11101u) << "o, q, k and v, not the logarithms";
  EXPECT_EQ(bf16.at("swiglu").halves, 0b111u);
  EXPECT_EQ(bf16.at("swiglu").number_bytes, 2);
  EXPECT_EQ(bf16.at("rms_norm").halves, 0b1101u) << "not the inverse roots";
  EXPECT_EQ(bf16.at("add_squares").halves, 0u);
  EXPECT_EQ(bf16.at("adamw").halves, 0u) << "beside float32 master weights";
}

// The fastest of all may be luck, and all but two may be what else the machine does.
TEST(Calibrate, TheSecondFastestBatchCounts) {
  const Sample s = sample_of({5, 3, 1, 2, 4}, 7);
  EXPECT_EQ(s.seconds, 2);
  EXPECT_EQ(s.spread, (3.0 - 1) / 2) << "from the fastest to the median";
  EXPECT_EQ(sample_of({3}, 1).seconds, 3);
}

TEST(CalibrateGpu, ShapesAreThoseOfLargeModelsAndFitItsMemory) {
  Holding gpu;
  MeasureHow how;
  how.accelerator = &gpu, how.bf16 = true;
  for (const char* kernel : {"matmul", "matmul_dx", "matmul_dw", "attention", "attention_dx"})
    for (const i64 most : {i64{3} << 29, i64{1} << 29, i64{1} << 28}) {
      how.most = most;
      const auto shape = grid_shape(kernel, how);
      EXPECT_GE(shape[0].back(), 1024) << kernel;
      const std::vector<double> call = numbers_of(kernel, shape[0].back(), shape[1].back(), shape[2].back());
      EXPECT_LE(KernelBench::operands(kernel, call), most) << kernel;
    }
  how.most = i64{3} << 29;
  const auto matmul = grid_shape("matmul", how);
  EXPECT_GE(matmul[0].back(), 16384) << "tokens of a microbatch";
  EXPECT_GE(matmul[1].back(), 14336) << "Llama 3's ffn";
  EXPECT_GE(matmul[2].back(), 14336);
  const std::array<double, 3> sustained = sustained_shape(matmul);
  for (std::size_t a = 0; a < 3; ++a) {
    EXPECT_GE(sustained[a], 4096);
    EXPECT_EQ(std::count(matmul[a].begin(), matmul[a].end(), sustained[a]), 1) << "it is on the grid";
  }
  const auto attention = grid_shape("attention", how);
  EXPECT_EQ(attention[1], (std::vector<double>{64, 128})) << "heads that have kernels of their own";
  for (const char* kernel : {"add", "adamw", "embed_dw", "ce_dx", "swap_axes"}) {
    const std::vector<i64> sizes = operand_sizes(kernel, how);
    ASSERT_GE(sizes.size(), 8u) << kernel;
    EXPECT_LE(KernelBench::operands(kernel, numbers_of(kernel, sizes.back(), how)), how.most) << kernel;
  }
}

struct Check {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Cluster cluster = found_in_bf16().cluster;
  Settings settings;
  far::Far gpu;
  CheckHow how;
  Check() {
    cluster.devices = 4, cluster.weight_bytes = cluster.activation_bytes = 4;
    settings.batch = 2, settings.seq = 16;
    how.data = "datasets/excerpt-v509.tok", how.plans = 2, how.accelerator = &gpu, how.repeats = {1, 1};
  }
  CheckedTimes times() {
    const Values words = parse_values("ckpt=none,full activations=device zero=0");
    return check_times(model, settings_on(cluster, settings), cluster, words, how, [](const auto&) {});
  }
};

TEST(CalibrateGpu, StepsAreCheckedOnItAndOfOneDeviceAlone) {
  Check check;
  const CheckedTimes t = check.times();
  ASSERT_EQ(t.rows.size(), 2u);
  for (const CheckedTimes::Row& row : t.rows) {
    EXPECT_EQ(Plan::parse(row.plan).ranks(), 1) << row.plan;
    EXPECT_GT(row.predicted, 0);
    EXPECT_GT(row.measured, 0);
  }
  const bool second = t.rows[1].predicted < t.rows[0].predicted;
  EXPECT_EQ(t.first, t.rows[second].plan);
  EXPECT_GE(t.regret, 0);
  EXPECT_EQ(t.regret > 0, t.fastest != t.first);
  EXPECT_FALSE(check.gpu.seen.ranges.empty()) << "it trained there";
}

// Of medians: one round that was disturbed is none of a plan's.
TEST(CheckTimes, TheChoiceIsHeldToTheFastest) {
  const Regret late = regret_of_first({{3, 90, 3}, {2, 2, 80}, {1, 2.5, 2.5}});
  EXPECT_EQ(late.fastest, 1u);
  EXPECT_DOUBLE_EQ(late.part, 0.5);
  const Regret right = regret_of_first({{2, 2, 9}, {2, 2, 2}, {4, 4, 4}});
  EXPECT_EQ(right.fastest, 0u) << "the first of equals";
  EXPECT_EQ(right.part, 0);
  CheckedTimes t;
  t.median_error = 0.10, t.regret = 0.05;
  EXPECT_TRUE(t.well());
  t.regret = 0.051;
  EXPECT_FALSE(t.well()) << "however near most are";
  t.median_error = 0.11, t.regret = 0;
  EXPECT_FALSE(t.well());
}

// Every kernel, start and wait of a rank's step, as often as the formulas have it; alone, what is predicted
// of them is the step.
TEST(EventTimes, AreOfAllThatAStepDoes) {
  Check check;
  check.model.layers = 2;
  check.cluster.node = {1e10, 1e-6, {}, {}};
  const TokenFile data(check.how.data);
  const Settings settings = settings_on(check.cluster, check.settings);
  for (const char* line : {"dp=1", "dp=2 zero=1"}) {
    const lockstep::Run run{check.model, settings, Plan::parse(line), &data};
    i64 expected = 2 * std::ssize(price(run.plan, run.model, settings, 0).messages);
    for (const auto& [kernel, runs] : step_work(run.plan, run.model, settings, 0).kernels)
      expected += runs.times;
    const std::vector<EventTimes> rows = event_times(run, {}, check.cluster, 0);
    EXPECT_EQ(rows.back().what, "between them");
    i64 times = 0;
    double predicted = 0, last = INFINITY;
    for (const EventTimes& row : rows) {
      EXPECT_GT(row.measured, 0) << row.what;
      if (&row == &rows.back()) break;
      times += row.times, predicted += row.predicted;
      const double off = std::abs(row.predicted - row.measured);
      EXPECT_LE(off, last) << "the furthest first";
      last = off;
    }
    EXPECT_EQ(times, expected) << line;
    if (run.plan.ranks() > 1) continue;
    const double step = Composer(run.model, settings, check.cluster).predict(run.plan).seconds;
    EXPECT_NEAR(predicted / step, 1, 1e-6);
  }
}

TEST(CalibrateGpu, PlansThatDoNotFitAreNotTried) {
  Check check;
  check.cluster.memory = 1000;
  EXPECT_EQ(refusal([&] { check.times(); }), "plan: none of these plans fits");
  EXPECT_TRUE(check.gpu.seen.ranges.empty());
}

}  // namespace
}  // namespace lockstep
