// What is nearly AdamW is told from it and named. The trainer here has its formulas from the papers: Kingma
// and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "suites/certify/adamw_variants.hpp"
#include "suites/gates/fast.hpp"

namespace lockstep {
namespace {

ModelConfig tiny_model() {
  ModelConfig m;
  m.vocab = 24, m.hidden = 16, m.intermediate = 24, m.layers = 1, m.heads = 2, m.kv_heads = 1, m.head_dim = 8;
  m.tied = true;
  return m;
}

// A trainer that does what `fault` says, and the rest right.
class OutsideTrainer {
 public:
  OutsideTrainer(const std::vector<Param>& table, const Settings& settings, std::string fault)
      : table_(table), s_(settings), fault_(std::move(fault)), m_(table.size()), v_(table.size()) {}

  std::vector<float> step(int t, double lr, std::size_t i, const std::vector<float>& before,
                          const std::vector<float>& gradient, double norm) {
    const Param& p = table_[i];
    const bool decayed = fault_ == "decay of norms too"          ? true
                         : fault_ == "no weight decay"           ? false
                         : fault_ == "no decay of the embedding" ? p.decayed && p.unit != 0
                                                                 : p.decayed;
    const bool adam = fault_ == "decay added to the gradient (Adam, not AdamW)";
    const double beta1 = fault_ == "beta1 = 0.95" ? 0.95 : s_.beta1,
                 beta2 = fault_ == "beta2 = 0.999" ? 0.999 : s_.beta2;
    const double clip = fault_ == "no clipping" ? 1 : std::min(1.0, s_.clip / (norm + 1e-6));
    m_[i].resize(before.size()), v_[i].resize(before.size());
    std::vector<float> after(before);
    for (std::size_t e = 0; e < before.size(); ++e) {
      double g = clip * gradient[e];
      if (adam && p.decayed) g += s_.weight_decay * before[e];
      double &m = m_[i][e], &v = v_[i][e];
      m = beta1 * m + (1 - beta1) * g, v = beta2 * v + (1 - beta2) * g * g;
      if (fault_ == "moments in bf16") m = bf16(static_cast<float>(m)), v = bf16(static_cast<float>(v));
      const bool uncorrected = fault_ == "no bias correction";
      const double first = uncorrected ? m : m / (1 - std::pow(beta1, t));
      const double bias2 = uncorrected ? 1 : 1 - std::pow(beta2, t);
      const double under = fault_ == "eps added before the bias is corrected"
                               ? (std::sqrt(v) + s_.eps) / std::sqrt(bias2)
                               : std::sqrt(v / bias2) + s_.eps;
      const double w = before[e];
      after[e] =
          static_cast<float>(w - (decayed && !adam ? lr * s_.weight_decay * w : 0) - lr * first / under);
    }
    return after;
  }

 private:
  const std::vector<Param>& table_;
  Settings s_;
  std::string fault_;
  std::vector<std::vector<double>> m_, v_;
};

struct Followed {
  bool within = true;
  std::string named;  // at the first step beyond
  std::vector<std::string> untold;
};

Followed follow(const std::string& fault, double peak, int warmup = 4, int steps = 6) {
  Settings s;
  s.beta1 = 0.9, s.beta2 = 0.95, s.eps = 1e-6, s.weight_decay = 0.1, s.clip = 0.5, s.warmup = 0,
  s.min_ratio = 1;
  const std::vector<Param> table = parameter_table(tiny_model(), s.leaves);
  AdamWVariants variants(table, s, true);
  OutsideTrainer trainer(table, s, fault);
  std::mt19937 bits(7);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> weights;
  for (const Param& p : table) {
    weights.emplace_back(p.tied_to >= 0 ? 0 : static_cast<std::size_t>(p.count()), 1.0f);
    if (p.decayed)
      for (float& w : weights.back()) w = 0.1f * normal(bits);
  }
  const auto rate = [&](int k) { return peak * std::min(1.0, (k + 1.0) / warmup); };
  Followed result;
  for (int k = 0; k < steps && result.within; ++k) {
    std::vector<std::vector<float>> gradients;
    double squares = 0;
    for (const auto& w : weights) {
      std::vector<float> g(w.size());
      // Some below eps, all larger in every second step.
      for (std::size_t e = 0; e < g.size(); ++e)
        g[e] = normal(bits) * (k % 2 ? 0.1f : 0.03f) * (e % 3 ? 1.0f : 1e-5f);
      for (const float x : g) squares += double{x} * x;
      gradients.push_back(g);
    }
    const double norm = std::sqrt(squares);
    EXPECT_GT(norm, s.clip);
    const int at = fault == "the learning rate of the step before"  ? k - 1
                   : fault == "the learning rate of the step after" ? k + 1
                                                                    : k;
    const double used = at < 0 ? rate(0) : rate(std::min(at, steps - 1));
    AdamWVariants::Rates rates{rate(k), {}, {}};
    if (k > 0) rates.before = rate(k - 1);
    if (k + 1 < steps) rates.after = rate(k + 1);
    variants.begin(k, rates, norm);
    for (std::size_t i = 0; i < table.size(); ++i) {
      if (weights[i].empty()) continue;
      const std::vector<float> after = trainer.step(k + 1, used, i, weights[i], gradients[i], norm);
      const auto [w64, allowed] = variants.follow(static_cast<int>(i), weights[i], gradients[i], after);
      result.within = result.within && distance(table[i], after, w64) <= allowed;
      weights[i] = after;
    }
    if (!result.within) result.named = variants.made_by();
  }
  result.untold = variants.untold();
  return result;
}

const std::vector<std::string> kFaults{"no weight decay",
                                       "decay of norms too",
                                       "no decay of the embedding",
                                       "decay added to the gradient (Adam, not AdamW)",
                                       "no clipping",
                                       "beta1 = 0.95",
                                       "beta2 = 0.999",
                                       "no bias correction",
                                       "eps added before the bias is corrected",
                                       "moments in bf16",
                                       "the learning rate of the step before",
                                       "the learning rate of the step after"};

TEST(AdamWVariants, ARightTrainerIsWithinAndToldFromAllOthers) {
  for (const double peak : {1e-3, 1e-2}) {
    const Followed right = follow("", peak);
    EXPECT_TRUE(right.within) << peak << ": " << right.named;
    EXPECT_EQ(right.untold, std::vector<std::string>{}) << peak;
  }
}

TEST(AdamWVariants, EachFaultIsNamed) {
  for (const std::string& fault : kFaults) {
    const Followed wrong = follow(fault, 1e-3);
    EXPECT_FALSE(wrong.within) << fault;
    EXPECT_EQ(wrong.named, fault);
  }
}

// Of two that fit, the one that is nearer. The rates before and after are twice this step's, and a few
// millionths apart, which is less than the bound.
TEST(AdamWVariants, OfTwoThatFitTheNearerIsNamed) {
  Settings s;
  s.clip = 1e9, s.warmup = 0, s.min_ratio = 1;
  const std::vector<Param> table = parameter_table(tiny_model(), s.leaves);
  const AdamWVariants::Rates rates{1e-3, 2e-3, 2.00001e-3};
  for (const auto& [used, name] : {std::pair{*rates.before, "the learning rate of the step before"},
                                   {*rates.after, "the learning rate of the step after"}}) {
    AdamWVariants variants(table, s, true);
    OutsideTrainer trainer(table, s, "");
    variants.begin(0, rates, 1);
    std::mt19937 bits(7);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < table.size(); ++i) {
      if (table[i].tied_to >= 0) continue;
      std::vector<float> before(static_cast<std::size_t>(table[i].count()), 0.1f), gradient(before);
      for (float& g : gradient) g = normal(bits);
      variants.follow(static_cast<int>(i), before, gradient, trainer.step(1, used, i, before, gradient, 1));
    }
    EXPECT_EQ(variants.made_by(), name);
  }
}

// Whatever is within the bound is among what was not told: nothing is certified in silence.
TEST(AdamWVariants, WhatIsTooSmallToBeSeenIsSaid) {
  std::size_t unseen = 0;
  for (const double peak : {1e-4, 1e-5, 1e-6, 1e-7})
    for (const std::string& fault : kFaults) {
      const Followed f = follow(fault, peak);
      if (!f.within) continue;
      ++unseen;
      EXPECT_NE(std::find(f.untold.begin(), f.untold.end(), fault), f.untold.end())
          << fault << " at " << peak;
    }
  EXPECT_GT(unseen, 5u) << "or these rates are too large for the test";
}

// With one rate for all steps, the steps beside one have no other.
TEST(AdamWVariants, WhatIsTheSameIsNotSaid) {
  const Followed constant = follow("", 1e-3, 1);
  EXPECT_EQ(constant.untold, std::vector<std::string>{});
}

}  // namespace
}  // namespace lockstep
