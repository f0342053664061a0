#include <algorithm>

#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

// A batch's logits over a padded vocabulary, some labels ignored.
template <class Real>
struct Batch {
  i64 B, T, V, valid;
  std::vector<Real> logits;
  std::vector<i32> labels;
  Batch(i64 B_, i64 T_, i64 V_, i64 valid_) : B(B_), T(T_), V(V_), valid(valid_) {
    logits = random_vector<Real>(M() * V, 1, 5.0);
    Random random(2);
    for (i64 m = 0; m < M(); ++m) {
      labels.push_back(m % 4 == 3 ? -100 : static_cast<i32>(random.below(valid)));
      for (i64 n = valid; n < V; ++n) logits[m * V + n] = 1e30f;  // no one may look at pads
    }
  }
  i64 M() const { return B * T; }
};

template <class Real>
struct Result {
  std::vector<Real> max, sum, target, dl;
  std::vector<double> loss;
};

template <class Real>
class CrossEntropy : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();

  // As `shards` ranks do it, each with V / shards columns and its part of the leaves.
  Result<Real> run(Lanes& lanes, const Batch<Real>& batch, i64 leaves, Real scale, i64 shards) const {
    const i64 M = batch.M(), width = batch.V / shards;
    const std::size_t size = static_cast<std::size_t>(M);
    const auto valid = [&](i64 s) { return std::clamp<i64>(batch.valid - s * width, 0, width); };
    std::vector<std::vector<Real>> part, sums, targets;
    Result<Real> out;
    out.max.assign(size, -std::numeric_limits<Real>::infinity());
    for (i64 s = 0; s < shards; ++s) {
      part.push_back(columns(batch.logits, batch.V, s * width, width));
      std::vector<Real> max(size);
      ops.ce_max(lanes, max.data(), part.back().data(), M, width, valid(s));
      for (std::size_t m = 0; m < size; ++m) out.max[m] = std::max(out.max[m], max[m]);
    }
    for (i64 s = 0; s < shards; ++s) {
      std::vector<Real> sum(size, 7), target(size, 7);
      ops.ce_sum(lanes, sum.data(), target.data(), part[s].data(), out.max.data(), batch.labels.data(), M,
                 width, valid(s), s * width, leaves / shards);
      sums.push_back(sum);
      targets.push_back(target);
    }
    out.sum = add_parts(sums);
    out.target = add_parts(targets);
    out.loss.resize(static_cast<std::size_t>(batch.B));
    ops.ce_loss(lanes, out.loss.data(), out.sum.data(), out.max.data(), out.target.data(),
                batch.labels.data(), batch.B, batch.T);
    out.dl.resize(batch.logits.size());
    for (i64 s = 0; s < shards; ++s) {
      ops.ce_dx(lanes, part[s].data(), out.max.data(), out.sum.data(), batch.labels.data(), M, width,
                valid(s), s * width, scale);
      for (i64 m = 0; m < M; ++m) std::copy_n(&part[s][m * width], width, &out.dl[m * batch.V + s * width]);
    }
    return out;
  }
};
TYPED_TEST_SUITE(CrossEntropy, Reals);

TYPED_TEST(CrossEntropy, EqualsLongDouble) {
  const Batch<TypeParam> batches[] = {{1, 1, 1, 1}, {2, 3, 8, 5}, {3, 5, 40, 39}, {2, 7, 304, 300}};
  const TypeParam scale = TypeParam(0.37);
  for (const auto& batch : batches)
    for (const i64 leaves : {1, 8}) {
      Lanes one(1), two(2), three(3);
      const auto got = this->run(one, batch, leaves, scale, 1);
      for (Lanes* lanes : {&two, &three}) {
        const auto again = this->run(*lanes, batch, leaves, scale, 1);
        expect_same_bits(again.sum, got.sum, "sum");
        expect_same_bits(again.loss, got.loss, "loss");
        expect_same_bits(again.dl, got.dl, "dl");
      }
      for (i64 b = 0; b < batch.B; ++b) {
        long double loss = 0;
        for (i64 m = b * batch.T; m < (b + 1) * batch.T; ++m) {
          const TypeParam* row = &batch.logits[m * batch.V];
          long double sum = 0, max = row[0];
          for (i64 n = 0; n < batch.valid; ++n) max = std::max<long double>(max, row[n]);
          for (i64 n = 0; n < batch.valid; ++n) sum += std::exp(row[n] - max);
          ASSERT_EQ(got.max[m], max);
          // exp errs by the rounding of an argument up to 10, and 1 ulp.
          const long double bound = kEps<TypeParam> * (12 + static_cast<long double>(batch.valid) / 16);
          ASSERT_LE(std::fabs(got.sum[m] / sum - 1), bound);
          const i32 label = batch.labels[m];
          ASSERT_EQ(got.target[m], label < 0 ? TypeParam(0) : row[label]);
          if (label >= 0) loss += std::log(sum) + max - row[label];
          for (i64 n = 0; n < batch.V; ++n) {
            const long double p = n < batch.valid ? std::exp(row[n] - max) / sum : 0;
            const long double want = label < 0 ? 0 : scale * (p - (n == label));
            ASSERT_LE(std::fabs(got.dl[m * batch.V + n] - want), bound * scale) << m << "," << n;
          }
        }
        ASSERT_NEAR(got.loss[b], static_cast<double>(loss), kEps<TypeParam> * (20.0 * batch.T + batch.valid));
      }
    }
}

// Ranks that split the vocabulary; with 4 and 8, the last holds nothing but padding.
TYPED_TEST(CrossEntropy, SplitVocabularyAddsUpToTheWhole) {
  const Batch<TypeParam> batch(2, 6, 304, 200);
  Lanes lanes;
  const auto whole = this->run(lanes, batch, 8, TypeParam(0.1), 1);
  for (const i64 shards : {2, 4, 8}) {
    const auto got = this->run(lanes, batch, 8, TypeParam(0.1), shards);
    expect_same_bits(got.max, whole.max, "max");
    expect_same_bits(got.sum, whole.sum, "sum");
    expect_same_bits(got.target, whole.target, "target");
    expect_same_bits(got.loss, whole.loss, "loss");
    expect_same_bits(got.dl, whole.dl, "dl");
  }
}

TYPED_TEST(CrossEntropy, NoValidColumnHasMaximumMinusInfinity) {
  const std::vector<TypeParam> logits(6, TypeParam(1));
  std::vector<TypeParam> max(2);
  Lanes lanes;
  this->ops.ce_max(lanes, max.data(), logits.data(), 2, 3, 0);
  EXPECT_EQ(max[0], -std::numeric_limits<TypeParam>::infinity());
  EXPECT_EQ(max[1], max[0]);
}

TEST(CrossEntropyGradient, AgreesWithDifferences) {
  const Ops<double> ops = plain_ops<double>();
  Lanes lanes;
  const i64 T = 7, V = 16, valid = 13;
  std::vector<double> logits = random_vector<double>(T * V, 3, 3.0), max(T), sum(T), target(T);
  const std::vector<i32> labels{0, 12, -1, 5, 5, -100, 3};
  const auto loss = [&](const std::vector<double>& x) {
    std::vector<double> out(1);
    ops.ce_max(lanes, max.data(), x.data(), T, V, valid);
    ops.ce_sum(lanes, sum.data(), target.data(), x.data(), max.data(), labels.data(), T, V, valid, 0, 4);
    ops.ce_loss(lanes, out.data(), sum.data(), max.data(), target.data(), labels.data(), 1, T);
    return out;
  };
  loss(logits);
  std::vector<double> dl = logits;
  ops.ce_dx(lanes, dl.data(), max.data(), sum.data(), labels.data(), T, V, valid, 0, 0.2);
  expect_gradient(loss, logits, {0.2}, dl, "dl");
}

}  // namespace
}  // namespace lockstep::kernel_test
