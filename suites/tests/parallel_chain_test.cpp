// The whole chain of trust in one place, link by link, on a stored run of PyTorch and transformers:
//   PyTorch in float64 -> the reference in float64 -> the reference in float32 -> every plan.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>

#include "ref/trainer.hpp"
#include "ref/weights.hpp"
#include "suites/gates/fast.hpp"
#include "suites/run/reference.hpp"
#include "suites/tests/hdf5_reader.hpp"
#include "suites/tests/temporary_folder.hpp"

namespace lockstep {
namespace {

constexpr double kFloat64 = 1e-11;  // of a tensor's largest value: what the fixtures' README promises

// A token file (datasets/format.md) of 37 ids; the last one ends a text.
std::string token_file(const std::vector<i32>& tokens) {
  std::string body(tokens.size() * 2, '\0'), head(64, '\0');
  for (std::size_t i = 0; i < tokens.size(); ++i) std::memcpy(&body[2 * i], &tokens[i], 2);
  auto put = [&](std::size_t at, auto value) { std::memcpy(&head[at], &value, sizeof value); };
  std::memcpy(head.data(), "LOCKTOK1", 8);
  put(8, std::uint32_t{1}), put(12, std::uint32_t{2}), put(16, std::uint64_t{tokens.size()});
  put(24, std::uint32_t{37}), put(28, std::uint32_t{36});
  put(32, std::uint64_t{XXH3_64bits(body.data(), body.size())});
  return head + body;
}

class Chain : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, Chain, testing::Values("multi_head", "grouped_query", "tied", "rope_llama3"),
                         [](const auto& model) { return std::string(model.param); });

TEST_P(Chain, FromPyTorchToEveryPlan) {
  const std::string fixture = std::string("suites/fixtures/") + GetParam();
  const Hdf5Reader stored(fixture + "/steps.h5");
  const ModelConfig model = load_model_config(fixture);
  const std::vector<i32> tokens = stored.read<i32>("tokens"), labels = stored.read<i32>("labels");
  Settings settings;
  settings.batch = 4, settings.seq = static_cast<i64>(tokens.size()) / 4, settings.steps = 2;
  settings.lr = stored.attribute<double>("lr_peak"), settings.warmup = 1;
  settings.clip = stored.attribute<double>("clip");
  const std::vector<Param> table = parameter_table(model, settings.leaves);
  const Weights initial = load_weights(fixture, table);

  // Link 1: PyTorch's float64 -> the reference's, on PyTorch's batch.
  Lanes lanes(1);
  Trainer<double> float64(model, settings, double_ops(), lanes);
  Trainer<float> float32(model, settings, cpu_ops(), lanes);
  float64.load(initial), float32.load(initial);
  const double loss = stored.read<double>("f64/step0/loss").at(0);
  EXPECT_NEAR(float64.step(tokens.data(), labels.data()).loss, loss, 1e-12 * loss);
  EXPECT_NEAR(float32.step(tokens.data(), labels.data()).loss, loss, 1e-6 * loss);
  for (int i = 0; i < static_cast<int>(table.size()); ++i) {
    if (table[i].tied_to >= 0) continue;
    SCOPED_TRACE(table[i].name);
    const std::vector<double> truth = stored.read<double>("f64/step0/grad/" + table[i].name);
    std::vector<double> theirs = truth;
    double largest = 0;
    for (const double g : truth) largest = std::max(largest, std::abs(g));
    theirs.resize(float64.gradient(i).size());  // pads
    EXPECT_LT(distance(table[i], float64.gradient(i), theirs), kFloat64 * largest * std::sqrt(truth.size()));
    // Link 2: -> the reference's float32, no further than a few times PyTorch's own.
    const std::vector<float> torch32 = stored.read<float>("f32/step0/grad/" + table[i].name);
    EXPECT_LT(distance(table[i], float32.gradient(i), theirs),
              kFastMultiple * distance(table[i], torch32, truth) +
                  kFastFloor * distance(table[i], std::vector<double>(theirs.size()), theirs));
  }

  // Link 3: -> plans, bit for bit, and fast within its bound; from PyTorch's weights, on samples of its
  // tokens.
  const TemporaryFolder folder;
  const TokenFile data(folder.write("tokens.tok", token_file(tokens)));
  const Whole reference = reference_run(model, settings, data, "auto", 1, initial);
  const FastReference exact = fast_reference(model, settings, data, reference, initial);
  int plans = 0;
  for (const char* line : {"dp=1 micro=2", "dp=2 tp=2", "pp=2 schedule=gpipe", "dp=4 zero=3 ckpt=full",
                           "dp=2 pp=2 zero=1 offload=optimizer", "tp=2 sp=1 ckpt=selective"}) {
    SCOPED_TRACE(line);
    lockstep::Run run{model, settings, Plan::parse(line), &data};
    if (refuse(run.plan, model, settings)) continue;
    ++plans;
    const Verdict v = judge(prepare(run), reference, {}, initial);
    EXPECT_EQ(v.numbers, "pass");
    EXPECT_EQ(v.messages, "pass");
    EXPECT_EQ(v.memory, "pass");
    EXPECT_EQ(v.hash, reference.hash());
    run.settings.fast = true;
    const FastVerdict fast = judge_fast(prepare(run), reference, exact, {}, initial);
    EXPECT_EQ(fast.numbers, "pass");
    EXPECT_LE(fast.worst, 1);
  }
  EXPECT_GE(plans, 5);
}

}  // namespace
}  // namespace lockstep
