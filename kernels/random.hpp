// Random numbers as a pure function of a key and a position, so that any of them can be made anywhere and
// in any order. The mixing function is SplitMix64's (Steele, Lea & Flood 2014).
#pragma once
#include <cstdint>

namespace lockstep {
namespace {  // as exact_math.hpp, and for its reason

// A bijection of 64-bit words that lets every input bit reach every output bit.
inline std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Word number `position` of the stream that belongs to `key`.
inline std::uint64_t random_word(std::uint64_t key, std::uint64_t position) {
  return mix(key + (position + 1) * 0x9e3779b97f4a7c15u);
}

// In [0, 1), a multiple of 2^-53.
inline double unit_interval(std::uint64_t word) { return static_cast<double>(word >> 11) * 0x1p-53; }

}  // namespace
}  // namespace lockstep
