#include <algorithm>

#include "kernels/exact_math.hpp"
#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

struct AttentionShape {
  i64 B, T, H, K, hd;
  std::size_t queries() const { return static_cast<std::size_t>(B * T * H * hd); }
  std::size_t keys() const { return static_cast<std::size_t>(B * T * K * hd); }
  std::size_t lse() const { return static_cast<std::size_t>(B * H * T); }
};
// Groups of 1, 2, 3, 4; odd lengths; more keys than one block of backward (64) holds.
const AttentionShape kAttentionShapes[] = {{1, 1, 1, 1, 1},  {2, 5, 2, 2, 3},    {1, 17, 4, 2, 8},
                                           {2, 33, 3, 1, 5}, {1, 130, 4, 1, 17}, {1, 40, 6, 2, 16}};

template <class Real>
struct Input {
  std::vector<Real> q, k, v, dO;
  explicit Input(const AttentionShape& s)
      : q(random_vector<Real>(static_cast<i64>(s.queries()), 1, 2.0)),
        k(random_vector<Real>(static_cast<i64>(s.keys()), 2, 2.0)),
        v(random_vector<Real>(static_cast<i64>(s.keys()), 3)),
        dO(random_vector<Real>(static_cast<i64>(s.queries()), 4)) {}
};

template <class Real>
struct Output {
  std::vector<Real> o, lse, dq, dk, dv;
};

// Softmax attention as in a textbook: whole rows of probabilities, in long double.
Output<long double> textbook(const AttentionShape& s, const auto& in) {
  Output<long double> out;
  out.o.resize(s.queries());
  out.lse.resize(s.lse());
  out.dq.resize(s.queries());
  out.dk.resize(s.keys());
  out.dv.resize(s.keys());
  const long double scale = 1 / std::sqrt(static_cast<long double>(s.hd));
  for (i64 b = 0; b < s.B; ++b)
    for (i64 h = 0; h < s.H; ++h)
      for (i64 i = 0; i < s.T; ++i) {
        const i64 row = ((b * s.T + i) * s.H + h) * s.hd;
        const auto key = [&](i64 j) { return ((b * s.T + j) * s.K + h / (s.H / s.K)) * s.hd; };
        std::vector<long double> p, dp;
        long double sum = 0, mean = 0;
        for (i64 j = 0; j <= i; ++j) {
          long double score = 0, d_score = 0;
          for (i64 d = 0; d < s.hd; ++d) {
            score += static_cast<long double>(in.q[row + d]) * in.k[key(j) + d];
            d_score += static_cast<long double>(in.dO[row + d]) * in.v[key(j) + d];
          }
          p.push_back(std::exp(scale * score));
          dp.push_back(d_score);
          sum += p.back();
        }
        for (i64 j = 0; j <= i; ++j) {
          p[j] /= sum;
          mean += p[j] * dp[j];
        }
        out.lse[(b * s.H + h) * s.T + i] = std::log(sum);
        for (i64 j = 0; j <= i; ++j)
          for (i64 d = 0; d < s.hd; ++d) {
            const long double ds = scale * p[j] * (dp[j] - mean);
            out.o[row + d] += p[j] * in.v[key(j) + d];
            out.dq[row + d] += ds * in.k[key(j) + d];
            out.dk[key(j) + d] += ds * in.q[row + d];
            out.dv[key(j) + d] += p[j] * in.dO[row + d];
          }
      }
  return out;
}

template <class Real>
class Attention : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();

  Output<Real> run(Lanes& lanes, const AttentionShape& s, const Input<Real>& in) const {
    const Real junk = 7;
    Output<Real> out;
    out.o.assign(s.queries(), junk);
    out.lse.assign(s.lse(), junk);
    out.dq.assign(s.queries(), junk);
    out.dk.assign(s.keys(), junk);
    out.dv.assign(s.keys(), junk);
    ops.attention(lanes, out.o.data(), out.lse.data(), in.q.data(), in.k.data(), in.v.data(), s.B, s.T, s.H,
                  s.K, s.hd);
    ops.attention_dx(lanes, out.dq.data(), out.dk.data(), out.dv.data(), in.dO.data(), in.q.data(),
                     in.k.data(), in.v.data(), out.o.data(), out.lse.data(), s.B, s.T, s.H, s.K, s.hd);
    return out;
  }
};
TYPED_TEST_SUITE(Attention, Reals);

TYPED_TEST(Attention, EqualsTheTextbook) {
  for (const AttentionShape& s : kAttentionShapes) {
    const Input<TypeParam> in(s);
    const Output<long double> want = textbook(s, in);
    Output<TypeParam> got[3];
    for (int lanes = 0; lanes < 3; ++lanes) {
      Lanes crew(lanes + 1);
      got[lanes] = this->run(crew, s, in);
      expect_same_bits(got[lanes].o, got[0].o, "o");
      expect_same_bits(got[lanes].lse, got[0].lse, "lse");
      expect_same_bits(got[lanes].dq, got[0].dq, "dq");
      expect_same_bits(got[lanes].dk, got[0].dk, "dk");
      expect_same_bits(got[lanes].dv, got[0].dv, "dv");
    }
    // A score has hd products below 4 and errs by that many eps; so does, relatively, a probability.
    // o averages values below 1. Gradients sum up to T * group terms below 2 hd.
    const long double hd = static_cast<long double>(s.hd), score = kEps<TypeParam> * (4 * hd + 8);
    const long double sum = static_cast<long double>(s.T * s.H / s.K);
    expect_close(got[0].o, want.o, score, "o");
    expect_close(got[0].lse, want.lse, score, "lse");
    expect_close(got[0].dq, want.dq, score * 4 * hd, "dq");
    expect_close(got[0].dk, want.dk, score * 4 * hd * std::sqrt(sum), "dk");
    expect_close(got[0].dv, want.dv, score * sum, "dv");
  }
}

// Ranks that share kv heads each hold some query heads of every group.
TYPED_TEST(Attention, SplitGroupsAddUpToTheWhole) {
  const AttentionShape whole{1, 70, 8, 1, 9};
  const Input<TypeParam> in(whole);
  Lanes lanes;
  const Output<TypeParam> want = this->run(lanes, whole, in);
  for (const i64 S : {2, 4, 8}) {
    const AttentionShape part{whole.B, whole.T, whole.H / S, whole.K, whole.hd};
    std::vector<std::vector<TypeParam>> dk, dv;
    for (i64 s = 0; s < S; ++s) {
      const i64 stride = whole.H * whole.hd, width = part.H * part.hd;
      Input<TypeParam> slice = in;
      slice.q = columns(in.q, stride, s * width, width);
      slice.dO = columns(in.dO, stride, s * width, width);
      const Output<TypeParam> got = this->run(lanes, part, slice);
      expect_same_bits(got.o, columns(want.o, stride, s * width, width), "o");
      expect_same_bits(got.dq, columns(want.dq, stride, s * width, width), "dq");
      dk.push_back(got.dk);
      dv.push_back(got.dv);
    }
    expect_same_bits(add_parts(dk), want.dk, "dk");
    expect_same_bits(add_parts(dv), want.dv, "dv");
  }
}

// A microbatch holds some of the sequences.
TYPED_TEST(Attention, SequencesDoNotMix) {
  const AttentionShape two{2, 19, 2, 1, 4}, one{1, 19, 2, 1, 4};
  const Input<TypeParam> in(two);
  Lanes lanes;
  const Output<TypeParam> want = this->run(lanes, two, in);
  Input<TypeParam> second = in;
  second.q = rows(in.q, 19 * 8, 1, 1);
  second.dO = rows(in.dO, 19 * 8, 1, 1);
  second.k = rows(in.k, 19 * 4, 1, 1);
  second.v = rows(in.v, 19 * 4, 1, 1);
  const Output<TypeParam> got = this->run(lanes, one, second);
  expect_same_bits(got.o, rows(want.o, 19 * 8, 1, 1), "o");
  expect_same_bits(got.lse, rows(want.lse, 19 * 2, 1, 1), "lse");
  expect_same_bits(got.dk, rows(want.dk, 19 * 4, 1, 1), "dk");
}

// Forward keeps the scores of 2048 keys; a longer row goes on with the same chains.
TYPED_TEST(Attention, LongRowsAreStillOneChain) {
  const AttentionShape s{1, 2051, 1, 1, 2};
  const Input<TypeParam> in(s);
  std::vector<TypeParam> o(s.queries()), lse(s.lse()), score;
  Lanes lanes;
  this->ops.attention(lanes, o.data(), lse.data(), in.q.data(), in.k.data(), in.v.data(), s.B, s.T, s.H, s.K,
                      s.hd);
  for (const i64 i : {i64{2046}, i64{2047}, i64{2048}, s.T - 1}) {
    score.clear();
    for (i64 j = 0; j <= i; ++j) {
      const TypeParam first = std::fma(in.q[2 * i], in.k[2 * j], TypeParam(0));
      score.push_back(attention_scale<TypeParam>(2) * std::fma(in.q[2 * i + 1], in.k[2 * j + 1], first));
    }
    const TypeParam max = *std::max_element(score.begin(), score.end());
    LaneSum<TypeParam> sum;
    TypeParam out[2] = {};
    for (i64 j = 0; j <= i; ++j) {
      const TypeParam p = exact_exp(score[j] - max);
      sum.add(j, p);
      for (int d = 0; d < 2; ++d) out[d] = std::fma(p, in.v[2 * j + d], out[d]);
    }
    EXPECT_EQ(o[2 * i], out[0] / sum.total()) << i;
    EXPECT_EQ(o[2 * i + 1], out[1] / sum.total()) << i;
    EXPECT_EQ(lse[i], max + exact_log(sum.total())) << i;
  }
}

// Scores in the thousands: without the maximum, exp would overflow.
TYPED_TEST(Attention, LargeScoresStayFinite) {
  const AttentionShape s{1, 9, 1, 1, 4};
  Input<TypeParam> in(s);
  for (auto& x : in.q) x = x * 100;
  for (auto& x : in.k) x = x * 100;
  Lanes lanes;
  const Output<TypeParam> got = this->run(lanes, s, in);
  for (const auto* values : {&got.o, &got.lse, &got.dq, &got.dk, &got.dv})
    for (const TypeParam x : *values) ASSERT_TRUE(std::isfinite(x));
  for (const TypeParam x : got.o) EXPECT_LE(std::fabs(x), 1);
}

TEST(AttentionGradient, AgreesWithDifferences) {
  const Ops<double> ops = plain_ops<double>();
  Lanes lanes;
  const AttentionShape s{1, 9, 6, 2, 5};
  const Input<double> in(s);
  std::vector<double> lse(s.lse()), dq(s.queries()), dk(s.keys()), dv(s.keys());
  const auto o = [&](const auto& q, const auto& k, const auto& v) {
    std::vector<double> out(s.queries());
    ops.attention(lanes, out.data(), lse.data(), q.data(), k.data(), v.data(), s.B, s.T, s.H, s.K, s.hd);
    return out;
  };
  const auto out = o(in.q, in.k, in.v);
  ops.attention_dx(lanes, dq.data(), dk.data(), dv.data(), in.dO.data(), in.q.data(), in.k.data(),
                   in.v.data(), out.data(), lse.data(), s.B, s.T, s.H, s.K, s.hd);
  expect_gradient([&](const auto& moved) { return o(moved, in.k, in.v); }, in.q, in.dO, dq, "dq");
  expect_gradient([&](const auto& moved) { return o(in.q, moved, in.v); }, in.k, in.dO, dk, "dk");
  expect_gradient([&](const auto& moved) { return o(in.q, in.k, moved); }, in.v, in.dO, dv, "dv");
}

}  // namespace
}  // namespace lockstep::kernel_test
