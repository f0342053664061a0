// What tests of fast attention hold it to: a softmax in float64, and how far from it bf16 may be.
#pragma once
#include <cmath>
#include <random>
#include <vector>

#include "kernels/ops.hpp"

namespace lockstep::cuda {

using Doubles = std::vector<double>;

struct Problem {
  i64 B, T, H, K, hd;
  std::vector<bf16> q, k, v, dO, o;
  std::vector<float> lse;
  Doubles want_o, want_lse, dq, dk, dv;

  Problem(i64 b, i64 t, i64 h, i64 kv, i64 head) : B(b), T(t), H(h), K(kv), hd(head) {
    std::mt19937 bits(static_cast<unsigned>(t * 31 + h));
    std::normal_distribution<float> normal;
    const auto random = [&](i64 n, float size) {
      std::vector<bf16> x;
      for (i64 i = 0; i < n; ++i) x.push_back(bf16(size * normal(bits)));
      return x;
    };
    q = random(B * T * H * hd, 1.5f), k = random(B * T * K * hd, 1.5f), v = random(B * T * K * hd, 1);
    dO = random(B * T * H * hd, 1);
    want_o.assign(q.size(), 0), want_lse.assign(B * H * T, 0), dq.assign(q.size(), 0);
    dk.assign(k.size(), 0), dv.assign(k.size(), 0);
    const double scale = 1 / std::sqrt(static_cast<double>(hd));
    const auto dot = [&](const bf16* x, const bf16* y) {
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
    for (const double x : want_o) o.push_back(bf16(static_cast<float>(x)));
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

// Operands are exact. A probability that is rounded to bf16 is off by 2^-9 of itself at most, and so is a
// result; ds is too, and delta, from the rounded o, by less than that of |dO| |o|.
inline constexpr double kRounding = 0x1p-9;

}  // namespace lockstep::cuda
