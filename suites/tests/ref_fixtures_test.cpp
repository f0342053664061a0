// The reference against the stored runs of PyTorch and transformers (suites/fixtures/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "ref/trainer.hpp"
#include "ref/weights.hpp"
#include "suites/tests/hdf5_reader.hpp"

namespace lockstep {
namespace {

template <class T>
Ops<T> ops() {
  return plain_ops<T>();
}

// A stored run and a trainer with its model, settings, weights and batch.
template <class T>
struct Fixture {
  explicit Fixture(const std::string& name) : stored("suites/fixtures/" + name + "/steps.h5") {
    const std::string folder = "suites/fixtures/" + name;
    config = load_model_config(folder);
    tokens = stored.read<i32>("tokens");
    labels = stored.read<i32>("labels");
    steps = stored.attribute<i64>("steps");
    settings.batch = 4;
    settings.seq = static_cast<i64>(tokens.size()) / settings.batch;
    settings.lr = stored.attribute<double>("lr_peak");
    settings.min_ratio = stored.attribute<double>("lr_min_ratio");
    settings.warmup = stored.attribute<i64>("lr_warmup");
    settings.total = stored.attribute<i64>("lr_total");
    settings.beta1 = stored.attribute<double>("beta1");
    settings.beta2 = stored.attribute<double>("beta2");
    settings.eps = stored.attribute<double>("eps");
    settings.weight_decay = stored.attribute<double>("weight_decay");
    settings.clip = stored.attribute<double>("clip");
    trainer = std::make_unique<Trainer<T>>(config, settings, ops<T>(), lanes);
    const auto& table = trainer->params();
    const auto values = load_weights(folder, table);
    for (std::size_t p = 0; p < table.size(); ++p)
      if (!values[p].empty()) trainer->load(table[p].name, values[p].data());
  }

  Hdf5Reader stored;
  ModelConfig config;
  Settings settings;
  i64 steps = 0;
  std::vector<i32> tokens, labels;  // [B, T]
  Lanes lanes;
  std::unique_ptr<Trainer<T>> trainer;
};

// Largest difference, relative to the largest value; 1 if the truth is all zero and the other is not.
template <class A>
double error(const std::vector<A>& got, const std::vector<double>& truth) {
  double difference = 0, largest = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - truth[i]);
    difference = std::isnan(d) ? INFINITY : std::max(difference, d);
    largest = std::max(largest, std::abs(truth[i]));
  }
  return difference == 0 ? 0 : largest == 0 ? 1 : difference / largest;
}

const std::vector<std::string> kModels = {"multi_head", "grouped_query", "tied", "rope_llama3",
                                          "rope_linear"};

class Fixtures : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Models, Fixtures, testing::ValuesIn(kModels),
                         [](const auto& model) { return model.param; });

// The weights of a step divide a gradient by its own size, which blows up the rounding of a gradient near
// zero; hence their wider bound. Everything else is held to what the fixtures' README promises.
TEST_P(Fixtures, Float64AgreesWithPyTorch) {
  Fixture<double> f(GetParam());
  EXPECT_LT(error(f.trainer->logits(f.tokens.data(), f.settings.batch), f.stored.read<double>("f64/logits")),
            1e-11);
  const auto rates = f.stored.attributes<double>("lr");
  for (i64 t = 0; t < f.steps; ++t) {
    const std::string step = "f64/step" + std::to_string(t) + "/";
    SCOPED_TRACE(step);
    EXPECT_NEAR(learning_rate(f.settings, t), rates[static_cast<std::size_t>(t)], 1e-15);
    const auto result = f.trainer->step(f.tokens.data(), f.labels.data());
    const double loss = f.stored.read<double>(step + "loss").at(0);
    const double norm = f.stored.read<double>(step + "grad_norm").at(0);
    EXPECT_NEAR(result.loss, loss, 1e-12 * loss);
    EXPECT_NEAR(result.grad_norm, norm, 1e-11 * norm);
    const auto& table = f.trainer->params();
    for (int p = 0; p < static_cast<int>(table.size()); ++p) {
      const Param& param = table[static_cast<std::size_t>(p)];
      if (param.tied_to >= 0) continue;
      SCOPED_TRACE(param.name);
      const auto grad = f.stored.read<double>(step + "grad/" + param.name);
      ASSERT_EQ(static_cast<i64>(grad.size()), param.count());
      EXPECT_LT(error(f.trainer->gradient(p), grad), 1e-11);
      EXPECT_LT(error(f.trainer->weight(p), f.stored.read<double>(step + "weight/" + param.name)), 1e-9);
    }
  }
}

// How far may float32 be from the float64 truth? No further than a small multiple of what PyTorch's own
// float32 is, or than a few roundings of the largest value where PyTorch was lucky.
TEST_P(Fixtures, Float32IsAsAccurateAsPyTorch) {
  Fixture<float> f(GetParam());
  auto expect_close = [&](const std::string& name, const std::vector<float>& got) {
    SCOPED_TRACE(name);
    const auto truth = f.stored.read<double>("f64/" + name);
    const double theirs = error(f.stored.read<float>("f32/" + name), truth);
    EXPECT_LT(error(got, truth), std::max(4 * theirs, 16 * 0x1p-24));
  };
  expect_close("logits", f.trainer->logits(f.tokens.data(), f.settings.batch));
  const auto& table = f.trainer->params();
  for (i64 t = 0; t < f.steps; ++t) {
    const std::string step = "step" + std::to_string(t) + "/";
    const auto result = f.trainer->step(f.tokens.data(), f.labels.data());
    const double loss = f.stored.read<double>("f64/" + step + "loss").at(0);
    const double norm = f.stored.read<double>("f64/" + step + "grad_norm").at(0);
    EXPECT_NEAR(result.loss, loss, 1e-6 * loss);
    EXPECT_NEAR(result.grad_norm, norm, 1e-5 * norm);
    for (int p = 0; p < static_cast<int>(table.size()); ++p) {
      const Param& param = table[static_cast<std::size_t>(p)];
      if (param.tied_to >= 0) continue;
      if (t == 0) expect_close(step + "grad/" + param.name, f.trainer->gradient(p));
      if (t == f.steps - 1) expect_close(step + "weight/" + param.name, f.trainer->weight(p));
    }
  }
}

}  // namespace
}  // namespace lockstep
