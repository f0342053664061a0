#include "suites/planner/measure/kernel_times.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <stdexcept>
#include <tuple>

#include "ref/error.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/progress.hpp"
#include "suites/text_table.hpp"

namespace lockstep {
namespace {

using Key = std::tuple<std::string, std::vector<double>, unsigned>;  // kernel, sizes, halves

struct Calls {
  int number = 0;
  double number_bytes = 4;  // of a number of its operands, on average
};

i64 operands(const Key& key) { return KernelBench::operands(std::get<0>(key), std::get<1>(key)); }

}  // namespace

KernelTimes kernel_times(const Prepared& p, Engine* engine, const std::string& isa, int threads) {
  KernelTimes times;
  std::map<Key, Calls> all;
  bool stepping = false;
  for (const Trace::Event& e : p.traces[0].events) {
    stepping |= e.what == Trace::Event::step;
    if (!stepping || e.what != Trace::Event::run) continue;
    const bool on_host =
        std::any_of(e.views.begin(), e.views.end(), [](const View& v) { return v.medium == Medium::host; });
    if (engine && on_host) {
      ++times.on_host;
      continue;
    }
    Calls& calls = all[{e.name, e.numbers, e.halves}];
    ++calls.number;
    calls.number_bytes = bytes_of_a_number(e);
  }

  // What a processor's last cache, or a GPU's, holds several times over.
  constexpr double kFar = 512e6;
  constexpr i64 kCopied = i64{1} << 24;
  i64 most = operands({"copy", {kCopied}, 0});
  for (const auto& [key, calls] : all) most = std::max(most, operands(key));
  KernelBench bench = engine ? KernelBench(*engine, kFar, most) : KernelBench(isa, threads, kFar, most);
  const double batch_seconds = engine ? 5e-3 : 1e-3;

  PartProgress progress("kernels timed");
  times.copy_bytes = 8 * kCopied;
  times.copy_bandwidth = static_cast<double>(times.copy_bytes) /
                         bench.time("copy", {static_cast<double>(kCopied)}, batch_seconds).seconds;
  for (const auto& [key, calls] : all) {
    const auto& [kernel, sizes, halves] = key;
    Work work = work_of(kernel.c_str(), sizes, 1);
    work.bytes *= calls.number_bytes;
    times.kernels.push_back({kernel, fmt::format("{}", fmt::join(sizes, " ")), halves != 0, calls.number,
                             work, bench.time(kernel, sizes, batch_seconds, halves).seconds});
    progress.at(static_cast<double>(times.kernels.size()) / static_cast<double>(all.size()));
  }
  std::stable_sort(times.kernels.begin(), times.kernels.end(), [](const KernelTime& a, const KernelTime& b) {
    return a.calls * a.seconds > b.calls * b.seconds;
  });
  return times;
}

std::string kernel_table(const KernelTimes& times, double step_seconds, double peak) {
  TextTable table({"kernel", "sizes", "dtype", "calls", "us each", "% of step", "GFLOP/s", "GB/s", "reached"},
                  3);
  double all = 0;
  for (const KernelTime& t : times.kernels) {
    const double flops = t.work.flops / t.seconds, bytes = t.work.bytes / t.seconds;
    all += t.calls * t.seconds;
    std::string bound = "-";
    if (t.work.kind == Work::rows)
      bound = fmt::format("{:.1f} % of the copy", 100 * bytes / times.copy_bandwidth);
    else if (peak > 0)
      bound = fmt::format("{:.1f} % of the peak", 100 * flops / peak);
    table.add({t.kernel, t.sizes, t.halves ? "bf16" : "float32", fmt::format("{}", t.calls),
               fmt::format("{:.2f}", 1e6 * t.seconds),
               fmt::format("{:.2f}", 100 * t.calls * t.seconds / step_seconds),
               fmt::format("{:.1f}", flops / 1e9), fmt::format("{:.1f}", bytes / 1e9), bound});
  }
  std::string out = table.text(false);
  out += fmt::format(
      "each kernel alone; together {:.1f} % of the median step; copy of {} MB, read and written: {:.1f} "
      "GB/s\n",
      100 * all / step_seconds, times.copy_bytes / 2 / 1000000, times.copy_bandwidth / 1e9);
  if (times.on_host > 0) out += fmt::format("{} calls on the host are not timed\n", times.on_host);
  return out;
}

void write_kernel_csv(const KernelTimes& times, const std::string& path) {
  std::ofstream file(path);
  file << "kernel,sizes,dtype,calls,seconds,flops,bytes\n";
  file << fmt::format("copy bandwidth,{},float32,0,{:.9g},0,{}\n", times.copy_bytes / 8,
                      static_cast<double>(times.copy_bytes) / times.copy_bandwidth, times.copy_bytes);
  for (const KernelTime& t : times.kernels)
    file << fmt::format("{},{},{},{},{:.9g},{:.17g},{:.17g}\n", t.kernel, t.sizes,
                        t.halves ? "bf16" : "float32", t.calls, t.seconds, t.work.flops, t.work.bytes);
  file.flush();
  if (!file) throw UserError(fmt::format("cannot write '{}': its disk must have room", path));
}

}  // namespace lockstep
