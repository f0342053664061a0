#include "suites/planner/measure/kernel_shapes.hpp"

#include <algorithm>

#include "suites/planner/measure/kernel_bench.hpp"

namespace lockstep {
namespace {

using Numbers = std::vector<double>;

// From the first to the last, each `factor` times the one before.
Numbers steps(double from, double to, double factor) {
  Numbers all;
  for (double x = from; x <= to; x *= factor) all.push_back(x);
  return all;
}

// A processor's, whose caches end where a GPU has not begun.
std::array<Numbers, 3> small_grid(bool matmul) {
  // Between powers of two, too: those are the worst of all, for their rows fall on each other in a cache.
  if (matmul)
    return {Numbers{8, 32, 64, 128, 256, 512},
            Numbers{16, 64, 128, 192, 256, 384, 512, 704, 1024, 1536, 2048, 4096},
            Numbers{32, 64, 128, 192, 256, 384, 512, 704, 1024, 2048}};
  return {steps(16, 512, 2), steps(8, 128, 2), steps(1, 16, 4)};
}

// In float32 a GPU takes ten times as long as in bf16, on its tensor cores.
std::array<Numbers, 3> large_grid(bool matmul, bool bf16) {
  const double most = bf16 ? 16384 : 4096;
  if (matmul) return {steps(256, most, 4), steps(256, 32768, 2), steps(256, 16384, 2)};
  return {steps(256, most, 4), Numbers{64, 128}, steps(1, 64, 8)};
}

}  // namespace

std::array<Numbers, 3> grid_shape(const std::string& kernel, const MeasureHow& how) {
  const bool matmul = kernel.starts_with("matmul");
  if (how.quick)
    return matmul ? std::array{steps(16, 256, 16), steps(32, 512, 16), steps(32, 512, 16)}
                  : std::array{steps(16, 256, 16), steps(16, 64, 4), steps(4, 4, 2)};
  if (!how.accelerator) return small_grid(matmul);
  std::array<Numbers, 3> shape = large_grid(matmul, how.bf16);
  while (largest(kernel, shape) > how.most)
    std::max_element(shape.begin(), shape.end(), [](const Numbers& a, const Numbers& b) {
      return a.back() < b.back();
    })->pop_back();
  return shape;
}

i64 largest(const std::string& kernel, const std::array<Numbers, 3>& shape) {
  return KernelBench::operands(kernel, numbers_of(kernel, shape[0].back(), shape[1].back(), shape[2].back()));
}

Numbers numbers_of(const std::string& kernel, double rows, double columns, double sums) {
  if (kernel == "matmul") return {rows, columns, sums, 1};
  if (kernel == "matmul_dx") return {columns, columns, 0, 0, 0, 0, rows, sums, 1};
  if (kernel == "matmul_dw") return {rows, columns, sums, 1};
  return {1, rows, sums, sums, columns};
}

std::array<double, 3> sustained_shape(const std::array<Numbers, 3>& matmul) {
  constexpr double kLarge = 8192;
  std::array<double, 3> size{};
  for (std::size_t a = 0; a < 3; ++a)
    for (const double x : matmul[a])
      if (x <= kLarge) size[a] = x;
  return size;
}

std::vector<i64> operand_sizes(const std::string& kernel, const MeasureHow& how) {
  constexpr i64 kEnough = i64{1} << 28;  // beyond that rates change no more
  std::vector<i64> sizes;
  for (i64 n = 64;; n *= how.quick ? 64 : 4) {
    const Numbers numbers = numbers_of(kernel, n, how);
    if (numbers.empty() || KernelBench::operands(kernel, numbers) > std::min(how.most, kEnough)) return sizes;
    sizes.push_back(n);
  }
}

Numbers numbers_of(const std::string& kernel, i64 n, const MeasureHow& how) {
  const bool ends = kernel.starts_with("ce_"), large = how.accelerator;
  const i64 widest = ends ? (large ? 32768 : 4096) : (large ? 4096 : 512);
  const double D = static_cast<double>(std::clamp<i64>(n / 16, 16, widest));
  const double M = std::max(1.0, static_cast<double>(n) / D), all = M * D;
  if (kernel == "rms_norm") return {M, D, 1e-5};
  if (kernel == "rms_norm_dx") return {M, D};
  if (kernel == "rms_norm_dw") return {M, D, 1, 0};
  if (kernel == "rope") {
    const double hd = std::min(D, large ? 128.0 : 64.0);
    return {M, M, D / hd, hd, 0};
  }
  if (kernel == "swap_axes") return {1, M, 2, D / 2};
  if (kernel == "repeat_rows" || kernel == "sum_rows") return {M, 2, D / 2};
  if (kernel == "embed") return {M, D, 0, 4096};
  if (kernel == "embed_dw") return {M, D, 0, 4 * M, 1};
  if (kernel == "ce_max") return {M, D, D};
  if (kernel == "ce_sum") return {M, D, D, 0, 1};
  if (kernel == "ce_dx") return {M, D, D, 0, 0};
  if (kernel == "ce_loss") {  // a sequence is one chain of sums, which a GPU has many of side by side
    const i64 tokens = large ? std::min<i64>(n, 4096) : n;
    return {static_cast<double>(n / tokens), static_cast<double>(tokens)};
  }
  for (const char* name : {"swiglu", "swiglu_dx", "add", "copy", "zero", "add_squares"})
    if (kernel == name) return {all};
  if (kernel == "adamw") return {all, 1};
  return {};
}

}  // namespace lockstep
