// A measured quantity over sizes that span many powers of ten.
#pragma once
#include <utility>
#include <vector>

namespace lockstep {

// Linear in the logarithm of x between points, constant beyond the first and the last; 1 without points.
class Curve {
 public:
  Curve() = default;
  explicit Curve(std::vector<std::pair<double, double>> points) : points_(std::move(points)) {}
  double at(double x) const;
  bool empty() const { return points_.empty(); }
  const std::vector<std::pair<double, double>>& points() const { return points_; }  // x ascending, positive

 private:
  std::vector<std::pair<double, double>> points_;
};

}  // namespace lockstep
