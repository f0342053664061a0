// Times of the kernels, one thread, each set of kernels that runs here. Names: kernel/set/shape; a kernel on
// numbers stored as bf16 is kernel_bf16.
// Counters: peak% = share of the set's fma peak, measured just before; GB/s = bytes read and written.
//
//   make bench                                        everything
//   make bench ARGS=--benchmark_filter=matmul/avx512  some of it
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
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

template <class X>
std::vector<X> random(i64 n) {
  static std::mt19937 bits(1);
  std::vector<X> x(static_cast<std::size_t>(n));
  for (X& a : x) a = static_cast<X>(static_cast<float>(bits() >> 8) * 0x1p-23f - 1.0f);
  return x;
}

template <class X>
std::string named(const char* kernel) {
  return std::string(kernel) + (std::is_same_v<X, float> ? "" : "_bf16");
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

template <class X>
void add_matmuls(const std::string& set, const Ops<float>& ops) {
  for (const auto& [M, N, K] : kMatmuls) {
    const double flops = 2.0 * static_cast<double>(M * N * K);
    if (!worth_it(set, flops)) continue;
    const auto shape = fmt::format("M{}_N{}_K{}", M, N, K);
    for (i64 leaves : {1, 8}) {
      benchmark::RegisterBenchmark(
          fmt::format("{}/{}/{}_R{}", named<X>("matmul"), set, shape, leaves).c_str(),
          [=, M = M, N = N, K = K](State& state) {
            const auto x = random<X>(M * K), w = random<X>(N * K);
            std::vector<X> y(static_cast<std::size_t>(M * N));
            measure(state, set, flops, 0,
                    [&] { ops.matmul(one_lane(), y.data(), x.data(), w.data(), M, N, K, leaves); });
          });
      benchmark::RegisterBenchmark(
          fmt::format("{}/{}/{}_R{}", named<X>("matmul_dx"), set, shape, leaves).c_str(),
          [=, M = M, N = N, K = K](State& state) {
            const auto dy = random<X>(M * N), w = random<X>(N * K);
            const X* none = nullptr;
            std::vector<X> dx(static_cast<std::size_t>(M * K));
            measure(state, set, flops, 0, [&] {
              ops.matmul_dx(one_lane(), dx.data(), dy.data(), N, w.data(), N, none, 0, none, 0, none, 0, none,
                            0, M, K, leaves);
            });
          });
    }
    benchmark::RegisterBenchmark(
        fmt::format("{}/{}/{}", named<X>("matmul_dw"), set, shape).c_str(),
        [=, M = M, N = N, K = K](State& state) {
          const auto dy = random<X>(M * N), x = random<X>(M * K);
          Floats dw(static_cast<std::size_t>(N * K));
          measure(state, set, flops, 0,
                  [&] { ops.matmul_dw(one_lane(), dw.data(), dy.data(), x.data(), M, N, K, false); });
        });
  }
}

template <class X>
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
        fmt::format("{}/{}/{}", named<X>("attention"), set, shape).c_str(),
        [=, T = T, H = H, K = K, hd = hd](State& state) {
          const auto q = random<X>(q_floats), k = random<X>(k_floats), v = random<X>(k_floats);
          std::vector<X> o(q.size());
          Floats lse(static_cast<std::size_t>(T * H));
          measure(state, set, 2 * product, 0, [&] {
            ops.attention(one_lane(), o.data(), lse.data(), q.data(), k.data(), v.data(), 1, T, H, K, hd);
          });
        });
    benchmark::RegisterBenchmark(
        fmt::format("{}/{}/{}", named<X>("attention_dx"), set, shape).c_str(),
        [=, T = T, H = H, K = K, hd = hd](State& state) {
          const auto q = random<X>(q_floats), k = random<X>(k_floats), v = random<X>(k_floats);
          const auto dO = random<X>(q_floats);
          std::vector<X> o(q.size()), dq(q.size()), dk(k.size()), dv(k.size());
          Floats lse(static_cast<std::size_t>(T * H));
          ops.attention(one_lane(), o.data(), lse.data(), q.data(), k.data(), v.data(), 1, T, H, K, hd);
          measure(state, set, 5 * product, 0, [&] {
            ops.attention_dx(one_lane(), dq.data(), dk.data(), dv.data(), dO.data(), q.data(), k.data(),
                             v.data(), o.data(), lse.data(), 1, T, H, K, hd);
          });
        });
  }
}

// Bytes are of an element's operands stored as X, and of those that are float32 all the same.
template <class X>
void add_rows_and_elements(const std::string& set, const Ops<float>& ops) {
  const i64 M = 1024, D = 768, n = M * D;
  struct Arrays {
    std::vector<std::vector<X>> x;
    std::vector<Floats> f;  // the last has no negative numbers
  };
  const auto add = [&](const char* name, double stored, double wide, auto f) {
    benchmark::RegisterBenchmark(
        fmt::format("{}/{}/M{}_D{}", named<X>(name), set, M, D).c_str(), [=](State& state) {
          Arrays arrays;
          for (int i = 0; i < 5; ++i) arrays.x.push_back(random<X>(n)), arrays.f.push_back(random<float>(n));
          for (float& a : arrays.f[4]) a = a * a;
          measure(state, set, 0, (stored * sizeof(X) + wide * sizeof(float)) * static_cast<double>(n),
                  [&] { f(arrays); });
          state.counters["ns/element"] =
              benchmark::Counter(1e-9 * static_cast<double>(n * state.iterations()),
                                 benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
        });
  };
  static const std::vector<i32> labels(static_cast<std::size_t>(M), 1);
  add("rms_norm", 2, 0, [=](Arrays& a) {
    ops.rms_norm(one_lane(), a.x[0].data(), a.f[0].data(), a.x[1].data(), a.x[2].data(), M, D, 1e-5);
  });
  add("rms_norm_dx", 3, 0, [=](Arrays& a) {
    ops.rms_norm_dx(one_lane(), a.x[0].data(), a.x[1].data(), a.x[2].data(), a.f[0].data(), a.x[3].data(), M,
                    D);
  });
  add("rms_norm_dw", 2, 0, [=](Arrays& a) {
    ops.rms_norm_dw(one_lane(), a.f[0].data(), a.x[1].data(), a.x[2].data(), a.f[1].data(), M, D, 8, false);
  });
  add("rope", 2, 0, [=](Arrays& a) {
    ops.rope(one_lane(), a.x[0].data(), a.f[0].data(), a.f[1].data(), M, M, D / 64, 64, false);
  });
  add("swiglu", 3, 0,
      [=](Arrays& a) { ops.swiglu(one_lane(), a.x[0].data(), a.x[1].data(), a.x[2].data(), n); });
  add("swiglu_dx", 5, 0, [=](Arrays& a) {
    ops.swiglu_dx(one_lane(), a.x[0].data(), a.x[1].data(), a.x[2].data(), a.x[3].data(), a.x[4].data(), n);
  });
  add("ce_sum", 1, 0, [=](Arrays& a) {
    ops.ce_sum(one_lane(), a.f[0].data(), a.f[1].data(), a.x[2].data(), a.f[3].data(), labels.data(), M, D, D,
               0, 8);
  });
  add("ce_dx", 2, 0, [=](Arrays& a) {
    std::memcpy(a.x[0].data(), a.x[1].data(), a.x[0].size() * sizeof(X));  // it works in place
    ops.ce_dx(one_lane(), a.x[0].data(), a.f[3].data(), a.f[4].data(), labels.data(), M, D, D, 0, 0.01f);
  });
  add("add", 3, 0, [=](Arrays& a) { ops.add(one_lane(), a.x[0].data(), a.x[1].data(), a.x[2].data(), n); });
  add("swap_axes", 2, 0, [=](Arrays& a) {
    ops.swap_axes(one_lane(), a.x[0].data(), a.x[1].data(), 1, M, 2, D / 2);  // as two ranks of cp have it
  });
  add("repeat_rows", 1.5, 0,
      [=](Arrays& a) { ops.repeat_rows(one_lane(), a.x[0].data(), a.x[1].data(), M, 2, D / 2); });
  add("sum_rows", 1.5, 0,
      [=](Arrays& a) { ops.sum_rows(one_lane(), a.x[0].data(), a.x[1].data(), M, 2, D / 2); });
  add("copy", 1, 1, [=](Arrays& a) { ops.copy(one_lane(), a.x[0].data(), a.f[1].data(), n); });
  if constexpr (std::is_same_v<X, float>) {  // of float32 whatever the activations are
    add("add_squares", 1, 0, [=](Arrays& a) {
      i64 words[kSquareWords] = {};
      ops.add_squares(one_lane(), words, a.x[1].data(), n);
      benchmark::DoNotOptimize(words[0]);
    });
    add("adamw", 7, 0, [=](Arrays& a) {
      const AdamWStep<float> step{0.9999f, 0.9f, 0.1f, 0.95f, 0.05f, 0.222f, 1e-8f, 1e-4f};
      ops.adamw(one_lane(), a.x[0].data(), a.x[1].data(), a.f[4].data(), a.x[3].data(), n, 1.0f, step);
    });
  }
}

template <class X>
void add_kernels(const std::string& set, const Ops<float>& ops) {
  add_matmuls<X>(set, ops);
  add_attention<X>(set, ops);
  add_rows_and_elements<X>(set, ops);
}

void memory_copy(State& state) {
  const i64 n = i64{64} << 20;
  const Floats from = random<float>(n / 4);
  Floats to(from.size());
  measure(state, "", 0, 2.0 * static_cast<double>(n),
          [&] { std::memcpy(to.data(), from.data(), static_cast<std::size_t>(n)); });
}

void add_all() {
  add_kernels<float>("plain", plain_ops<float>());
  add_kernels<bf16>("plain", plain_ops<float>());
  for (const KernelSet* kernel_set : kernel_sets()) {
    if (!kernel_set->runs_here()) continue;
    const std::string set = kernel_set->name;
    benchmark::RegisterBenchmark(fmt::format("fma_peak/{}", set).c_str(), [=](State& state) {
      double peak = 0;
      for (auto _ : state) peak = std::max(peak, fma_peak(set));
      state.counters["Gflop/s"] = 1e-9 * peak;
    });
    const Ops<float> ops = cpu_ops(set);
    add_kernels<float>(set, ops);
    add_kernels<bf16>(set, ops);
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
