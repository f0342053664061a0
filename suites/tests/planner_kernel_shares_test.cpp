// What a predicted step's time goes to, against counts and closed forms of the model, and the prediction it
// is part of.
#include <gtest/gtest.h>

#include "suites/planner/answer/kernel_shares.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

struct TinyLlama {
  ModelConfig model = load_model_config("suites/models/tinyllama-1.1b.json");
  Cluster cluster = load_cluster("suites/clusters/h100x64.toml");
  Settings settings;
  explicit TinyLlama(i64 batch = 4) {
    cluster.devices = 1;
    settings.batch = batch, settings.seq = 2048;
    settings = settings_on(cluster, settings);
  }
  Question question() const { return {model, settings, cluster}; }
};

const KernelShare& of(const std::vector<KernelShare>& shares, const std::string& kernel) {
  for (const KernelShare& k : shares)
    if (k.kernel == kernel) return k;
  throw std::logic_error(kernel + " is not there");
}

TEST(KernelShares, AreTheModelsOperationsAndThePredictionsSeconds) {
  const TinyLlama t;
  const Plan plan = Plan::parse("dp=1 micro=2");
  const std::vector<KernelShare> shares = kernel_shares(plan, t.question(), 0);
  double matmuls = 0, seconds = 0, last = INFINITY;
  for (const KernelShare& k : shares) {
    EXPECT_LE(k.seconds, last) << k.kernel;
    last = k.seconds, seconds += k.seconds;
    if (k.kernel.starts_with("matmul")) matmuls += k.flops;
    EXPECT_FALSE(k.on_host) << k.kernel;
  }
  // 2 operations a weight and token forward, and backward to inputs and to weights: 22 layers of q, o, k, v,
  // gate, up and down, and the head, whose 32000 columns need no pad.
  const double layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 5632;
  EXPECT_DOUBLE_EQ(matmuls, 6.0 * 4 * 2048 * (22 * layer + 32000.0 * 2048));
  EXPECT_EQ(of(shares, "attention").calls, 22 * 2);            // layers, microbatches
  EXPECT_EQ(of(shares, "adamw").bytes, 7 * 4 * 1100048384.0);  // parameters, as huggingface.co has them
  const double normed =
      2.0 * 2 * (2 * 22 + 1) * 4 * 2048 * 2048;  // bf16 in and out; weights and statistics are few
  EXPECT_NEAR(of(shares, "rms_norm").bytes, normed, 1e-3 * normed);
  const Prediction p = predict_by_trace({t.model, t.settings, plan}, t.cluster);
  EXPECT_NEAR(seconds, p.stages[0].compute + p.stages[0].update, 1e-9 * p.seconds);
}

TEST(KernelShares, NameWhatTheHostDoes) {
  const TinyLlama t;
  const KernelShare adamw =
      of(kernel_shares(Plan::parse("dp=1 offload=optimizer"), t.question(), 0), "adamw");
  EXPECT_TRUE(adamw.on_host);
  EXPECT_NEAR(adamw.bytes / adamw.seconds, t.cluster.host_bandwidth, 1e-6 * t.cluster.host_bandwidth);
  EXPECT_TRUE(says(kernel_shares_text(Plan::parse("dp=1 offload=optimizer"), t.question()), "adamw, host",
                   "matmul_dw", "stage 0 of 1"));
}

// The second of two stages has as many layers, and the head.
TEST(KernelShares, AreOfTheStageThatWorksMost) {
  TinyLlama t;
  t.cluster.devices = 2;
  EXPECT_TRUE(says(kernel_shares_text(Plan::parse("pp=2"), t.question()), "stage 1 of 2", "ce_dx"));
}

TEST(KernelShares, OfTooLongAStepAreRefused) {
  const TinyLlama t(1024);
  EXPECT_TRUE(says(refusal([&] { kernel_shares(Plan::parse("dp=1 micro=1"), t.question(), 0); }),
                   "22528 passes", "16384"));
}

}  // namespace
}  // namespace lockstep
