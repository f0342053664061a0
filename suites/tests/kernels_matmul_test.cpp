#include <fmt/format.h>

#include <tuple>

#include "kernels/exact_math.hpp"
#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

template <class Real>
class Matmul : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();

  std::vector<Real> forward(Lanes& lanes, const std::vector<Real>& x, const std::vector<Real>& w, i64 M,
                            i64 N, i64 K, i64 leaves) const {
    std::vector<Real> y(static_cast<std::size_t>(M * N), Real(7));
    ops.matmul(lanes, y.data(), x.data(), w.data(), M, N, K, leaves);
    return y;
  }
};
TYPED_TEST_SUITE(Matmul, Reals);

struct MatmulShape {
  i64 M, N, K, leaves;
};
// One of everything, odd sizes, more leaves than terms, and a K beyond one block of columns.
const MatmulShape kMatmulShapes[] = {{1, 1, 1, 1}, {1, 1, 1, 8},    {3, 5, 7, 1},    {3, 5, 7, 8},
                                     {2, 9, 3, 8}, {17, 13, 50, 4}, {5, 33, 100, 8}, {4, 3, 1025, 8}};

// a[m][k] * b[n][k] in long double, with the sum of magnitudes that bounds the error.
TYPED_TEST(Matmul, ForwardEqualsLongDouble) {
  for (const MatmulShape& s : kMatmulShapes) {
    const auto x = random_vector<TypeParam>(s.M * s.K, 1), w = random_vector<TypeParam>(s.N * s.K, 2);
    const auto y = on_lanes<TypeParam>(
        [&](Lanes& lanes) { return this->forward(lanes, x, w, s.M, s.N, s.K, s.leaves); });
    for (i64 m = 0; m < s.M; ++m)
      for (i64 n = 0; n < s.N; ++n) {
        long double want = 0, size = 0;
        for (i64 k = 0; k < s.K; ++k) {
          const long double term = static_cast<long double>(x[m * s.K + k]) * w[n * s.K + k];
          want += term;
          size += std::fabs(term);
        }
        ASSERT_LE(std::fabs(y[m * s.N + n] - want), kEps<TypeParam> * size * s.K)
            << m << "," << n << " of " << s.M << "x" << s.N << "x" << s.K;
      }
  }
}

TYPED_TEST(Matmul, ForwardIsTheTreeOfChains) {
  const i64 K = 30;
  const auto x = random_vector<TypeParam>(K, 3), w = random_vector<TypeParam>(K, 4);
  Lanes lanes;
  const auto chain = [&](i64 lo, i64 hi) {
    TypeParam acc = 0;
    for (i64 k = lo; k < hi; ++k) acc = std::fma(x[k], w[k], acc);
    return acc;
  };
  EXPECT_EQ(this->forward(lanes, x, w, 1, 1, K, 1)[0], chain(0, 30));
  EXPECT_EQ(this->forward(lanes, x, w, 1, 1, K, 4)[0],
            (chain(0, 7) + chain(7, 15)) + (chain(15, 22) + chain(22, 30)));
}

TYPED_TEST(Matmul, SplitForwardAddsUpToTheWhole) {
  const i64 M = 5, N = 7, K = 48, leaves = 8;
  const auto x = random_vector<TypeParam>(M * K, 5), w = random_vector<TypeParam>(N * K, 6);
  Lanes lanes;
  const auto whole = this->forward(lanes, x, w, M, N, K, leaves);
  for (const i64 S : {2, 4, 8}) {
    std::vector<std::vector<TypeParam>> parts;
    for (i64 s = 0; s < S; ++s)
      parts.push_back(this->forward(lanes, columns(x, K, s * K / S, K / S), columns(w, K, s * K / S, K / S),
                                    M, N, K / S, leaves / S));
    expect_same_bits(add_parts(parts), whole);
  }
}

// Three pieces as q, k, v have them: of different widths, and rows wider than the piece.
template <class Real>
struct Pieces {
  i64 M, K, leaves;
  i64 N[3], ld[3];
  std::vector<Real> dy[3], w[3];

  Pieces(i64 M_, i64 K_, i64 leaves_, i64 N0, i64 N1, i64 N2) : M(M_), K(K_), leaves(leaves_), N{N0, N1, N2} {
    for (int i = 0; i < 3; ++i) {
      ld[i] = N[i] + i;
      dy[i] = random_vector<Real>(M * ld[i], 10 + static_cast<std::uint64_t>(i));
      w[i] = random_vector<Real>(N[i] * K, 20 + static_cast<std::uint64_t>(i));
    }
  }
  // Rank s of S: its columns of every dy, its rows of every w.
  Pieces slice(i64 s, i64 S) const {
    Pieces part = *this;
    part.leaves = leaves / S;
    for (int i = 0; i < 3; ++i) {
      part.N[i] = part.ld[i] = N[i] / S;
      part.dy[i] = columns(dy[i], ld[i], s * N[i] / S, N[i] / S);
      part.w[i] = rows(w[i], K, s * N[i] / S, N[i] / S);
    }
    return part;
  }
  std::vector<Real> dx(const Ops<Real>& ops, Lanes& lanes) const {
    std::vector<Real> out(static_cast<std::size_t>(M * K), Real(7));
    const auto data = [&](const std::vector<Real>& v, int i) { return N[i] ? v.data() : nullptr; };
    ops.matmul_dx(lanes, out.data(), data(dy[0], 0), ld[0], data(w[0], 0), N[0], data(dy[1], 1), ld[1],
                  data(w[1], 1), N[1], data(dy[2], 2), ld[2], data(w[2], 2), N[2], M, K, leaves);
    return out;
  }
};

TYPED_TEST(Matmul, InputGradientEqualsLongDouble) {
  const Pieces<TypeParam> cases[] = {{1, 1, 1, 1, 0, 0},   {3, 5, 8, 7, 0, 0},     {3, 37, 1, 9, 4, 0},
                                     {5, 600, 4, 6, 3, 5}, {17, 31, 8, 40, 24, 8}, {2, 3, 8, 0, 5, 1}};
  for (const auto& p : cases) {
    const auto dx = on_lanes<TypeParam>([&](Lanes& lanes) { return p.dx(this->ops, lanes); });
    for (i64 m = 0; m < p.M; ++m)
      for (i64 k = 0; k < p.K; ++k) {
        long double want = 0, size = 0;
        for (int i = 0; i < 3; ++i)
          for (i64 n = 0; n < p.N[i]; ++n) {
            const long double term = static_cast<long double>(p.dy[i][m * p.ld[i] + n]) * p.w[i][n * p.K + k];
            want += term;
            size += std::fabs(term);
          }
        const long double terms = static_cast<long double>(p.N[0] + p.N[1] + p.N[2]);
        ASSERT_LE(std::fabs(dx[m * p.K + k] - want), kEps<TypeParam> * size * terms) << m << "," << k;
      }
  }
}

TYPED_TEST(Matmul, InputGradientLeafIsOneChainOverItsPieces) {
  const Pieces<TypeParam> p(1, 1, 2, 6, 5, 3);
  Lanes lanes;
  const auto leaf = [&](i64 r) {
    TypeParam acc = 0;
    for (int i = 0; i < 3; ++i)
      for (i64 n = r * p.N[i] / 2; n < (r + 1) * p.N[i] / 2; ++n) acc = std::fma(p.dy[i][n], p.w[i][n], acc);
    return acc;
  };
  EXPECT_EQ(p.dx(this->ops, lanes)[0], leaf(0) + leaf(1));
}

TYPED_TEST(Matmul, SplitInputGradientAddsUpToTheWhole) {
  const Pieces<TypeParam> p(5, 9, 8, 48, 16, 16);
  Lanes lanes;
  const auto whole = p.dx(this->ops, lanes);
  for (const i64 S : {2, 4, 8}) {
    std::vector<std::vector<TypeParam>> parts;
    for (i64 s = 0; s < S; ++s) parts.push_back(p.slice(s, S).dx(this->ops, lanes));
    expect_same_bits(add_parts(parts), whole);
  }
}

TYPED_TEST(Matmul, WeightGradientEqualsLongDouble) {
  for (const MatmulShape& s : kMatmulShapes) {
    const i64 T = s.M;
    const auto dy = random_vector<TypeParam>(T * s.N, 7), x = random_vector<TypeParam>(T * s.K, 8);
    const auto before = random_vector<TypeParam>(s.N * s.K, 9);
    for (const bool add : {false, true}) {
      const auto dw = on_lanes<TypeParam>([&](Lanes& lanes) {
        auto out = before;
        this->ops.matmul_dw(lanes, out.data(), dy.data(), x.data(), T, s.N, s.K, add);
        return out;
      });
      for (i64 n = 0; n < s.N; ++n)
        for (i64 k = 0; k < s.K; ++k) {
          long double want = 0, size = 0;
          TypeParam chain = 0;
          for (i64 t = 0; t < T; ++t) {
            const long double term = static_cast<long double>(dy[t * s.N + n]) * x[t * s.K + k];
            want += term;
            size += std::fabs(term);
            chain = std::fma(dy[t * s.N + n], x[t * s.K + k], chain);
          }
          const TypeParam old = before[n * s.K + k], got = dw[n * s.K + k];
          ASSERT_LE(std::fabs(got - want - (add ? old : 0)), kEps<TypeParam> * (size * T + 2));
          ASSERT_EQ(got, add ? old + chain : chain);
        }
    }
  }
}

// Its tiles, leaves and pieces have their edges here, and what does not fit in a lane's scratch is there.
TEST(MatmulInDouble, EqualsThePlainOne) {
  const Ops<double> plain = plain_ops<double>(), ours = double_ops();
  unsigned seed = 0;
  for (const auto& [M, N, K, leaves] : {std::tuple<i64, i64, i64, i64>{1, 1, 1, 1},
                                        {3, 7, 5, 2},
                                        {4, 8, 16, 8},
                                        {5, 9, 67, 8},
                                        {9, 17, 33, 1},
                                        {2, 40, 130, 4},
                                        {1, 2, 70000, 8},
                                        {70000, 1, 1, 8}}) {
    SCOPED_TRACE(fmt::format("M {} N {} K {} leaves {}", M, N, K, leaves));
    const i64 second = N + 3, ld2 = N + 4, ld = N + 5;
    const auto x = random_vector<double>(M * K, ++seed), w = random_vector<double>(N * K, ++seed);
    const auto dy = random_vector<double>(M * ld, ++seed), dy2 = random_vector<double>(M * ld2, ++seed);
    const auto w2 = random_vector<double>(second * K, ++seed), before = random_vector<double>(N * K, ++seed);
    const auto each = [&](const auto& run) {
      const auto by = [&](const Ops<double>& ops) {
        return on_lanes<double>([&](Lanes& lanes) { return run(ops, lanes); });
      };
      ASSERT_EQ(by(ours), by(plain));
    };
    each([&](const Ops<double>& ops, Lanes& lanes) {
      std::vector<double> y(M * N);
      ops.matmul(lanes, y.data(), x.data(), w.data(), M, N, K, leaves);
      return y;
    });
    each([&](const Ops<double>& ops, Lanes& lanes) {
      std::vector<double> dx(M * K);
      ops.matmul_dx(lanes, dx.data(), dy.data(), ld, w.data(), N, dy2.data(), ld2, w2.data(), second, nullptr,
                    0, nullptr, 0, M, K, leaves);
      return dx;
    });
    for (const bool add : {false, true})
      each([&](const Ops<double>& ops, Lanes& lanes) {
        auto dw = before;
        ops.matmul_dw(lanes, dw.data(), x.data(), dy.data(), M, K, N, add);  // dw[K, N] = x^T dy
        return dw;
      });
  }
}

TEST(MatmulGradient, AgreesWithDifferences) {
  const Ops<double> ops = plain_ops<double>();
  Lanes lanes;
  const i64 M = 6, N = 7, K = 5;
  const auto x = random_vector<double>(M * K, 1), w = random_vector<double>(N * K, 2);
  const auto dy = random_vector<double>(M * N, 3);
  const auto y = [&](const std::vector<double>& x_, const std::vector<double>& w_) {
    std::vector<double> out(M * N);
    ops.matmul(lanes, out.data(), x_.data(), w_.data(), M, N, K, 4);
    return out;
  };
  std::vector<double> dx(M * K), dw(N * K);
  ops.matmul_dx(lanes, dx.data(), dy.data(), N, w.data(), N, nullptr, 0, nullptr, 0, nullptr, 0, nullptr, 0,
                M, K, 4);
  ops.matmul_dw(lanes, dw.data(), dy.data(), x.data(), M, N, K, false);
  expect_gradient([&](const auto& moved) { return y(moved, w); }, x, dy, dx, "dx");
  expect_gradient([&](const auto& moved) { return y(x, moved); }, w, dy, dw, "dw");
}

}  // namespace
}  // namespace lockstep::kernel_test
