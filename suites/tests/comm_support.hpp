// What the communicator's tests share: values whose sums depend on their order, and a tree of their own.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "parallel/comm/comm.hpp"

namespace lockstep::test {

template <class T>
constexpr Type type_of() {
  if constexpr (std::is_same_v<T, float>) return Type::f32;
  if constexpr (std::is_same_v<T, double>) return Type::f64;
  if constexpr (std::is_same_v<T, i64>) return Type::i64;
  return Type::i32;
}

// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
inline std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Magnitudes from 2^-12 to 2^12 with random signs, so that another order gives other bits.
template <class T>
std::vector<T> values(i64 n, std::uint64_t seed) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (T& x : v) {
    const std::uint64_t bits = next_random(seed);
    const int sign = bits % 2 ? 1 : -1;
    if constexpr (std::is_integral_v<T>) {
      x = static_cast<T>(bits >> (sizeof(T) == 8 ? 6 : 40)) * sign;  // small enough to be summed
    } else {
      const double mantissa = 1.0 + static_cast<double>(bits >> 12) * 0x1p-52;
      const double scale = static_cast<double>(i64{1} << (bits >> 1) % 25) * 0x1p-12;
      x = static_cast<T>(sign * mantissa * scale);
    }
  }
  return v;
}

template <class T>
T join(Reduce reduce, T a, T b) {
  if (reduce == Reduce::max) return std::max(a, b);
  return static_cast<T>(a + b);
}

// tree(lo, hi) of EXACT.md over one element of every member's values.
template <class T>
T tree(Reduce reduce, const std::vector<std::vector<T>>& of, std::size_t element, std::size_t lo,
       std::size_t hi) {
  if (hi - lo == 1) return of[lo][element];
  const std::size_t mid = lo + (hi - lo) / 2;
  return join(reduce, tree(reduce, of, element, lo, mid), tree(reduce, of, element, mid, hi));
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
bool poisoned(T x) {
  if constexpr (std::is_floating_point_v<T>)
    return x != x;
  else
    return x > std::numeric_limits<T>::max() / 4 * 3;
}

inline void finish(Comm& comm, const Message& m) { comm.wait(comm.start(m)); }

// The text of the CommError that this program ends in; "" if it ends well.
template <class World, class Body>
std::string error_of(World& world, Body&& body) {
  try {
    world.run(body);
  } catch (const CommError& e) {
    return e.what();
  }
  return "";
}

inline Message send_to(int peer, const void* in, i64 n, const char* what, int microbatch = -1, i64 tag = 0) {
  return {.verb = Verb::send,
          .axis = Axis::world,
          .peer = peer,
          .tag = tag,
          .in = in,
          .n = n,
          .what = what,
          .microbatch = microbatch};
}
inline Message recv_from(int peer, void* out, i64 n, const char* what, int microbatch = -1, i64 tag = 0) {
  return {.verb = Verb::recv,
          .axis = Axis::world,
          .peer = peer,
          .tag = tag,
          .out = out,
          .n = n,
          .what = what,
          .microbatch = microbatch};
}
inline Message sum_all(const void* in, void* out, i64 n, const char* what, int microbatch = -1) {
  return {.verb = Verb::all_reduce,
          .axis = Axis::world,
          .reduce = Reduce::sum,
          .in = in,
          .out = out,
          .n = n,
          .what = what,
          .microbatch = microbatch};
}

// The tests of one file that must hold under both timings; each file derives a suite of its own.
class BothTimings : public ::testing::TestWithParam<Timing> {};
inline auto both_timings() { return ::testing::Values(Timing::eager, Timing::lazy); }
inline std::string timing_name(const ::testing::TestParamInfo<Timing>& timing) {
  return timing.param == Timing::eager ? "eager" : "lazy";
}

}  // namespace lockstep::test
