// A batch whose sequences a trainer counted otherwise is told from its gradients alone, which are made here
// of the reference's for each sequence by itself, in the trainer's type of numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "ref/trainer.hpp"
#include "suites/certify/sequences.hpp"

namespace lockstep {
namespace {

constexpr i64 kBatch = 8, kSeq = 12;

// Of 25 words, which are padded to 32, so that of the largest tensors some rows are not there.
class Sequences : public ::testing::Test {
 protected:
  explicit Sequences(bool tied = false) {
    model_.vocab = 25, model_.hidden = 16, model_.intermediate = 24, model_.layers = 2, model_.heads = 2;
    model_.kv_heads = 1, model_.head_dim = 8, model_.tied = tied;
    settings_.batch = kBatch, settings_.seq = kSeq, settings_.leaves = 8;
    std::mt19937 random(3);
    for (i64 i = 0; i < kBatch * kSeq; ++i) {
      tokens_.push_back(static_cast<i32>(random() % 25)), labels_.push_back(static_cast<i32>(random() % 25));
      if (i % kSeq <= i / kSeq) labels_.back() = -100;  // of sequence s, the first s + 1 do not count
    }
    table_ = parameter_table(model_, settings_.leaves);
    for (const Param& p : table_) {
      before_.emplace_back();
      for (i64 i = 0; i < p.count() && p.tied_to < 0; ++i)
        before_.back().push_back(p.rows == 1 ? 1 : 0.3f * (static_cast<float>(random() % 2001) / 1000 - 1));
    }
  }

  i64 valid(i64 first, i64 last, i64 apart = 1) const {
    i64 n = 0;
    for (i64 s = first; s <= last; s += apart)
      n += std::count_if(&labels_[s * kSeq], &labels_[s * kSeq] + kSeq, [](i32 label) { return label >= 0; });
    return n;
  }

  // The gradient of the batch's mean loss, were each sequence counted so often. T: the trainer's numbers.
  template <class T = float>
  std::vector<std::vector<float>> gradient(const std::vector<double>& counts) {
    Settings alone = settings_;
    alone.batch = 1;
    Lanes lanes(1);
    Trainer<T> trainer(model_, alone, plain_ops<float>(), lanes);
    std::vector<std::vector<double>> sum(table_.size());
    for (i64 s = 0; s < kBatch; ++s) {
      if (valid(s, s) == 0) continue;
      for (std::size_t i = 0; i < table_.size(); ++i)
        if (table_[i].tied_to < 0) trainer.load(table_[i].name, before_[i].data());
      trainer.step(&tokens_[s * kSeq], &labels_[s * kSeq]);
      for (std::size_t i = 0; i < table_.size(); ++i) {
        sum[i].resize(before_[i].size());
        for (std::size_t e = 0; e < sum[i].size(); ++e)
          sum[i][e] += counts[s] * trainer.gradient(static_cast<int>(i))[e] *
                       static_cast<double>(valid(s, s)) / static_cast<double>(valid(0, kBatch - 1));
      }
    }
    std::vector<std::vector<float>> gradient;
    for (const auto& x : sum) gradient.emplace_back(x.begin(), x.end());
    return gradient;
  }

  // Of all parameters, or of these. rounding: what may be, as a part of each gradient.
  std::string said(const std::vector<std::vector<float>>& gradient, double rounding = 1e-5) {
    std::vector<std::size_t> all;
    for (std::size_t i = 0; i < table_.size(); ++i)
      if (table_[i].tied_to < 0) all.push_back(i);
    return said_of(gradient, all, rounding);
  }
  std::string said_of(const std::vector<std::vector<float>>& gradient, const std::vector<std::size_t>& params,
                      double rounding = 1e-5) {
    const auto right = this->gradient(std::vector<double>(kBatch, 1.0));
    std::vector<WrongStep::Beyond> beyond;
    for (const std::size_t i : params) {
      double square = 0, off = 0;
      for (std::size_t e = 0; e < right[i].size(); ++e) {
        square += static_cast<double>(right[i][e]) * right[i][e];
        off += std::pow(static_cast<double>(gradient[i][e]) - right[i][e], 2);
      }
      beyond.push_back({i, std::sqrt(off), rounding * std::sqrt(square)});
    }
    return counted_otherwise(model_, settings_, {before_, tokens_, labels_, gradient, beyond});
  }

  ModelConfig model_;
  Settings settings_;
  std::vector<i32> tokens_, labels_;
  std::vector<Param> table_;
  std::vector<std::vector<float>> before_;
};

TEST_F(Sequences, ThatAreNotCounted) {
  EXPECT_EQ(said(gradient({1, 1, 1, 1, 1, 1, 0, 0})), "sequences 6 to 7 not counted");
  EXPECT_EQ(said(gradient({1, 1, 1, 0, 1, 1, 1, 1})), "sequence 3 not counted");
}

TEST_F(Sequences, OfAPart) {
  EXPECT_EQ(said(gradient({1, 1, 1, 1, 2, 2, 2, 2})), "sequences 4 to 7 counted twice");
  EXPECT_EQ(said(gradient({1, 0, 1, 1, 1, 0, 1, 1})), "sequences 1 and 5 not counted");
  EXPECT_EQ(said(gradient({2, 1, 2, 1, 2, 1, 2, 1})), "sequences 0, 2, ..., 6 counted twice");
}

// Each explains what the others would.
TEST_F(Sequences, AreAlike) {
  for (i64 i = kSeq; i < 2 * kSeq; ++i) tokens_[i] = tokens_[i - kSeq], labels_[i] = labels_[i - kSeq];
  EXPECT_EQ(said(gradient({0, 1, 1, 1, 1, 1, 1, 1})), "");
  for (i64 i = kSeq; i < kBatch * kSeq; ++i) tokens_[i] = tokens_[i - kSeq], labels_[i] = labels_[i - kSeq];
  EXPECT_EQ(said(gradient(std::vector<double>(8, 1.125))), "");
}

struct TiedSequences : Sequences {
  TiedSequences() : Sequences(true) {}
};
TEST_F(TiedSequences, OfAPart) {
  EXPECT_EQ(said(gradient({1, 1, 1, 1, 1, 1, 0, 0})), "sequences 6 to 7 not counted");
}

TEST_F(Sequences, ThatAreCountedOtherwise) {
  EXPECT_EQ(
      said(gradient({2, 1, 1, 1, 0.8, 0.8, 1.25, 1.25})),
      "sequence 0 counted twice, sequences 4 to 5 counted 0.8 times, sequences 6 to 7 counted 1.25 times");
  EXPECT_EQ(said(gradient({0, 2, 0, 2, 0, 2, 1, 1})),
            "sequence 0 not counted, sequence 1 counted twice, sequence 2 not counted, sequence 3 counted "
            "twice and 2 more");
}

// What one replica has where nothing is reduced: a part's sum, its share of the mean, or its own mean.
TEST_F(Sequences, OfOneReplica) {
  EXPECT_EQ(said(gradient({0, 0, 1, 1, 0, 0, 0, 0})), "sequences 2 to 3 alone");
  EXPECT_EQ(said(gradient({0, 0, 4, 4, 0, 0, 0, 0})), "sequences 2 to 3 alone, counted 4 times");
  const double mean = static_cast<double>(valid(0, 7)) / static_cast<double>(valid(1, 7, 4));
  EXPECT_EQ(said(gradient({0, mean, 0, 0, 0, mean, 0, 0})), "the mean of sequences 1 and 5 alone");
  EXPECT_EQ(said(gradient<bf16>({4, 0, 0, 0, 4, 0, 0, 0}), 0.1), "sequences 0 and 4 alone, counted 4 times");
}

// That is a factor, and no matter of sequences; also where those that count are a part of the batch.
TEST_F(Sequences, AreTheSameInEveryCase) {
  for (const double count : {2.0, 0.5}) EXPECT_EQ(said(gradient(std::vector<double>(8, count))), "");
  for (i64 i = 4 * kSeq; i < kBatch * kSeq; ++i) labels_[i] = -100;
  for (const double count : {2.0, 0.5, 0.0}) EXPECT_EQ(said(gradient(std::vector<double>(8, count))), "");
}

TEST_F(Sequences, OfMeans) {
  const double all = static_cast<double>(valid(0, 7));
  std::vector<double> in_a_row, apart, alone;
  for (i64 s = 0; s < kBatch; ++s) {
    in_a_row.push_back(all / (4 * static_cast<double>(valid(s / 2 * 2, s / 2 * 2 + 1))));
    apart.push_back(all / (4 * static_cast<double>(valid(s % 4, 7, 4))));
    alone.push_back(all / (8 * static_cast<double>(valid(s, s))));
  }
  EXPECT_EQ(said(gradient(in_a_row)), "a mean of 4 means, each of 2 sequences in a row");
  EXPECT_EQ(said(gradient(apart)), "a mean of 4 means, each of sequences 4 apart");
  EXPECT_EQ(said(gradient(alone)), "a mean of 8 means, each of one sequence");
}

// Whose rounding is a thousandth to a hundredth of each gradient, and its bound wider.
TEST_F(Sequences, OfATrainerInBf16) {
  EXPECT_EQ(said(gradient<bf16>({1, 1, 1, 1, 1, 1, 0, 0}), 0.1), "sequences 6 to 7 not counted");
  EXPECT_EQ(said(gradient<bf16>({1, 1, 1, 1, 1, 1.5, 1, 1}), 0.1), "sequence 5 counted 1.5 times");
}

// To come within a wide bound is no reason yet, nor is what another tensor's fault leaves within it.
TEST_F(Sequences, DoNotExplainAnotherFaultWithinAWideBound) {
  std::vector<std::vector<float>> wrong = gradient<bf16>(std::vector<double>(8, 1.0));
  for (float& g : wrong[1 + o_proj]) g *= 1.4f;
  EXPECT_EQ(said_of(wrong, {1 + o_proj}, 0.25), "");
  wrong = gradient<bf16>({1, 1, 1, 1, 1, 1, 1, 0});
  for (float& g : wrong[1 + o_proj]) g *= 1.2f;
  EXPECT_EQ(said(wrong, 0.25), "");
}

TEST_F(Sequences, WithoutALabelThatCounts) {
  for (i64 t = 0; t < kSeq; ++t) labels_[3 * kSeq + t] = -100;
  EXPECT_EQ(said(gradient({1, 1, 1, 1, 1, 1, 1, 0})), "sequence 7 not counted");
}

// Only what is beyond its bound is to be explained, and all of that.
TEST_F(Sequences, OfOneParameterAlone) {
  std::vector<std::vector<float>> one = gradient(std::vector<double>(8, 1.0));
  const std::size_t up = 1 + up_proj, down = 1 + down_proj;
  one[up] = gradient({1, 1, 1, 1, 0, 0, 0, 0})[up];
  EXPECT_EQ(said_of(one, {up}), "sequences 0 to 3 alone");
  EXPECT_EQ(said_of(one, {up, down}), "");
}

TEST_F(Sequences, DoNotExplainAnotherFault) {
  std::vector<std::vector<float>> wrong = gradient({1, 1, 1, 1, 0, 1, 1, 1});
  wrong[1 + o_proj][5] *= 1.5f;
  EXPECT_EQ(said(wrong), "");
  wrong[1 + o_proj][5] = std::nanf("");
  EXPECT_EQ(said(wrong), "");
}

}  // namespace
}  // namespace lockstep
