#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

constexpr double kNormEps = 1e-5;

template <class Real>
class Norm : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();

  std::vector<Real> weight_gradient(Lanes& lanes, std::vector<Real> dw, const std::vector<Real>& dy,
                                    const std::vector<Real>& x, const std::vector<Real>& rstd, i64 leaves,
                                    bool add) const {
    const i64 T = static_cast<i64>(rstd.size()), D = static_cast<i64>(dw.size());
    ops.rms_norm_dw(lanes, dw.data(), dy.data(), x.data(), rstd.data(), T, D, leaves, add);
    return dw;
  }
};
TYPED_TEST_SUITE(Norm, Reals);

struct NormShape {
  i64 M, D;
};
const NormShape kNormShapes[] = {{1, 1}, {3, 15}, {2, 16}, {5, 17}, {4, 33}, {2, 700}};

TYPED_TEST(Norm, ForwardEqualsLongDouble) {
  for (const NormShape& s : kNormShapes) {
    const auto x = random_vector<TypeParam>(s.M * s.D, 1), w = random_vector<TypeParam>(s.D, 2);
    const auto got = on_lanes<TypeParam>([&](Lanes& lanes) {
      std::vector<TypeParam> y(static_cast<std::size_t>(s.M * s.D + s.M));
      this->ops.rms_norm(lanes, y.data(), y.data() + s.M * s.D, x.data(), w.data(), s.M, s.D, kNormEps);
      return y;
    });
    for (i64 m = 0; m < s.M; ++m) {
      long double squares = 0;
      for (i64 d = 0; d < s.D; ++d) squares += static_cast<long double>(x[m * s.D + d]) * x[m * s.D + d];
      const long double rstd = 1 / std::sqrt(squares / s.D + kNormEps);
      const long double bound = kEps<TypeParam> * (static_cast<long double>(s.D) / 16 + 8);
      ASSERT_LE(std::fabs(got[s.M * s.D + m] / rstd - 1), bound);
      for (i64 d = 0; d < s.D; ++d) {
        const long double want = w[d] * x[m * s.D + d] * rstd;
        ASSERT_LE(std::fabs(got[m * s.D + d] - want), bound * std::fabs(want)) << m << "," << d;
      }
    }
  }
}

TYPED_TEST(Norm, InputGradientEqualsLongDouble) {
  for (const NormShape& s : kNormShapes) {
    const auto x = random_vector<TypeParam>(s.M * s.D, 1), w = random_vector<TypeParam>(s.D, 2);
    const auto dy = random_vector<TypeParam>(s.M * s.D, 3), rstd = random_vector<TypeParam>(s.M, 4);
    const auto dx = on_lanes<TypeParam>([&](Lanes& lanes) {
      std::vector<TypeParam> out(static_cast<std::size_t>(s.M * s.D));
      this->ops.rms_norm_dx(lanes, out.data(), dy.data(), x.data(), rstd.data(), w.data(), s.M, s.D);
      return out;
    });
    for (i64 m = 0; m < s.M; ++m) {
      const long double r = rstd[m];
      long double c = 0;
      for (i64 d = 0; d < s.D; ++d)
        c += static_cast<long double>(dy[m * s.D + d]) * w[d] * x[m * s.D + d] * r;
      for (i64 d = 0; d < s.D; ++d) {
        const long double g = static_cast<long double>(dy[m * s.D + d]) * w[d];
        const long double want = r * (g - x[m * s.D + d] * r * c / s.D);
        ASSERT_LE(std::fabs(dx[m * s.D + d] - want),
                  kEps<TypeParam> * (static_cast<long double>(s.D) / 16 + 8));
      }
    }
  }
}

TYPED_TEST(Norm, WeightGradientIsTheTreeOfChunks) {
  for (const i64 T : {1, 3, 8, 21})
    for (const i64 D : {1, 17, 700})
      for (const i64 leaves : {1, 4, 8}) {
        const auto dy = random_vector<TypeParam>(T * D, 5), x = random_vector<TypeParam>(T * D, 6);
        const auto rstd = random_vector<TypeParam>(T, 7), before = random_vector<TypeParam>(D, 8);
        for (const bool add : {false, true}) {
          const auto dw = on_lanes<TypeParam>(
              [&](Lanes& lanes) { return this->weight_gradient(lanes, before, dy, x, rstd, leaves, add); });
          for (i64 d = 0; d < D; ++d) {
            long double want = add ? before[d] : 0;
            std::vector<std::vector<TypeParam>> chunks;
            for (i64 r = 0; r < leaves; ++r) {
              TypeParam chain = 0;
              for (i64 t = r * T / leaves; t < (r + 1) * T / leaves; ++t) {
                want += static_cast<long double>(dy[t * D + d]) * x[t * D + d] * rstd[t];
                const TypeParam xhat = x[t * D + d] * rstd[t];
                chain = std::fma(dy[t * D + d], xhat, chain);
              }
              chunks.push_back({chain});
            }
            const TypeParam tree = add_parts(chunks)[0];
            ASSERT_LE(std::fabs(dw[d] - want), kEps<TypeParam> * static_cast<long double>(T + 2) * (T + 1));
            ASSERT_EQ(dw[d], add ? before[d] + tree : tree);
          }
        }
      }
}

TYPED_TEST(Norm, SplitWeightGradientAddsUpToTheWhole) {
  const i64 T = 24, D = 19, leaves = 8;
  const auto dy = random_vector<TypeParam>(T * D, 5), x = random_vector<TypeParam>(T * D, 6);
  const auto rstd = random_vector<TypeParam>(T, 7);
  const std::vector<TypeParam> none(D);
  Lanes lanes;
  const auto whole = this->weight_gradient(lanes, none, dy, x, rstd, leaves, false);
  for (const i64 S : {2, 4, 8}) {
    std::vector<std::vector<TypeParam>> parts;
    for (i64 s = 0; s < S; ++s)
      parts.push_back(this->weight_gradient(lanes, none, rows(dy, D, s * T / S, T / S),
                                            rows(x, D, s * T / S, T / S), rows(rstd, 1, s * T / S, T / S),
                                            leaves / S, false));
    expect_same_bits(add_parts(parts), whole);
  }
}

TEST(NormGradient, AgreesWithDifferences) {
  const Ops<double> ops = plain_ops<double>();
  Lanes lanes;
  const i64 T = 6, D = 21;
  const auto x = random_vector<double>(T * D, 1), w = random_vector<double>(D, 2);
  const auto dy = random_vector<double>(T * D, 3);
  std::vector<double> rstd(T), dx(T * D), dw(D);
  const auto y = [&](const std::vector<double>& x_, const std::vector<double>& w_) {
    std::vector<double> out(T * D);
    ops.rms_norm(lanes, out.data(), rstd.data(), x_.data(), w_.data(), T, D, kNormEps);
    return out;
  };
  y(x, w);
  ops.rms_norm_dx(lanes, dx.data(), dy.data(), x.data(), rstd.data(), w.data(), T, D);
  ops.rms_norm_dw(lanes, dw.data(), dy.data(), x.data(), rstd.data(), T, D, 4, false);
  expect_gradient([&](const auto& moved) { return y(moved, w); }, x, dy, dx, "dx");
  expect_gradient([&](const auto& moved) { return y(x, moved); }, w, dy, dw, "dw");
}

}  // namespace
}  // namespace lockstep::kernel_test
