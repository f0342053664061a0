// A rate measured for kernels of three sizes, on a grid of them.
#pragma once
#include <array>
#include <string>
#include <vector>

namespace lockstep {

// Between the points linear in the logarithms, of the sizes and of the rate; beyond them as at the edge.
inline constexpr const char* kGridAxes[] = {"rows", "columns", "sums"};
struct Grid {
  std::array<std::vector<double>, 3> sizes;  // of each axis, ascending
  std::vector<double> rates;                 // operations a second; the last axis runs fastest
  bool empty() const { return rates.empty(); }
  double at(const std::array<double, 3>& size) const;
};

// The three sizes of a kernel that a grid can be given for: rows, columns and summed length of a matmul;
// tokens, head size and heads of an attention. Nothing ({0, 0, 0}) for others.
std::array<double, 3> grid_sizes(const std::string& kernel, const std::vector<double>& numbers);

}  // namespace lockstep
