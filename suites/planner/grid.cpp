#include "suites/planner/grid.hpp"

#include <algorithm>
#include <cmath>

namespace lockstep {

double Grid::at(const std::array<double, 3>& size) const {
  std::array<std::size_t, 3> low{};
  std::array<double, 3> part{};
  for (std::size_t a = 0; a < 3; ++a) {
    const std::vector<double>& s = sizes[a];
    if (s.size() < 2 || size[a] <= s.front()) continue;
    const auto above = std::upper_bound(s.begin(), s.end() - 1, size[a]);
    low[a] = static_cast<std::size_t>(above - s.begin()) - 1;
    part[a] = std::min(1.0, std::log(size[a] / s[low[a]]) / std::log(s[low[a] + 1] / s[low[a]]));
  }
  double sum = 0;
  for (std::size_t corner = 0; corner < 8; ++corner) {
    double weight = 1;
    std::size_t index = 0;
    for (std::size_t a = 0; a < 3; ++a) {
      const bool up = corner >> a & 1;
      weight *= up ? part[a] : 1 - part[a];
      index = index * sizes[a].size() + std::min(low[a] + up, sizes[a].size() - 1);
    }
    if (weight > 0) sum += weight * std::log(rates[index]);
  }
  return std::exp(sum);
}

std::array<double, 3> grid_sizes(const std::string& kernel, const std::vector<double>& x) {
  if (kernel == "matmul") return {x[0], x[1], x[2]};
  if (kernel == "matmul_dx") return {x[6], x[1] + x[3] + x[5], x[7]};
  if (kernel == "matmul_dw") return {x[0], x[1], x[2]};
  if (kernel == "attention" || kernel == "attention_dx") return {x[1], x[4], x[0] * x[2]};
  return {};
}

}  // namespace lockstep
