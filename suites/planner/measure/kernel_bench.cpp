#include "suites/planner/measure/kernel_bench.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "kernels/extents.hpp"
#include "kernels/normal.hpp"

namespace lockstep {

namespace {

// A number that is none of the small ones which take longer, read as bf16 too.
const std::vector<float>& quarters() {
  static const std::vector<float> all(std::size_t{1} << 20, 0.25f);
  return all;
}

// Normal numbers, two in bf16 or about the first of them in float32: a GPU's power, and with it the clock
// that it keeps, depends on the bits that its products see.
const std::vector<float>& halves_of_normals() {
  static const std::vector<float> all = [] {
    constexpr std::size_t n = std::size_t{1} << 20;
    std::vector<float> normals(2 * n), pairs(n);
    normal_numbers(1, 0, 2 * n, 1, normals.data());
    const std::vector<bf16> halves(normals.begin(), normals.end());
    std::memcpy(pairs.data(), halves.data(), n * sizeof(float));
    return pairs;
  }();
  return all;
}

}  // namespace

KernelBench::KernelBench(const std::string& isa, int threads, double far, i64 most)
    : KernelBench(nullptr, cpu_ops(isa), std::make_unique<Lanes>(threads), far, most) {}

KernelBench::KernelBench(Engine& engine, double far, i64 most)
    : KernelBench(&engine, engine.ops(), nullptr, far, most) {}

KernelBench::KernelBench(Engine* engine, const Ops<float>& ops, std::unique_ptr<Lanes> own_lanes, double far,
                         i64 most)
    : engine_(engine),
      ops_(ops),
      own_lanes_(std::move(own_lanes)),
      lanes_(engine ? engine->lanes() : *own_lanes_),
      most_(most),
      words_(memory<i64>(kSquareWords)) {
  const i64 half = static_cast<i64>(far / sizeof(float)) / 2, size = half + most;
  for (Ring* ring : {&read_, &written_}) {
    *ring = {memory<float>(size), half, size};
    fill(*ring, size, engine_ && ring == &read_ ? halves_of_normals() : quarters());
  }
  const std::vector<i64> zeros(kSquareWords);
  put(words_, zeros.data(), kSquareWords * static_cast<i64>(sizeof(i64)));
}

template <class T>
T* KernelBench::memory(i64 n) {
  const i64 bytes = n * static_cast<i64>(sizeof(T));
  if (engine_) return static_cast<T*>(engine_->allocate(Medium::device, bytes));
  own_.push_back(std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(bytes / 8 + 1)));
  return reinterpret_cast<T*>(own_.back().get());
}

void KernelBench::put(void* to, const void* from, i64 bytes) {
  if (engine_)
    engine_->upload(to, from, bytes);
  else
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

void KernelBench::fill(const Ring& ring, i64 n, const std::vector<float>& with) {
  const i64 chunk = static_cast<i64>(with.size());
  for (i64 at = 0; at < n; at += chunk)
    put(ring.numbers + at, with.data(), std::min(chunk, n - at) * static_cast<i64>(sizeof(float)));
}

void KernelBench::Ring::next_call() {
  if (at >= far) at = 0;
}

float* KernelBench::Ring::take(i64 n) {
  float* place = numbers + at;
  at += (n + 15) / 16 * 16;
  if (at > size) throw std::logic_error("a kernel too large to be timed");
  return place;
}

i64 KernelBench::operands(const std::string& kernel, const std::vector<double>& x) {
  const std::vector<i64> all = extents_of(kernel.c_str(), x);
  return std::accumulate(all.begin(), all.end(), 64 * static_cast<i64>(all.size()));
}

template <class Call>
Sample KernelBench::timed(const Call& call) {
  read_.at = written_.at = 0;
  return sample(
      [&] {
        read_.next_call(), written_.next_call();
        call();
      },
      [&] {
        i64 word;
        if (engine_) engine_->download(&word, words_, sizeof word);
      },
      5, batch_seconds_);
}

template <class... P, class... A>
void KernelBench::call(const Op<P...>& op, A... a) {
  halves_ ? op.mixed(lanes_, halves_, static_cast<P>(a)...) : op.call(lanes_, static_cast<P>(a)...);
}

Sample KernelBench::time(const std::string& kernel, const std::vector<double>& numbers, double batch_seconds,
                         unsigned halves) {
  batch_seconds_ = batch_seconds, halves_ = halves;
  const std::vector<i64> x(numbers.begin(), numbers.end());
  if (kernel.starts_with("matmul")) return matmuls(kernel, x);
  if (kernel.starts_with("attention")) return attentions(kernel, x);
  if (kernel.starts_with("embed") || kernel.starts_with("ce_")) return ends(kernel, x);
  if (kernel.starts_with("rms_norm") || kernel == "rope" || kernel == "swap_axes" ||
      kernel.ends_with("_rows"))
    return rows(kernel, x);
  return elements(kernel, x[0]);
}

Sample KernelBench::matmuls(const std::string& kernel, const std::vector<i64>& x) {
  if (kernel == "matmul") {
    const i64 M = x[0], N = x[1], K = x[2];
    return timed([&] { call(ops_.matmul, out(M * N), in(M * K), in(N * K), M, N, K, x[3]); });
  }
  if (kernel == "matmul_dw") {
    const i64 T = x[0], N = x[1], K = x[2];
    return timed([&] { call(ops_.matmul_dw, out(N * K), in(T * N), in(T * K), T, N, K, x[3] != 0); });
  }
  const i64 M = x[6], K = x[7];
  const auto dy = [&](int i) { return x[2 * i + 1] ? in(M * x[2 * i]) : nullptr; };
  const auto w = [&](int i) { return x[2 * i + 1] ? in(x[2 * i + 1] * K) : nullptr; };
  return timed([&] {
    call(ops_.matmul_dx, out(M * K), dy(0), x[0], w(0), x[1], dy(1), x[2], w(1), x[3], dy(2), x[4], w(2),
         x[5], M, K, x[8]);
  });
}

Sample KernelBench::attentions(const std::string& kernel, const std::vector<i64>& x) {
  const i64 B = x[0], T = x[1], H = x[2], G = x[3], hd = x[4];
  const i64 q = B * T * H * hd, k = B * T * G * hd;
  if (kernel == "attention")
    return timed([&] { call(ops_.attention, out(q), out(B * H * T), in(q), in(k), in(k), B, T, H, G, hd); });
  return timed([&] {
    call(ops_.attention_dx, out(q), out(k), out(k), in(q), in(q), in(k), in(k), in(q), in(B * H * T), B, T, H,
         G, hd);
  });
}

// The embedding and the loss. Tokens are drawn from the rows that are there.
Sample KernelBench::ends(const std::string& kernel, const std::vector<i64>& x) {
  const i64 M = kernel == "ce_loss" ? x[0] * x[1] : x[0], D = x[1];
  const bool embeds = kernel.starts_with("embed");
  const i64 first = embeds ? x[2] : 0, rows = embeds ? x[3] : D;
  unsigned state = 1;  // a linear congruential generator (Knuth, The Art of Computer Programming 2, 3.3.4)
  std::vector<i32> ids(static_cast<std::size_t>(M));
  for (i32& id : ids)
    id = static_cast<i32>(first + ((state = state * 1664525u + 1013904223u) >> 8) % std::max<i64>(1, rows));
  auto* ids_at = memory<i32>(M);
  put(ids_at, ids.data(), M * static_cast<i64>(sizeof(i32)));
  if (kernel == "embed")
    return timed([&] { call(ops_.embed, out(M * D), in(rows * D), ids_at, M, D, first, rows); });
  if (kernel == "embed_dw")
    return timed(
        [&] { call(ops_.embed_dw, out(rows * D), in(M * D), ids_at, M, D, first, rows, x[4] != 0); });
  if (kernel == "ce_max") return timed([&] { call(ops_.ce_max, out(M), in(M * D), M, D, x[2]); });
  if (kernel == "ce_sum")
    return timed(
        [&] { call(ops_.ce_sum, out(M), out(M), in(M * D), in(M), ids_at, M, D, x[2], x[3], x[4]); });
  if (kernel == "ce_loss")
    return timed([&] {
      auto* loss = reinterpret_cast<double*>(out(2 * x[0]));
      call(ops_.ce_loss, loss, in(M), in(M), in(M), ids_at, x[0], x[1]);
    });
  return timed([&] { call(ops_.ce_dx, out(M * D), in(M), in(M), ids_at, M, D, x[2], x[3], 0.f); });
}

Sample KernelBench::rows(const std::string& kernel, const std::vector<i64>& x) {
  const i64 M = x[0], D = x[1];
  if (kernel == "rms_norm")
    return timed([&] { call(ops_.rms_norm, out(M * D), out(M), in(M * D), in(D), M, D, 1e-5); });
  if (kernel == "rms_norm_dx")
    return timed([&] { call(ops_.rms_norm_dx, out(M * D), in(M * D), in(M * D), in(M), in(D), M, D); });
  if (kernel == "rms_norm_dw")
    return timed([&] { call(ops_.rms_norm_dw, out(D), in(M * D), in(M * D), in(M), M, D, x[2], x[3] != 0); });
  if (kernel == "swap_axes") {
    const i64 n = x[0] * x[1] * x[2] * x[3];
    return timed([&] { call(ops_.swap_axes, out(n), in(n), x[0], x[1], x[2], x[3]); });
  }
  if (kernel == "repeat_rows")
    return timed([&] { call(ops_.repeat_rows, out(M * D * x[2]), in(M * x[2]), M, D, x[2]); });
  if (kernel == "sum_rows")
    return timed([&] { call(ops_.sum_rows, out(M * x[2]), in(M * D * x[2]), M, D, x[2]); });
  const i64 T = x[1], heads = x[2], hd = x[3];
  const i64 half = T * hd / 2;
  std::vector<float> turn(static_cast<std::size_t>(2 * half), 0.6f);
  std::fill(turn.begin() + half, turn.end(), 0.8f);
  auto* cosines = memory<float>(2 * half);
  put(cosines, turn.data(), 2 * half * static_cast<i64>(sizeof(float)));
  return timed(
      [&] { call(ops_.rope, out(M * heads * hd), cosines, cosines + half, M, T, heads, hd, x[4] != 0); });
}

// Sums and steps in place, as a trainer has them.
Sample KernelBench::elements(const std::string& kernel, i64 n) {
  fill(written_, written_.far + std::min(most_, 4 * n), quarters());
  if (kernel == "swiglu") return timed([&] { call(ops_.swiglu, out(n), in(n), in(n), n); });
  if (kernel == "swiglu_dx")
    return timed([&] { call(ops_.swiglu_dx, out(n), out(n), in(n), in(n), in(n), n); });
  if (kernel == "add")
    return timed([&] {
      float* sum = out(n);
      call(ops_.add, sum, sum, in(n), n);
    });
  if (kernel == "copy") return timed([&] { call(ops_.copy, out(n), in(n), n); });
  if (kernel == "zero") return timed([&] { call(ops_.zero, out(n), n); });
  if (kernel == "add_squares") return timed([&] { call(ops_.add_squares, words_, in(n), n); });
  if (kernel != "adamw") throw std::logic_error("no bench for " + kernel);
  const AdamWStep<float> step{1.f, 0.9f, 0.1f, 0.95f, 0.05f, 1.f, 1e-8f, 0.f};
  return timed([&] { call(ops_.adamw, out(n), out(n), out(n), in(n), n, 1.f, step); });
}

}  // namespace lockstep
