#include "suites/planner/kernel_bench.hpp"

#include <stdexcept>

namespace lockstep {
namespace {

constexpr i64 kIds = i64{1} << 22;

}  // namespace

KernelBench::KernelBench(const std::string& isa, int threads, double far)
    : ops_(cpu_ops(isa)),
      lanes_(threads),
      read_(static_cast<i64>(far / sizeof(float)) / 2),
      written_(read_.far),
      ids_(kIds),
      words_(kSquareWords) {}

void KernelBench::Ring::next_call() {
  if (at >= far) at = 0;
}

float* KernelBench::Ring::take(i64 n) {
  float* place = numbers.data() + at;
  at += (n + 15) / 16 * 16;
  if (at > static_cast<i64>(numbers.size())) throw std::logic_error("a kernel too large to be timed");
  return place;
}

template <class Call>
Sample KernelBench::timed(const Call& call) {
  read_.at = written_.at = 0;
  return sample(
      [&] {
        read_.next_call(), written_.next_call();
        call();
      },
      5, batch_seconds_);
}

Sample KernelBench::time(const std::string& kernel, const std::vector<double>& numbers,
                         double batch_seconds) {
  batch_seconds_ = batch_seconds;
  const std::vector<i64> x(numbers.begin(), numbers.end());
  if (kernel.starts_with("matmul")) return matmuls(kernel, x);
  if (kernel.starts_with("attention")) return attentions(kernel, x);
  if (kernel.starts_with("embed") || kernel.starts_with("ce_")) return ends(kernel, x);
  if (kernel.starts_with("rms_norm") || kernel == "rope") return rows(kernel, x);
  return elements(kernel, x[kernel == "scale" ? 1 : 0]);
}

Sample KernelBench::matmuls(const std::string& kernel, const std::vector<i64>& x) {
  if (kernel == "matmul") {
    const i64 M = x[0], N = x[1], K = x[2];
    return timed([&] { ops_.matmul(lanes_, out(M * N), in(M * K), in(N * K), M, N, K, x[3]); });
  }
  if (kernel == "matmul_dw") {
    const i64 T = x[0], N = x[1], K = x[2];
    return timed([&] { ops_.matmul_dw(lanes_, out(N * K), in(T * N), in(T * K), T, N, K, x[3] != 0); });
  }
  const i64 M = x[6], K = x[7];
  const auto dy = [&](int i) { return x[2 * i + 1] ? in(M * x[2 * i]) : nullptr; };
  const auto w = [&](int i) { return x[2 * i + 1] ? in(x[2 * i + 1] * K) : nullptr; };
  return timed([&] {
    ops_.matmul_dx(lanes_, out(M * K), dy(0), x[0], w(0), x[1], dy(1), x[2], w(1), x[3], dy(2), x[4], w(2),
                   x[5], M, K, x[8]);
  });
}

Sample KernelBench::attentions(const std::string& kernel, const std::vector<i64>& x) {
  const i64 B = x[0], T = x[1], H = x[2], G = x[3], hd = x[4];
  const i64 q = B * T * H * hd, k = B * T * G * hd;
  if (kernel == "attention")
    return timed(
        [&] { ops_.attention(lanes_, out(q), out(B * H * T), in(q), in(k), in(k), B, T, H, G, hd); });
  return timed([&] {
    ops_.attention_dx(lanes_, out(q), out(k), out(k), in(q), in(q), in(k), in(k), in(q), in(B * H * T), B, T,
                      H, G, hd);
  });
}

// The embedding and the loss. Tokens are drawn from the rows that are there.
Sample KernelBench::ends(const std::string& kernel, const std::vector<i64>& x) {
  const i64 M = kernel == "ce_loss" ? x[0] * x[1] : x[0], D = x[1];
  if (M > kIds) throw std::logic_error("a kernel too large to be timed");
  const bool embeds = kernel.starts_with("embed");
  const i64 first = embeds ? x[2] : 0, rows = embeds ? x[3] : D;
  unsigned state = 1;  // a linear congruential generator (Knuth, The Art of Computer Programming 2, 3.3.4)
  for (i64 i = 0; i < M; ++i)
    ids_[static_cast<std::size_t>(i)] =
        static_cast<i32>(first + ((state = state * 1664525u + 1013904223u) >> 8) % std::max<i64>(1, rows));
  if (kernel == "embed")
    return timed([&] { ops_.embed(lanes_, out(M * D), in(rows * D), ids_.data(), M, D, first, rows); });
  if (kernel == "embed_dw")
    return timed(
        [&] { ops_.embed_dw(lanes_, out(rows * D), in(M * D), ids_.data(), M, D, first, rows, x[4] != 0); });
  if (kernel == "ce_max") return timed([&] { ops_.ce_max(lanes_, out(M), in(M * D), M, D, x[2]); });
  if (kernel == "ce_sum")
    return timed(
        [&] { ops_.ce_sum(lanes_, out(M), out(M), in(M * D), in(M), ids_.data(), M, D, x[2], x[3], x[4]); });
  if (kernel == "ce_loss") {
    std::vector<double> loss(static_cast<std::size_t>(x[0]));
    return timed([&] { ops_.ce_loss(lanes_, loss.data(), in(M), in(M), in(M), ids_.data(), x[0], x[1]); });
  }
  return timed([&] { ops_.ce_dx(lanes_, out(M * D), in(M), in(M), ids_.data(), M, D, x[2], x[3], 0.f); });
}

Sample KernelBench::rows(const std::string& kernel, const std::vector<i64>& x) {
  const i64 M = x[0], D = x[1];
  if (kernel == "rms_norm")
    return timed([&] { ops_.rms_norm(lanes_, out(M * D), out(M), in(M * D), in(D), M, D, 1e-5); });
  if (kernel == "rms_norm_dx")
    return timed([&] { ops_.rms_norm_dx(lanes_, out(M * D), in(M * D), in(M * D), in(M), in(D), M, D); });
  if (kernel == "rms_norm_dw")
    return timed(
        [&] { ops_.rms_norm_dw(lanes_, out(D), in(M * D), in(M * D), in(M), M, D, x[2], x[3] != 0); });
  const i64 T = x[1], heads = x[2], hd = x[3];
  std::vector<float> cosines(static_cast<std::size_t>(T * hd / 2 + 1), 0.6f), sines(cosines.size(), 0.8f);
  return timed([&] {
    ops_.rope(lanes_, out(M * heads * hd), cosines.data(), sines.data(), M, T, heads, hd, x[4] != 0);
  });
}

// Sums and steps in place, as a trainer has them.
Sample KernelBench::elements(const std::string& kernel, i64 n) {
  std::fill(written_.numbers.begin(), written_.numbers.begin() + written_.far + std::min(kMost, 4 * n),
            0.25f);
  if (kernel == "swiglu") return timed([&] { ops_.swiglu(lanes_, out(n), in(n), in(n), n); });
  if (kernel == "swiglu_dx")
    return timed([&] { ops_.swiglu_dx(lanes_, out(n), out(n), in(n), in(n), in(n), n); });
  if (kernel == "add")
    return timed([&] {
      float* sum = out(n);
      ops_.add(lanes_, sum, sum, in(n), n);
    });
  if (kernel == "scale") return timed([&] { ops_.scale(lanes_, out(n), 1.f, n); });
  if (kernel == "copy") return timed([&] { ops_.copy(lanes_, out(n), in(n), n); });
  if (kernel == "zero") return timed([&] { ops_.zero(lanes_, out(n), n); });
  if (kernel == "add_squares") return timed([&] { ops_.add_squares(lanes_, words_.data(), in(n), n); });
  if (kernel != "adamw") throw std::logic_error("no bench for " + kernel);
  const AdamWStep<float> step{1.f, 0.9f, 0.1f, 0.95f, 0.05f, 1.f, 1e-8f, 0.f};
  return timed([&] { ops_.adamw(lanes_, out(n), out(n), out(n), in(n), n, step); });
}

}  // namespace lockstep
