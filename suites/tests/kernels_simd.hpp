// What the tests of vector kernels share: inputs, outputs with guarded edges, and a comparison bit by bit.
#pragma once
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/ops.hpp"

namespace lockstep::simd_test {

// The sizes at which vectors, tiles and lanes of 16 have their edges.
inline const std::vector<i64> kSizes{1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 48, 49, 63, 65, 100};
inline const std::vector<i64> kLeaves{1, 2, 8, 64};
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Random {
 public:
  explicit Random(unsigned seed) : bits_(seed) {}
  i64 pick(const std::vector<i64>& from) { return from[bits_() % from.size()]; }
  i64 below(i64 n) { return static_cast<i64>(bits_() % static_cast<std::uint64_t>(n)); }
  float value(float range) { return range * (static_cast<float>(bits_() >> 8) * 0x1p-23f - 1.0f); }
  std::vector<float> values(i64 n, float range = 1.0f) {
    std::vector<float> x(static_cast<std::size_t>(n));
    for (float& a : x) a = value(range);
    return x;
  }
  // Any finite float, denormals included, with |x| <= 2^top.
  std::vector<float> any_values(i64 n, int top = 127) {
    std::vector<float> x(static_cast<std::size_t>(n));
    for (float& a : x) a = std::ldexp(value(1.0f), static_cast<int>(below(top + 150)) - 149);
    return x;
  }

 private:
  std::mt19937 bits_;
};

// Of M rows, for vocabulary columns [first, first + V): a third there, the others elsewhere; one ignored.
inline std::vector<i32> random_labels(Random& random, i64 M, i64 V, i64 first) {
  std::vector<i32> labels(static_cast<std::size_t>(M));
  for (i32& label : labels) label = static_cast<i32>(random.below(3 * V) + first - V);
  labels[3] = -100;
  return labels;
}

// n numbers to be written, with a wide margin before and after that nobody may touch.
template <class X>
class OutputOf {
 public:
  explicit OutputOf(i64 n) : OutputOf(std::vector<X>(static_cast<std::size_t>(n), X(77.0f))) {}
  explicit OutputOf(const std::vector<X>& x) : all_(x.size() + 2 * kMargin, X(kUntouched)) {
    std::copy(x.begin(), x.end(), all_.begin() + kMargin);
  }
  X* data() { return all_.data() + kMargin; }
  const X* data() const { return all_.data() + kMargin; }
  i64 size() const { return static_cast<i64>(all_.size() - 2 * kMargin); }
  bool margin_untouched() const {
    for (std::size_t i = 0; i < kMargin; ++i)
      if (float{all_[i]} != kUntouched || float{all_[all_.size() - 1 - i]} != kUntouched) return false;
    return true;
  }

 private:
  static constexpr std::size_t kMargin = 64;
  static constexpr float kUntouched = -12352.0f;  // bf16 has it
  std::vector<X> all_;
};
using Output = OutputOf<float>;

// -0 counts as +0, and every NaN as one.
inline std::uint32_t comparable_bits(float x) {
  if (x == 0.0f) return 0;
  if (std::isnan(x)) return 0x7fc00000;
  return std::bit_cast<std::uint32_t>(x);
}

// Rows of `width`, to name the first place that differs.
template <class X>
testing::AssertionResult same(const OutputOf<X>& plain, const OutputOf<X>& simd, i64 width,
                              const char* name) {
  for (i64 i = 0; i < plain.size(); ++i)
    if (comparable_bits(plain.data()[i]) != comparable_bits(simd.data()[i]))
      return testing::AssertionFailure() << name << "[" << i / width << ", " << i % width << "]: plain "
                                         << testing::PrintToString(float{plain.data()[i]}) << ", simd "
                                         << testing::PrintToString(float{simd.data()[i]});
  if (!simd.margin_untouched()) return testing::AssertionFailure() << name << ": written outside";
  return testing::AssertionSuccess();
}

inline const Ops<float>& plain() {
  static const Ops<float> ops = plain_ops<float>();
  return ops;
}
inline Lanes& one_lane() {
  static Lanes lanes(1);
  return lanes;
}

// f(ops, lanes) for every set that runs here, by itself, with one, two and three lanes.
template <class F>
void for_every_set(F f) {
  static Lanes two(2), three(3);
  for (const KernelSet* set : kernel_sets()) {
    if (!set->runs_here()) continue;
    Ops<float> ops = plain();
    set->apply(ops);
    for (Lanes* lanes : {&one_lane(), &two, &three}) {
      if (set->speed < 0 && lanes->count() > 1)
        continue;  // a GPU's kernels, in loops: slow, and without lanes
      SCOPED_TRACE(std::string(set->name) + ", " + std::to_string(lanes->count()) + " lanes");
      f(ops, *lanes);
      if (testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace lockstep::simd_test
