// What tests of fast attention hold it to: a softmax in float64, and how far from it each type may be.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <type_traits>
#include <vector>

#include "kernels/ops.hpp"

namespace lockstep::cuda {

using Doubles = std::vector<double>;

template <class X>
struct Problem {
  i64 B, T, H, K, hd;
  std::vector<X> q, k, v, dO, o;
  std::vector<float> lse;
  Doubles want_o, want_lse, dq, dk, dv;

  Problem(i64 b, i64 t, i64 h, i64 kv, i64 head) : B(b), T(t), H(h), K(kv), hd(head) {
    std::mt19937 bits(static_cast<unsigned>(t * 31 + h));
    std::normal_distribution<float> normal;
    const auto random = [&](i64 n, float size) {
      std::vector<X> x;
      for (i64 i = 0; i < n; ++i) x.push_back(X(size * normal(bits)));
      return x;
    };
    q = random(B * T * H * hd, 1.5f), k = random(B * T * K * hd, 1.5f), v = random(B * T * K * hd, 1);
    dO = random(B * T * H * hd, 1);
    want_o.assign(q.size(), 0), want_lse.assign(B * H * T, 0), dq.assign(q.size(), 0);
    dk.assign(k.size(), 0), dv.assign(k.size(), 0);
    const double scale = 1 / std::sqrt(static_cast<double>(hd));
    const auto dot = [&](const X* x, const X* y) {
      double sum = 0;
      for (i64 d = 0; d < hd; ++d) sum += static_cast<double>(x[d]) * y[d];
      return sum;
    };
    for (i64 s = 0; s < B; ++s)
      for (i64 head_ = 0; head_ < H; ++head_)
        for (i64 i = 0; i < T; ++i) {
          const i64 row = ((s * T + i) * H + head_) * hd;
          const auto key = [&](i64 j) { return ((s * T + j) * K + head_ / (H / K)) * hd; };
          Doubles p(i + 1);
          double sum = 0, delta = 0;
          for (i64 j = 0; j <= i; ++j) sum += p[j] = std::exp(scale * dot(&q[row], &k[key(j)]));
          want_lse[(s * H + head_) * T + i] = std::log(sum);
          for (i64 j = 0; j <= i; ++j)
            for (i64 d = 0; d < hd; ++d) want_o[row + d] += (p[j] / sum) * v[key(j) + d];
          for (i64 d = 0; d < hd; ++d) delta += dO[row + d] * want_o[row + d];
          for (i64 j = 0; j <= i; ++j) {
            const double ds = p[j] / sum * (dot(&dO[row], &v[key(j)]) - delta);
            for (i64 d = 0; d < hd; ++d) {
              dq[row + d] += scale * ds * k[key(j) + d];
              dk[key(j) + d] += scale * ds * q[row + d];
              dv[key(j) + d] += p[j] / sum * dO[row + d];
            }
          }
        }
    for (const double x : want_o) o.push_back(X(static_cast<float>(x)));
    for (const double x : want_lse) lse.push_back(static_cast<float>(x));
  }
};

// The norm of the difference, of the norm.
template <class X>
double off(const std::vector<X>& got, const Doubles& want) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - want[i], 2);
    size += want[i] * want[i];
  }
  return std::sqrt(difference / size);
}

// One attention's results, and how far they are from float64.
template <class X, class Y = X>
struct Attended {
  std::vector<X> o, dq;
  std::vector<Y> dk, dv;
  std::vector<float> lse;
  explicit Attended(const Problem<X>& p)
      : o(p.q.size(), X(77.0f)), dq(o), dk(p.k.size(), Y(77.0f)), dv(dk), lse(p.lse.size(), 77.0f) {}
};
struct Distances {
  double o, lse, dq, dk, dv;
};
template <class X, class Y>
Distances distances(const Attended<X, Y>& got, const Problem<X>& p) {
  return {off(got.o, p.want_o), off(got.lse, p.want_lse), off(got.dq, p.dq), off(got.dk, p.dk),
          off(got.dv, p.dv)};
}

// Operands are exact. A probability that is rounded to bf16 is off by 2^-9 of itself at most, and so is a
// result; ds is too, and delta, from the rounded o, by less than that of |dO| |o|. In float32 the plain
// kernel is off by what a chain of products is, above all in the scores: another order may have twice that,
// and 2^-22 of a probability more by ex2.approx.
inline Distances allowed(const Problem<bf16>& p) {
  return {0x1p-8, p.T == 1 ? 1e-5 : 1e-6, 0x1p-7, 0x1p-7, 0x1p-8};
}
inline Distances allowed(const Problem<float>& p) {
  Attended<float> plain(p);
  Lanes lanes(1);
  const Ops<float> ops = plain_ops<float>();
  ops.attention(lanes, plain.o.data(), plain.lse.data(), p.q.data(), p.k.data(), p.v.data(), p.B, p.T, p.H,
                p.K, p.hd);
  ops.attention_dx(lanes, plain.dq.data(), plain.dk.data(), plain.dv.data(), p.dO.data(), p.q.data(),
                   p.k.data(), p.v.data(), p.o.data(), p.lse.data(), p.B, p.T, p.H, p.K, p.hd);
  Distances most = distances(plain, p);
  for (double* d : {&most.o, &most.lse, &most.dq, &most.dk, &most.dv}) *d = 2 * *d + 0x1p-22;
  return most;
}
// One key has no gradient through the softmax: nothing to be near to.
template <class X>
void expect_near(const Distances& got, const Problem<X>& p) {
  const Distances most = allowed(p);
  EXPECT_LT(got.o, most.o) << p.T;
  EXPECT_LT(got.lse, most.lse) << p.T;
  if (p.T > 1) {
    EXPECT_LT(got.dq, most.dq) << p.T;
    EXPECT_LT(got.dk, most.dk) << p.T;
  }
  EXPECT_LT(got.dv, most.dv) << p.T;
}

}  // namespace lockstep::cuda
