#include "suites/planner/measure.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>

#include "kernels/ops.hpp"
#include "kernels/work.hpp"
#include "parallel/comm/comm.hpp"
#include "suites/machine_memory.hpp"
#include "suites/stopwatch.hpp"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Seconds of one call: the least of some batches, each long enough for the clock. Whatever else runs on the
// machine can only add.
template <class Call>
double seconds_of(const Call& call, double batch = 2e-3) {
  call();
  double least = 1e9;
  i64 times = 1;
  for (int measured = 0; measured < 5;) {
    const Clock::time_point start = Clock::now();
    for (i64 i = 0; i < times; ++i) call();
    const double seconds = since(start);
    if (seconds < batch && times < (i64{1} << 24)) {
      times = std::max(times + 1, static_cast<i64>(static_cast<double>(times) *
                                                   std::min(100.0, 1.2 * batch / std::max(seconds, 1e-7))));
      continue;
    }
    least = std::min(least, seconds / static_cast<double>(times)), ++measured;
  }
  return least;
}

// Buffers as large as the largest kernel's operands.
class Kernels {
 public:
  Kernels(const std::string& isa, int threads)
      : ops_(cpu_ops(isa)),
        lanes_(threads),
        a_(kNumbers, 0.5f),
        b_(kNumbers, 0.25f),
        c_(kNumbers),
        d_(kNumbers, 1.f),
        e_(kNumbers, 0.125f),
        f_(kNumbers),
        ids_(1 << 16, 1),
        words_(kSquareWords) {}

  double matmul(i64 M, i64 N, i64 K) {
    return seconds_of([&] { ops_.matmul(lanes_, c(), a(), b(), M, N, K, 1); });
  }
  double matmul_dx(i64 M, i64 N, i64 K) {
    return seconds_of([&] {
      ops_.matmul_dx(lanes_, c(), a(), N, b(), N, nullptr, 0, nullptr, 0, nullptr, 0, nullptr, 0, M, K, 1);
    });
  }
  double matmul_dw(i64 T, i64 N, i64 K) {
    return seconds_of([&] { ops_.matmul_dw(lanes_, c(), a(), b(), T, N, K, true); });
  }
  double attention(i64 T, i64 hd, i64 H) {
    return seconds_of([&] { ops_.attention(lanes_, c(), f(), a(), b(), d(), 1, T, H, H, hd); });
  }
  double attention_dx(i64 T, i64 hd, i64 H) {
    ops_.attention(lanes_, e_.data(), f(), a(), b(), d(), 1, T, H, H, hd);
    return seconds_of([&] {
      ops_.attention_dx(lanes_, c(), g_.data(), h_.data(), a(), a(), b(), d(), e_.data(), f(), 1, T, H, H,
                        hd);
    });
  }
  // A kernel of class rows on about n numbers: its sizes, for work_of(), and seconds.
  std::pair<std::vector<double>, double> rows(const std::string& name, i64 n) {
    const i64 D = std::clamp<i64>(n / 16, 16, 256), M = std::max<i64>(1, n / D);
    const double m = static_cast<double>(M), w = static_cast<double>(D), all = m * w;
    const i64 k = M * D;
    const auto time = [&](std::vector<double> sizes, const auto& call) {
      return std::pair{std::move(sizes), seconds_of(call)};
    };
    if (name == "rms_norm")
      return time({m, w, 1e-5}, [&] { ops_.rms_norm(lanes_, c(), f(), a(), b(), M, D, 1e-5); });
    if (name == "rms_norm_dx")
      return time({m, w}, [&] { ops_.rms_norm_dx(lanes_, c(), a(), b(), d(), e_.data(), M, D); });
    if (name == "rms_norm_dw")
      return time({m, w, 1, 0}, [&] { ops_.rms_norm_dw(lanes_, c(), a(), b(), d(), M, D, 1, false); });
    if (name == "rope") {
      const i64 hd = 16, heads = D / hd;
      return time({m, m, static_cast<double>(heads), 16, 0},
                  [&] { ops_.rope(lanes_, c(), d(), d(), M, M, heads, hd, false); });
    }
    if (name == "swiglu") return time({all}, [&] { ops_.swiglu(lanes_, c(), a(), b(), k); });
    if (name == "swiglu_dx")
      return time({all}, [&] { ops_.swiglu_dx(lanes_, c(), g_.data(), a(), b(), d(), k); });
    if (name == "ce_max") return time({m, w, w}, [&] { ops_.ce_max(lanes_, f(), a(), M, D, D); });
    if (name == "ce_sum")
      return time({m, w, w, 0, 1}, [&] {
        ops_.ce_sum(lanes_, f(), g_.data(), a(), d(), ids_.data(), std::min<i64>(M, 1 << 16), D, D, 0, 1);
      });
    if (name == "ce_dx")
      return time({m, w, w, 0, 0}, [&] {
        ops_.ce_dx(lanes_, c(), d(), d(), ids_.data(), std::min<i64>(M, 1 << 16), D, D, 0, 0.f);
      });
    if (name == "add") return time({all}, [&] { ops_.add(lanes_, c(), a(), b(), k); });
    if (name == "scale") return time({1, all}, [&] { ops_.scale(lanes_, a(), 1.f, k); });
    if (name == "copy") return time({all}, [&] { ops_.copy(lanes_, c(), a(), k); });
    if (name == "zero") return time({all}, [&] { ops_.zero(lanes_, c(), k); });
    if (name == "add_squares") return time({all}, [&] { ops_.add_squares(lanes_, words_.data(), a(), k); });
    if (name == "adamw") {
      const AdamWStep<float> step{1.f, 0.9f, 0.1f, 0.95f, 0.05f, 1.f, 1e-8f, 0.f};
      return time({all}, [&] { ops_.adamw(lanes_, a(), g_.data(), h_.data(), b(), k, step); });
    }
    if (name == "embed")
      return time({m, w, 0, 1024},
                  [&] { ops_.embed(lanes_, c(), a(), ids_.data(), std::min<i64>(M, 1 << 16), D, 0, 1024); });
    return {{}, 0};
  }
  static constexpr i64 kNumbers = i64{1} << 22;

 private:
  float* a() { return a_.data(); }
  float* b() { return b_.data(); }
  float* c() { return c_.data(); }
  float* d() { return d_.data(); }
  float* f() { return f_.data(); }
  Ops<float> ops_;
  Lanes lanes_;
  std::vector<float> a_, b_, c_, d_, e_, f_, g_ = std::vector<float>(kNumbers),
                                             h_ = std::vector<float>(kNumbers);
  std::vector<i32> ids_;
  std::vector<i64> words_;
};

constexpr double kGflop = 1e9;

Grid matmul_grid(Kernels& k, const std::string& name, bool quick) {
  Grid g;
  g.sizes = {std::vector<double>{16, 64, 256, 1024}, {32, 128, 512, 2048}, {32, 128, 512, 2048}};
  if (quick) g.sizes = {std::vector<double>{16, 256}, {32, 512}, {32, 512}};
  for (const double M : g.sizes[0])
    for (const double N : g.sizes[1])
      for (const double K : g.sizes[2]) {
        const i64 m = static_cast<i64>(M), n = static_cast<i64>(N), d = static_cast<i64>(K);
        const double s = name == "matmul"      ? k.matmul(m, n, d)
                         : name == "matmul_dx" ? k.matmul_dx(m, n, d)
                                               : k.matmul_dw(m, n, d);
        g.rates.push_back(2 * M * N * K / s);
      }
  return g;
}

Grid attention_grid(Kernels& k, const std::string& name, bool quick) {
  Grid g;
  g.sizes = {std::vector<double>{16, 64, 256, 512}, {8, 16, 32, 64, 128}, {1, 4}};
  if (quick) g.sizes = {std::vector<double>{16, 256}, {16, 64}, {4}};
  for (const double T : g.sizes[0])
    for (const double hd : g.sizes[1])
      for (const double H : g.sizes[2]) {
        const i64 t = static_cast<i64>(T), d = static_cast<i64>(hd), h = static_cast<i64>(H);
        const double s = name == "attention" ? k.attention(t, d, h) : k.attention_dx(t, d, h);
        g.rates.push_back(work_of(name.c_str(), {1, T, H, H, hd}, 1).flops / s);
      }
  return g;
}

// Bytes a second by bytes.
Curve rows_curve(Kernels& k, const std::string& name, bool quick) {
  std::vector<std::pair<double, double>> points;
  for (i64 n = 256; n <= Kernels::kNumbers / 2; n *= quick ? 64 : 8) {
    const auto [sizes, seconds] = k.rows(name, n);
    if (sizes.empty()) return {};
    const double bytes = work_of(name.c_str(), sizes, 4).bytes;
    points.emplace_back(bytes, bytes / seconds);
  }
  return Curve(points);
}

// How much slower each of several ranks gets when they compute at once.
double crowded(const MeasureHow& how, int ranks, bool arithmetic) {
  std::vector<double> rates(static_cast<std::size_t>(ranks));
  std::atomic<int> ready = 0, busy = ranks;
  const auto body = [&](int rank) {
    Kernels kernels(how.isa, how.threads);
    const auto once = [&] {
      if (arithmetic)
        kernels.matmul(128, 256, 256);
      else
        kernels.rows("add", 1 << 16);
    };
    once();
    ++ready;
    while (ready < ranks) std::this_thread::yield();
    const double seconds = arithmetic ? kernels.matmul(128, 256, 256) : kernels.rows("add", 1 << 16).second;
    rates[static_cast<std::size_t>(rank)] = 1 / seconds;
    --busy;
    while (busy > 0) once();  // the others are still measured
  };
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) threads.emplace_back(body, r);
  for (std::thread& t : threads) t.join();
  return median(rates);
}

// Two ranks of this process: seconds of a message, both always ready.
double message_time(Verb verb, i64 elements) {
  const Mesh mesh{2, 1, 1, 1};
  LocalWorld world(mesh, {elements * 8, 1}, Timing::eager);
  double least = 1e9;
  world.run([&](int rank, Comm& comm) {
    std::vector<float> in(static_cast<std::size_t>(2 * elements)), out(in.size());
    const auto once = [&] {
      Message m;
      m.verb = verb, m.axis = Axis::dp, m.n = elements, m.what = "a measurement";
      if (verb == Verb::send && rank == 1) m.verb = Verb::recv;
      if (verb == Verb::send) m.peer = 1 - rank;
      if (verb == Verb::all_reduce || verb == Verb::reduce_scatter) m.reduce = Reduce::sum;
      if (m.verb != Verb::recv) m.in = in.data();
      if (m.verb != Verb::send) m.out = verb == Verb::all_reduce ? in.data() : out.data();
      comm.wait(comm.start(m));
    };
    const int times = static_cast<int>(std::clamp<i64>((i64{1} << 22) / (elements + 1), 8, 2000));
    for (int batch = 0; batch < 5; ++batch) {
      const Clock::time_point start = Clock::now();
      for (int i = 0; i < times; ++i) once();
      if (rank == 0) least = std::min(least, since(start) / times);
    }
  });
  return least;
}

void measure_messages(Cluster& c) {
  c.node.latency = message_time(Verb::all_reduce, 1) / 2;
  std::vector<std::pair<double, double>> points;
  double best = 0;
  for (i64 n = 256; n <= (1 << 21); n *= 8) {
    const double bytes = 4.0 * static_cast<double>(n);
    const double moving = std::max(1e-9, message_time(Verb::all_reduce, n) - 2 * c.node.latency);
    points.emplace_back(bytes, bytes / moving);  // two ranks: the payload once each way
    best = std::max(best, points.back().second);
  }
  c.node.bandwidth = best;
  for (auto& [bytes, rate] : points) rate /= best;
  c.node.by_bytes = Curve(points);
}

void measure_disk(const MeasureHow& how, Cluster& c) {
  const std::filesystem::path folder =
      how.scratch.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(how.scratch);
  const std::string path = (folder / fmt::format("lockstep-disk-{}", ::getpid())).string();
  std::vector<char> block(std::size_t{1} << 20, 'x');
  const Clock::time_point start = Clock::now();
  if (std::FILE* file = std::fopen(path.c_str(), "wb")) {
    for (int i = 0; i < 64; ++i) std::fwrite(block.data(), 1, block.size(), file);
    std::fclose(file);
    c.disk.bandwidth = 64.0 * static_cast<double>(block.size()) / since(start);
    c.disk_bytes = static_cast<double>(std::filesystem::space(folder).available);
  }
  std::filesystem::remove(path);
}

}  // namespace

Cluster measure(const MeasureHow& how, const std::function<void(const std::string&)>& say) {
  Cluster c;
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  c.name = fmt::format("this machine, {} core{}", cores, cores > 1 ? "s" : "");
  c.devices = c.per_node = std::max(1, cores / how.threads);
  c.weight_bytes = c.gradient_bytes = c.activation_bytes = 4;
  c.copies_block = true;
  const double memory = static_cast<double>(machine_bytes());
  c.memory = memory / static_cast<double>(c.devices), c.host_memory = c.memory;

  Kernels kernels(how.isa, how.threads);
  for (const char* name : {"matmul", "matmul_dx", "matmul_dw"}) {
    say(name);
    c.grids[name] = matmul_grid(kernels, name, how.quick);
  }
  for (const char* name : {"attention", "attention_dx"}) {
    say(name);
    c.grids[name] = attention_grid(kernels, name, how.quick);
  }
  for (const auto& [name, grid] : c.grids)
    c.flops = std::max(c.flops, *std::max_element(grid.rates.begin(), grid.rates.end()));
  std::map<std::string, Curve> rates;
  for (const std::string& name : kernel_names_and_classes()) {
    if (c.grids.count(name)) continue;
    const Curve curve = rows_curve(kernels, name, how.quick);
    if (curve.empty()) continue;
    say(name);
    rates[name] = curve;
    for (const auto& [bytes, rate] : curve.points()) c.memory_bandwidth = std::max(c.memory_bandwidth, rate);
  }
  rates["rows"] = rates.at("add");
  for (const auto& [name, curve] : rates) {
    std::vector<std::pair<double, double>> parts = curve.points();
    for (auto& [bytes, rate] : parts) rate /= c.memory_bandwidth;
    c.efficiency[name] = Curve(parts);
  }
  const double adamw = rates.at("adamw").points().back().second,
               copy = rates.at("copy").points().back().second;
  c.host_bandwidth = adamw;
  c.host.bandwidth = copy / 2;

  say("ranks at once");
  std::vector<std::pair<double, double>> arithmetic, moving;
  const double one = crowded(how, 1, true), stream = crowded(how, 1, false);
  for (i64 ranks = 1; ranks <= c.devices; ranks *= 2) {
    arithmetic.emplace_back(ranks, crowded(how, static_cast<int>(ranks), true) / one);
    moving.emplace_back(ranks, crowded(how, static_cast<int>(ranks), false) / stream);
  }
  c.crowd["matmul"] = Curve(arithmetic), c.crowd["rows"] = Curve(moving);
  if (c.devices > 1) {
    say("messages");
    measure_messages(c);
  }
  say("disk");
  measure_disk(how, c);
  return c;
}

std::string cluster_text(const Cluster& c, const std::string& comment) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  const auto points = [](const Curve& curve) {
    std::string text;
    for (const auto& [x, y] : curve.points())
      text += fmt::format("{}[{:.6g}, {:.5g}]", text.empty() ? "" : ", ", x, y);
    return "[" + text + "]";
  };
  const auto list = [](const std::vector<double>& numbers, double unit) {
    std::string text;
    for (const double x : numbers) text += fmt::format("{}{:.6g}", text.empty() ? "" : ", ", x / unit);
    return "[" + text + "]";
  };
  std::string out = fmt::format("# {}\nname = \"{}\"\ndevices = {}\ndevices_per_node = {}\n\n", comment,
                                c.name, c.devices, c.per_node);
  out += fmt::format(
      "[device]\nmemory_gib = {:.4f}\ntflops = {:.6g}\nmemory_gb_per_s = {:.6g}\nlaunch_us = "
      "{:.4g}\nweight_bytes "
      "= {}\ngradient_bytes = {}\nactivation_bytes = {}\n\n[efficiency]\n",
      c.memory / kGiB, c.flops / 1e12, c.memory_bandwidth / 1e9, c.launch * 1e6, c.weight_bytes,
      c.gradient_bytes, c.activation_bytes);
  for (const auto& [name, curve] : c.efficiency) out += fmt::format("{} = {}\n", name, points(curve));
  out += "\n[crowd]\n";
  for (const auto& [name, curve] : c.crowd) out += fmt::format("{} = {}\n", name, points(curve));
  for (const auto& [name, grid] : c.grids) {
    out += fmt::format("\n[grid.{}]\n", name);
    for (std::size_t a = 0; a < 3; ++a) out += fmt::format("{} = {}\n", kGridAxes[a], list(grid.sizes[a], 1));
    out += fmt::format("gflops = {}\n", list(grid.rates, kGflop));
  }
  if (c.node.bandwidth > 0)
    out += fmt::format("\n[node]\ngb_per_s = {:.6g}\nlatency_us = {:.5g}\nby_bytes = {}\n",
                       c.node.bandwidth / 1e9, c.node.latency * 1e6, points(c.node.by_bytes));
  out += fmt::format(
      "\n[host]\nlink_gb_per_s = {:.6g}\nmemory_gib = {:.4f}\nmemory_gb_per_s = {:.6g}\ncopies_block = {}\n",
      c.host.bandwidth / 1e9, c.host_memory / kGiB, c.host_bandwidth / 1e9, c.copies_block);
  if (c.disk.bandwidth > 0)
    out += fmt::format("\n[disk]\nsize_gb = {:.6g}\ngb_per_s = {:.6g}\n", c.disk_bytes / 1e9,
                       c.disk.bandwidth / 1e9);
  return out;
}

}  // namespace lockstep
