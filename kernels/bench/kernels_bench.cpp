// Times of the kernels, one thread, each set of kernels that runs here. Names: kernel/set/shape.
// Counters: peak% = share of the set's fma peak, measured just before; GB/s = bytes read and written.
//
//   make bench                                        everything
//   make bench ARGS=--benchmark_filter=matmul/avx512  some of it
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/bench/fma_peak.hpp"
#include "kernels/ops.hpp"

namespace lockstep::bench {
namespace {

using Floats = std::vector<float>;
using benchmark::State;

Floats random_floats(i64 n) {
  static std::mt19937 bits(1);
  Floats x(static_cast<std::size_t>(n));
  for (float& a : x) a = static_cast<float>(bits() >> 8) * 0x1p-23f - 1.0f;
  return x;
}

Lanes& one_lane() {
  static Lanes lanes(1);
  return lanes;
}

// Runs f over and over; it does `flops` operations and moves `bytes`, either 0 if not worth a counter.
template <class F>
void measure(State& state, const std::string& set, double flops, double bytes, F f) {
  const double peak = flops > 0 ? fma_peak(set) : 0;
  for (auto _ : state) {
    f();
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  const double runs = static_cast<double>(state.iterations());
  if (peak > 0) state.counters["peak%"] = Counter(100 * flops * runs / peak, Counter::kIsRate);
  if (flops > 0) state.counters["Gflop/s"] = Counter(1e-9 * flops * runs, Counter::kIsRate);
  if (bytes > 0) state.counters["GB/s"] = Counter(1e-9 * bytes * runs, Counter::kIsRate);
}

struct MatmulShape {
  i64 M, N, K;
};
const MatmulShape kMatmuls[] = {{64, 32, 32},    {256, 96, 32},    {512, 256, 704},  {1024, 704, 256},
                                {512, 768, 768}, {512, 2048, 768}, {512, 768, 2048}, {512, 32000, 256}};

// The plain kernels are what the others are compared with; where one run of them takes seconds, nothing is.
bool worth_it(const std::string& set, double flops) { return set != "plain" || flops < 2e8; }

void add_matmuls(const std::string& set, const Ops<float>& ops) {
  for (const auto& [M, N, K] : kMatmuls) {
    const double flops = 2.0 * static_cast<double>(M * N * K);
    if (!worth_it(set, flops)) continue;
    const auto shape = fmt::format("M{}_N{}_K{}", M, N, K);
    for (i64 leaves : {1, 8}) {
      benchmark::RegisterBenchmark(fmt::format("matmul/{}/{}_R{}", set, shape, leaves).c_str(),
                                   [=, M = M, N = N, K = K](State& state) {
                                     const Floats x = random_floats(M * K), w = random_floats(N * K);
                                     Floats y(static_cast<std::size_t>(M * N));
                                     measure(state, set, flops, 0, [&] {
                                       ops.matmul(one_lane(), y.data(), x.data(), w.data(), M, N, K, leaves);
                                     });
                                   });
      benchmark::RegisterBenchmark(fmt::format("matmul_dx/{}/{}_R{}", set, shape, leaves).c_str(),
                                   [=, M = M, N = N, K = K](State& state) {
                                     const Floats dy = random_floats(M * N), w = random_floats(N * K);
                                     Floats dx(static_cast<std::size_t>(M * K));
                                     measure(state, set, flops, 0, [&] {
                                       ops.matmul_dx(one_lane(), dx.data(), dy.data(), N, w.data(), N,
                                                     nullptr, 0, nullptr, 0, nullptr, 0, nullptr, 0, M, K,
                                                     leaves);
                                     });
                                   });
    }
    benchmark::RegisterBenchmark(
        fmt::format("matmul_dw/{}/{}", set, shape).c_str(), [=, M = M, N = N, K = K](State& state) {
          const Floats dy = random_floats(M * N), x = random_floats(M * K);
          Floats dw(static_cast<std::size_t>(N * K));
          measure(state, set, flops, 0,
                  [&] { ops.matmul_dw(one_lane(), dw.data(), dy.data(), x.data(), M, N, K, false); });
        });
  }
}

void add_attention(const std::string& set, const Ops<float>& ops) {
  struct Shape {
    i64 T, H, K, hd;
  };
  for (const auto& [T, H, K, hd] : {Shape{256, 4, 4, 64}, Shape{1024, 4, 2, 64}, Shape{2048, 2, 1, 128}}) {
    const i64 q_floats = T * H * hd, k_floats = T * K * hd;
    // Half of the T x T products: two forward, five backward.
    const double product = static_cast<double>(T * T * H * hd);
    if (!worth_it(set, 5 * product)) continue;
    const auto shape = fmt::format("T{}_H{}_K{}_hd{}", T, H, K, hd);
    benchmark::RegisterBenchmark(
        fmt::format("attention/{}/{}", set, shape).c_str(), [=, T = T, H = H, K = K, hd = hd](State& state) {
          const Floats q = random_floats(q_floats), k = random_floats(k_floats), v = random_floats(k_floats);
          Floats o(q.size()), lse(static_cast<std::size_t>(T * H));
          measure(state, set, 2 * product, 0, [&] {
            ops.attention(one_lane(), o.data(), lse.data(), q.data(), k.data(), v.data(), 1, T, H, K, hd);
          });
        });
    benchmark::RegisterBenchmark(
        fmt::format("attention_dx/{}/{}", set, shape).c_str(),
        [=, T = T, H = H, K = K, hd = hd](State& state) {
          const Floats q = random_floats(q_floats), k = random_floats(k_floats), v = random_floats(k_floats);
          const Floats dO = random_floats(q_floats);
          Floats o(q.size()), lse(static_cast<std::size_t>(T * H)), dq(q.size()), dk(k.size()), dv(k.size());
          ops.attention(one_lane(), o.data(), lse.data(), q.data(), k.data(), v.data(), 1, T, H, K, hd);
          measure(state, set, 5 * product, 0, [&] {
            ops.attention_dx(one_lane(), dq.data(), dk.data(), dv.data(), dO.data(), q.data(), k.data(),
                             v.data(), o.data(), lse.data(), 1, T, H, K, hd);
          });
        });
  }
}

void add_rows_and_elements(const std::string& set, const Ops<float>& ops) {
  const i64 M = 1024, D = 768, n = M * D;
  const auto add = [&](const char* name, double bytes_per_element, auto f) {
    benchmark::RegisterBenchmark(fmt::format("{}/{}/M{}_D{}", name, set, M, D).c_str(), [=](State& state) {
      std::vector<Floats> x;
      for (int i = 0; i < 5; ++i) x.push_back(random_floats(n));
      for (float& a : x[4]) a = a * a;
      measure(state, set, 0, bytes_per_element * static_cast<double>(n), [&] { f(x); });
      state.counters["ns/element"] =
          benchmark::Counter(1e-9 * static_cast<double>(n * state.iterations()),
                             benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
    });
  };
  using Arrays = std::vector<Floats>;
  add("rms_norm", 8, [=](Arrays& x) {
    ops.rms_norm(one_lane(), x[0].data(), x[1].data(), x[2].data(), x[3].data(), M, D, 1e-5);
  });
  add("rms_norm_dx", 12, [=](Arrays& x) {
    ops.rms_norm_dx(one_lane(), x[0].data(), x[1].data(), x[2].data(), x[3].data(), x[3].data(), M, D);
  });
  add("rms_norm_dw", 8, [=](Arrays& x) {
    ops.rms_norm_dw(one_lane(), x[0].data(), x[1].data(), x[2].data(), x[3].data(), M, D, 8, false);
  });
  add("rope", 8, [=](Arrays& x) {
    ops.rope(one_lane(), x[0].data(), x[1].data(), x[2].data(), M, M, D / 64, 64, false);
  });
  add("swiglu", 12, [=](Arrays& x) { ops.swiglu(one_lane(), x[0].data(), x[1].data(), x[2].data(), n); });
  add("swiglu_dx", 20, [=](Arrays& x) {
    ops.swiglu_dx(one_lane(), x[0].data(), x[1].data(), x[2].data(), x[3].data(), x[4].data(), n);
  });
  add("ce_sum", 4, [=](Arrays& x) {
    static const std::vector<i32> labels(static_cast<std::size_t>(M), 1);
    ops.ce_sum(one_lane(), x[0].data(), x[1].data(), x[2].data(), x[3].data(), labels.data(), M, D, D, 0, 8);
  });
  add("ce_dx", 8, [=](Arrays& x) {
    static const std::vector<i32> labels(static_cast<std::size_t>(M), 1);
    std::memcpy(x[0].data(), x[1].data(), x[0].size() * sizeof(float));  // it works in place
    ops.ce_dx(one_lane(), x[0].data(), x[3].data(), x[4].data(), labels.data(), M, D, D, 0, 0.01f);
  });
  add("add", 12, [=](Arrays& x) { ops.add(one_lane(), x[0].data(), x[1].data(), x[2].data(), n); });
  add("copy", 8, [=](Arrays& x) { ops.copy(one_lane(), x[0].data(), x[1].data(), n); });
  add("swap_axes", 8, [=](Arrays& x) {
    ops.swap_axes(one_lane(), x[0].data(), x[1].data(), 1, M, 2, D / 2);  // as two ranks of cp have it
  });
  add("repeat_rows", 6,
      [=](Arrays& x) { ops.repeat_rows(one_lane(), x[0].data(), x[1].data(), M, 2, D / 2); });
  add("sum_rows", 6, [=](Arrays& x) { ops.sum_rows(one_lane(), x[0].data(), x[1].data(), M, 2, D / 2); });
  add("add_squares", 4, [=](Arrays& x) {
    i64 words[kSquareWords] = {};
    ops.add_squares(one_lane(), words, x[1].data(), n);
    benchmark::DoNotOptimize(words[0]);
  });
  add("adamw", 28, [=](Arrays& x) {
    const AdamWStep<float> step{0.9999f, 0.9f, 0.1f, 0.95f, 0.05f, 0.222f, 1e-8f, 1e-4f};
    ops.adamw(one_lane(), x[0].data(), x[1].data(), x[4].data(), x[3].data(), n, 1.0f, step);
  });
}

void memory_copy(State& state) {
  const i64 n = i64{64} << 20;
  const Floats from = random_floats(n / 4);
  Floats to(from.size());
  measure(state, "", 0, 2.0 * static_cast<double>(n),
          [&] { std::memcpy(to.data(), from.data(), static_cast<std::size_t>(n)); });
}

void add_all() {
  add_matmuls("plain", plain_ops<float>());
  add_attention("plain", plain_ops<float>());
  add_rows_and_elements("plain", plain_ops<float>());
  for (const KernelSet* kernel_set : kernel_sets()) {
    if (!kernel_set->runs_here()) continue;
    const std::string set = kernel_set->name;
    benchmark::RegisterBenchmark(fmt::format("fma_peak/{}", set).c_str(), [=](State& state) {
      double peak = 0;
      for (auto _ : state) peak = std::max(peak, fma_peak(set));
      state.counters["Gflop/s"] = 1e-9 * peak;
    });
    const Ops<float> ops = cpu_ops(set);
    add_matmuls(set, ops);
    add_attention(set, ops);
    add_rows_and_elements(set, ops);
  }
  benchmark::RegisterBenchmark("memcpy", memory_copy);
}

}  // namespace
}  // namespace lockstep::bench

int main(int argc, char** argv) {
  lockstep::bench::add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
