#include "ref/settings.hpp"

#include <algorithm>

#include "kernels/exact_math.hpp"

namespace lockstep {

double learning_rate(const Settings& s, i64 step) {
  if (step < s.warmup) return s.lr * static_cast<double>(step + 1) / static_cast<double>(s.warmup);
  const i64 total = s.total > 0 ? s.total : s.steps;
  const double progress = std::min(
      1.0, static_cast<double>(step - s.warmup) / static_cast<double>(std::max<i64>(1, total - s.warmup)));
  const double cosine = 0.5 * (1.0 + exact_cos(3.14159265358979323846 * progress));  // 1 falls to 0
  return s.lr * (s.min_ratio + (1.0 - s.min_ratio) * cosine);
}

}  // namespace lockstep
