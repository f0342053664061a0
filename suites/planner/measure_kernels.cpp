#include "suites/planner/measure_kernels.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "kernels/work.hpp"
#include "suites/planner/kernel_bench.hpp"

namespace lockstep {
namespace {

using Numbers = std::vector<double>;

Measurement noted(const std::string& kernel, const Numbers& numbers, double amount, const Sample& sample) {
  return {"kernel", kernel, fmt::format("{}", fmt::join(numbers, " ")), 1, amount, sample};
}

// Numbers of a kernel with these three sizes, as grid_sizes() takes them back.
Numbers numbers_of(const std::string& kernel, double rows, double columns, double sums) {
  if (kernel == "matmul") return {rows, columns, sums, 1};
  if (kernel == "matmul_dx") return {columns, columns, 0, 0, 0, 0, rows, sums, 1};
  if (kernel == "matmul_dw") return {rows, columns, sums, 1};
  return {1, rows, sums, sums, columns};
}

// Numbers of a kernel on about n floats.
Numbers numbers_of(const std::string& kernel, i64 n) {
  const bool ends = kernel.starts_with("ce_");
  const double D = static_cast<double>(std::clamp<i64>(n / 16, 16, ends ? 4096 : 512));
  const double M = std::max(1.0, static_cast<double>(n) / D), all = M * D;
  if (kernel == "rms_norm") return {M, D, 1e-5};
  if (kernel == "rms_norm_dx") return {M, D};
  if (kernel == "rms_norm_dw") return {M, D, 1, 0};
  if (kernel == "rope") {
    const double hd = std::min(D, 64.0);
    return {M, M, D / hd, hd, 0};
  }
  if (kernel == "swap_axes") return {1, M, 2, D / 2};
  if (kernel == "repeat_rows" || kernel == "sum_rows") return {M, 2, D / 2};
  if (kernel == "embed") return {M, D, 0, 4096};
  if (kernel == "embed_dw") return {M, D, 0, 4 * M, 1};
  if (kernel == "ce_max") return {M, D, D};
  if (kernel == "ce_sum") return {M, D, D, 0, 1};
  if (kernel == "ce_dx") return {M, D, D, 0, 0};
  if (kernel == "ce_loss") return {1, static_cast<double>(n)};
  for (const char* name : {"swiglu", "swiglu_dx", "add", "copy", "zero", "add_squares"})
    if (kernel == name) return {all};
  if (kernel == "adamw") return {all, 1};
  return {};
}

// 1 of `times` steps from the first to the last, each `factor` times the one before.
std::vector<double> steps(double from, double to, double factor) {
  std::vector<double> all;
  for (double x = from; x <= to; x *= factor) all.push_back(x);
  return all;
}

}  // namespace

Grid measure_grid(const std::string& kernel, const MeasureHow& how, Measurements& notes) {
  KernelBench bench(how.isa, how.threads, how.near);
  Grid g;
  // Between powers of two, too: those are the worst of all, for their rows fall on each other in a cache.
  if (kernel.starts_with("matmul"))
    g.sizes = how.quick ? std::array{steps(16, 256, 16), steps(32, 512, 16), steps(32, 512, 16)}
                        : std::array{Numbers{8, 32, 64, 128, 256, 512},
                                     Numbers{16, 64, 128, 192, 256, 384, 512, 704, 1024, 1536, 2048, 4096},
                                     Numbers{32, 64, 128, 192, 256, 384, 512, 704, 1024, 2048}};
  else
    g.sizes = how.quick ? std::array{steps(16, 256, 16), steps(16, 64, 4), steps(4, 4, 2)}
                        : std::array{steps(16, 512, 2), steps(8, 128, 2), steps(1, 16, 4)};
  for (const double a : g.sizes[0])
    for (const double b : g.sizes[1])
      for (const double c : g.sizes[2]) {
        const Numbers numbers = numbers_of(kernel, a, b, c);
        const double flops = work_of(kernel.c_str(), numbers, 1).flops;
        notes.push_back(noted(kernel, numbers, flops, bench.time(kernel, numbers)));
        g.rates.push_back(flops / notes.back().sample.seconds);
      }
  return g;
}

bool measured_by_rows(const std::string& kernel) { return !numbers_of(kernel, 256).empty(); }

Curve measure_rows(const std::string& kernel, const MeasureHow& how, Measurements& notes) {
  KernelBench bench(how.isa, how.threads, how.far);
  std::vector<std::pair<double, double>> points;
  for (i64 n = 64; n <= KernelBench::kMost / 6; n *= how.quick ? 64 : 4) {
    const Numbers numbers = numbers_of(kernel, n);
    const double bytes = work_of(kernel.c_str(), numbers, 4).bytes;
    notes.push_back(noted(kernel, numbers, bytes, bench.time(kernel, numbers)));
    points.emplace_back(bytes, bytes / notes.back().sample.seconds);
  }
  return Curve(points);
}

double measure_crowd(int ranks, bool arithmetic, const MeasureHow& how, Measurements& notes) {
  const std::string kernel = arithmetic ? "matmul" : "add";
  const Numbers numbers = arithmetic ? Numbers{128, 256, 256, 1} : Numbers{1 << 16};
  const Work work = work_of(kernel.c_str(), numbers, 4);
  std::vector<Sample> samples(static_cast<std::size_t>(ranks));
  std::atomic<int> ready = 0, busy = ranks;
  const auto body = [&](int rank) {
    KernelBench bench(how.isa, how.threads, how.near);
    bench.time(kernel, numbers);
    ++ready;
    while (ready < ranks) std::this_thread::yield();
    samples[static_cast<std::size_t>(rank)] = bench.time(kernel, numbers, 0.05);
    --busy;
    while (busy > 0) bench.time(kernel, numbers);  // the others are still measured
  };
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) threads.emplace_back(body, r);
  for (std::thread& t : threads) t.join();
  const double amount = arithmetic ? work.flops : work.bytes;
  std::vector<double> rates;
  for (const Sample& s : samples) {
    notes.push_back(noted(kernel, numbers, amount, s));
    notes.back().ranks = ranks;
    rates.push_back(amount / s.seconds);
  }
  return median(rates);
}

}  // namespace lockstep
