// Rates by size, of what was measured.
#pragma once
#include <algorithm>
#include <string_view>

#include "suites/planner/cluster.hpp"
#include "suites/planner/measure/calibration.hpp"

namespace lockstep {

// Of the measurements from `from` on that are `what`. Where a size was measured in several ways the slowest
// counts.
inline Curve rates_of(const Measurements& notes, std::size_t from, std::string_view what) {
  std::vector<std::pair<double, double>> points;
  for (std::size_t i = from; i < notes.size(); ++i) {
    const double size = notes[i].amount, rate = size / notes[i].sample.seconds;
    if (notes[i].what != what) continue;
    if (!points.empty() && points.back().first == size)
      points.back().second = std::min(points.back().second, rate);
    else
      points.emplace_back(size, rate);
  }
  return Curve(points);
}

inline double highest(const Curve& rates) {
  double most = 0;
  for (const auto& [size, rate] : rates.points()) most = std::max(most, rate);
  return most;
}

inline Curve times(const Curve& curve, double factor) {
  std::vector<std::pair<double, double>> points = curve.points();
  for (auto& [x, y] : points) y *= factor;
  return Curve(std::move(points));
}

// A link's bandwidth is the highest rate on it, and by size the others are parts of that.
inline void set_rates(Link& link, const Curve& rates) {
  link.bandwidth = highest(rates);
  link.by_bytes = times(rates, 1 / link.bandwidth);
}

}  // namespace lockstep
