// Normal numbers as a pure function of a key and a position, like the words of random.hpp that they are made
// of.
#pragma once
#include <cstdint>

#include "kernels/lanes.hpp"

namespace lockstep {

// values[i] = deviation * z, rounded once, where z is number first + i of the normal numbers (mean 0,
// deviation 1) that belong to `key`, i < n. The same bits on every machine, by its fma where it has one.
void normal_numbers(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values);

}  // namespace lockstep
