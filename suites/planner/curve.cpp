#include "suites/planner/curve.hpp"

#include <algorithm>
#include <cmath>

namespace lockstep {

double Curve::at(double x) const {
  if (points_.empty()) return 1;
  const auto above = std::upper_bound(points_.begin(), points_.end(), x,
                                      [](double value, const auto& point) { return value < point.first; });
  if (above == points_.begin()) return points_.front().second;
  if (above == points_.end()) return points_.back().second;
  const auto& [x0, y0] = *(above - 1);
  const auto& [x1, y1] = *above;
  return y0 + (y1 - y0) * std::log(x / x0) / std::log(x1 / x0);
}

}  // namespace lockstep
