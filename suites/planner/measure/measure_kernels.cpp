#include "suites/planner/measure/measure_kernels.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "kernels/work.hpp"
#include "suites/planner/measure/kernel_shapes.hpp"
#include "suites/planner/measure/measure_device.hpp"

namespace lockstep {
namespace {

using Numbers = std::vector<double>;

Measurement noted(const std::string& kernel, const Numbers& numbers, double amount, const Sample& sample) {
  return {"kernel", kernel, fmt::format("{}", fmt::join(numbers, " ")), 1, amount, sample};
}

// Kernels of what is measured, on operands stored as its training stores them.
class Bench {
 public:
  // most: numbers of a call's operands together.
  Bench(const MeasureHow& how, double far, i64 most)
      : how_(how),
        engine_(engine_of(how)),
        bench_(engine_ ? KernelBench(*engine_, far, most) : KernelBench(how.isa, how.threads, far, most)) {}
  // A GPU's time begins where the host gives it the first kernel, and is long beside that.
  double batch_seconds() const { return engine_ && !how_.quick ? 5e-3 : 1e-3; }
  Sample time(const std::string& kernel, const Numbers& numbers) {
    return time(kernel, numbers, batch_seconds());
  }
  Sample time(const std::string& kernel, const Numbers& numbers, double batch_seconds) {
    return bench_.time(kernel, numbers, batch_seconds, stored(kernel).halves);
  }
  // What a call does: operations, or bytes as they are stored.
  Work work(const std::string& kernel, const Numbers& numbers) const {
    Work work = work_of(kernel.c_str(), numbers, 1);
    work.bytes *= stored(kernel).number_bytes;
    return work;
  }

 private:
  Stored stored(const std::string& kernel) const {
    const auto it = how_.stored.find(kernel);
    return it == how_.stored.end() ? Stored{} : it->second;
  }
  const MeasureHow& how_;
  std::unique_ptr<Engine> engine_;
  KernelBench bench_;
};

}  // namespace

Grid measure_grid(const std::string& kernel, const MeasureHow& how, Measurements& notes) {
  Grid g;
  g.sizes = grid_shape(kernel, how);
  Bench bench(how, how.near, largest(kernel, g.sizes));
  for (const double a : g.sizes[0])
    for (const double b : g.sizes[1])
      for (const double c : g.sizes[2]) {
        const Numbers numbers = numbers_of(kernel, a, b, c);
        const double flops = bench.work(kernel, numbers).flops;
        notes.push_back(noted(kernel, numbers, flops, bench.time(kernel, numbers)));
        g.rates.push_back(flops / notes.back().sample.seconds);
      }
  return g;
}

bool measured_by_rows(const std::string& kernel) { return !numbers_of(kernel, 256, MeasureHow{}).empty(); }

Curve measure_rows(const std::string& kernel, const MeasureHow& how, Measurements& notes) {
  const std::vector<i64> sizes = operand_sizes(kernel, how);
  Bench bench(how, how.far, KernelBench::operands(kernel, numbers_of(kernel, sizes.back(), how)));
  std::vector<std::pair<double, double>> points;
  for (const i64 n : sizes) {
    const Numbers numbers = numbers_of(kernel, n, how);
    const double bytes = bench.work(kernel, numbers).bytes;
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

double measure_sustained(const Grid& matmul, const MeasureHow& how, Measurements& notes) {
  const std::array<double, 3> size = sustained_shape(matmul.sizes);
  const Numbers numbers = numbers_of("matmul", size[0], size[1], size[2]);
  Bench bench(how, how.near, KernelBench::operands("matmul", numbers));
  const double flops = bench.work("matmul", numbers).flops;
  const double long_enough = 60 * bench.batch_seconds();  // five such batches, and what leads to the first
  bench.time("matmul", numbers, long_enough);
  notes.push_back(noted("matmul", numbers, flops, bench.time("matmul", numbers, long_enough)));
  notes.back().what = "sustained kernel";
  return std::min(1.0, flops / notes.back().sample.seconds / matmul.at(size));
}

}  // namespace lockstep
