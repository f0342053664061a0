#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

template <class Real>
class Elementwise : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();
};
TYPED_TEST_SUITE(Elementwise, Reals);

const i64 kSizes[] = {1, 7, 17, 13000};  // the last is work for three lanes

TYPED_TEST(Elementwise, AddCopyZero) {
  for (const i64 n : kSizes) {
    const auto a = random_vector<TypeParam>(n, 1), b = random_vector<TypeParam>(n, 2);
    std::vector<TypeParam> sum = a;
    for (i64 i = 0; i < n; ++i) sum[i] = a[i] + b[i];
    const auto run = [&](auto f) {
      return on_lanes<TypeParam>([&](Lanes& lanes) {
        auto y = a;
        f(lanes, y.data());
        return y;
      });
    };
    using Out = TypeParam*;
    expect_same_bits(run([&](Lanes& l, Out y) { this->ops.add(l, y, y, b.data(), n); }), sum, "y + b");
    expect_same_bits(run([&](Lanes& l, Out y) { this->ops.add(l, y, b.data(), y, n); }), sum, "b + y");
    expect_same_bits(run([&](Lanes& l, Out y) { this->ops.copy(l, y, b.data(), n); }), b, "copy");
    expect_same_bits(run([&](Lanes& l, Out y) { this->ops.zero(l, y, n); }),
                     std::vector<TypeParam>(static_cast<std::size_t>(n)), "zero");
  }
}

TYPED_TEST(Elementwise, SwapAxesIsFourLoops) {
  for (const auto& [B, M, N, W] : kSwaps) {
    const auto x = random_vector<TypeParam>(B * M * N * W, 1);
    std::vector<TypeParam> want(x.size());
    for (i64 b = 0; b < B; ++b)
      for (i64 m = 0; m < M; ++m)
        for (i64 n = 0; n < N; ++n)
          for (i64 w = 0; w < W; ++w) want[((b * N + n) * M + m) * W + w] = x[((b * M + m) * N + n) * W + w];
    const auto got = on_lanes<TypeParam>([&, B = B, M = M, N = N, W = W](Lanes& lanes) {
      std::vector<TypeParam> y(x.size(), TypeParam{7});
      this->ops.swap_axes(lanes, y.data(), x.data(), B, M, N, W);
      return y;
    });
    expect_same_bits(got, want, "y");
  }
}

// y[n,r,w] = x[n,w], and back the tree over r: of five ((0 + 1) + (2 + (3 + 4))).
TYPED_TEST(Elementwise, RowsAreRepeatedAndSummed) {
  for (const auto& [N, R, W] : kRepeats) {
    const auto x = random_vector<TypeParam>(N * W, 1), many = random_vector<TypeParam>(N * R * W, 2);
    std::vector<TypeParam> repeated(many.size()), sums(x.size());
    for (i64 n = 0; n < N; ++n)
      for (i64 w = 0; w < W; ++w) {
        std::vector<TypeParam> of;
        for (i64 r = 0; r < R; ++r) {
          repeated[(n * R + r) * W + w] = x[n * W + w];
          of.push_back(many[(n * R + r) * W + w]);
        }
        sums[n * W + w] = in_halves(of);
      }
    const auto got = on_lanes<TypeParam>([&, N = N, R = R, W = W](Lanes& lanes) {
      std::vector<TypeParam> y(many.size(), TypeParam{7});
      this->ops.repeat_rows(lanes, y.data(), x.data(), N, R, W);
      return y;
    });
    expect_same_bits(got, repeated, "repeated");
    const auto sum = on_lanes<TypeParam>([&, N = N, R = R, W = W](Lanes& lanes) {
      std::vector<TypeParam> y(x.size(), TypeParam{7});
      this->ops.sum_rows(lanes, y.data(), many.data(), N, R, W);
      return y;
    });
    expect_same_bits(sum, sums, "sums");
  }
}

TYPED_TEST(Elementwise, SwigluEqualsLongDouble) {
  for (const i64 n : kSizes) {
    const auto g = random_vector<TypeParam>(n, 1, 20.0), u = random_vector<TypeParam>(n, 2);
    const auto da = random_vector<TypeParam>(n, 3);
    const auto got = on_lanes<TypeParam>([&](Lanes& lanes) {
      std::vector<TypeParam> out(static_cast<std::size_t>(3 * n));
      this->ops.swiglu(lanes, out.data(), g.data(), u.data(), n);
      this->ops.swiglu_dx(lanes, out.data() + n, out.data() + 2 * n, da.data(), g.data(), u.data(), n);
      return out;
    });
    for (i64 i = 0; i < n; ++i) {
      const long double gate = g[i], sigmoid = 1 / (1 + std::exp(-gate));
      // 1 - sigmoid keeps an absolute eps, and gate multiplies it.
      const long double bound = kEps<TypeParam> * (4 + 4 * std::fabs(gate));
      ASSERT_LE(std::fabs(got[i] - gate * sigmoid * u[i]), bound);
      const long double slope_of_silu = sigmoid * (1 + gate * (1 - sigmoid));
      ASSERT_LE(std::fabs(got[n + i] - da[i] * static_cast<long double>(u[i]) * slope_of_silu), bound);
      ASSERT_LE(std::fabs(got[2 * n + i] - da[i] * gate * sigmoid), bound);
    }
  }
}

TYPED_TEST(Elementwise, SwigluFarFromZero) {
  const std::vector<TypeParam> g{-1000, 1000}, u{1, 1};
  std::vector<TypeParam> a(2), dg(2), du(2);
  Lanes lanes;
  this->ops.swiglu(lanes, a.data(), g.data(), u.data(), 2);
  this->ops.swiglu_dx(lanes, dg.data(), du.data(), u.data(), g.data(), u.data(), 2);
  expect_same_bits(a, {0, 1000}, "a");
  expect_same_bits(dg, {0, 1}, "dg");
  expect_same_bits(du, {0, 1000}, "du");
}

TEST(SwigluGradient, AgreesWithDifferences) {
  const Ops<double> ops = plain_ops<double>();
  Lanes lanes;
  const i64 n = 33;
  const auto g = random_vector<double>(n, 1, 4.0), u = random_vector<double>(n, 2);
  const auto da = random_vector<double>(n, 3);
  const auto a = [&](const std::vector<double>& g_, const std::vector<double>& u_) {
    std::vector<double> out(n);
    ops.swiglu(lanes, out.data(), g_.data(), u_.data(), n);
    return out;
  };
  std::vector<double> dg(n), du(n);
  ops.swiglu_dx(lanes, dg.data(), du.data(), da.data(), g.data(), u.data(), n);
  expect_gradient([&](const auto& moved) { return a(moved, u); }, g, da, dg, "dg");
  expect_gradient([&](const auto& moved) { return a(g, moved); }, u, da, du, "du");
}

// Three steps of the paper's algorithm on clipped gradients, in long double, learning rate and decay spelled
// out.
TYPED_TEST(Elementwise, AdamWFollowsThePaper) {
  const long double lr = 0.01L, decay = 0.1L, beta1 = 0.9L, beta2 = 0.95L, eps = 1e-8L;
  const TypeParam clip{0.3};
  for (const i64 n : kSizes) {
    const auto start = random_vector<TypeParam>(n, 1);
    const auto got = on_lanes<TypeParam>([&](Lanes& lanes) {
      std::vector<TypeParam> w = start, m(w.size()), v(w.size());
      for (int t = 1; t <= 3; ++t) {
        const auto g = random_vector<TypeParam>(n, 10 + static_cast<std::uint64_t>(t));
        const auto narrow = [](long double x) { return static_cast<TypeParam>(x); };
        const AdamWStep<TypeParam> step{narrow(1 - lr * decay),
                                        narrow(beta1),
                                        narrow(1 - beta1),
                                        narrow(beta2),
                                        narrow(1 - beta2),
                                        narrow(std::sqrt(1 - std::pow(beta2, t))),
                                        narrow(eps),
                                        narrow(lr / (1 - std::pow(beta1, t)))};
        this->ops.adamw(lanes, w.data(), m.data(), v.data(), g.data(), n, clip, step);
      }
      return w;
    });
    std::vector<long double> w(start.begin(), start.end()), m(w.size()), v(w.size());
    for (int t = 1; t <= 3; ++t) {
      const auto g = random_vector<TypeParam>(n, 10 + static_cast<std::uint64_t>(t));
      for (i64 i = 0; i < n; ++i) {
        const long double grad = static_cast<long double>(clip) * g[i];
        m[i] = beta1 * m[i] + (1 - beta1) * grad;
        v[i] = beta2 * v[i] + (1 - beta2) * grad * grad;
        const long double m_hat = m[i] / (1 - std::pow(beta1, t)), v_hat = v[i] / (1 - std::pow(beta2, t));
        w[i] -= lr * (m_hat / (std::sqrt(v_hat) + eps) + decay * w[i]);
      }
    }
    expect_close(got, w, 4 * kEps<TypeParam>, "w");
  }
}

}  // namespace
}  // namespace lockstep::kernel_test
