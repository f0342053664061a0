#include "ref/optimizer.hpp"

#include <algorithm>
#include <cmath>

namespace lockstep {
namespace {

// base^exponent by squaring: multiplications only, so every machine gets the same bits.
double power(double base, i64 exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent /= 2, base *= base)
    if (exponent % 2 == 1) result *= base;
  return result;
}

}  // namespace

double clip_scale(const Settings& s, double norm) { return std::min(1.0, s.clip / (norm + 1e-6)); }

template <class T>
AdamWStep<T> adamw_step(const Settings& s, i64 step, bool decayed) {
  const double lr = learning_rate(s, step);
  const double decay = decayed ? s.weight_decay : 0.0;
  const double bias1 = 1.0 - power(s.beta1, step + 1);
  const double bias2 = 1.0 - power(s.beta2, step + 1);
  AdamWStep<T> a;
  a.keep = static_cast<T>(1.0 - lr * decay);
  a.b1 = static_cast<T>(s.beta1);
  a.c1 = static_cast<T>(1.0 - s.beta1);
  a.b2 = static_cast<T>(s.beta2);
  a.c2 = static_cast<T>(1.0 - s.beta2);
  a.root_bias2 = static_cast<T>(std::sqrt(bias2));
  a.eps = static_cast<T>(s.eps);
  a.rate = static_cast<T>(lr / bias1);
  return a;
}

template AdamWStep<float> adamw_step<float>(const Settings&, i64, bool);
template AdamWStep<double> adamw_step<double>(const Settings&, i64, bool);

}  // namespace lockstep
