// What was done in a step, in its order, as one number: where two differ, so do the steps.
#pragma once
#include <bit>
#include <cstdint>

#include "kernels/ops.hpp"

namespace lockstep {

class Fingerprint {
 public:
  void begin() { value_ = kBegin; }
  void add(i64 number) { value_ = std::rotl((value_ ^ static_cast<std::uint64_t>(number)) * kPrime, 29); }
  void add(const char* text) {
    for (; *text; ++text) value_ = (value_ ^ static_cast<unsigned char>(*text)) * kPrime;
    add(i64{0});
  }
  std::uint64_t value() const { return value_; }

 private:
  // Fowler, Noll and Vo's hash (FNV-1a), turned after each number so that high bits count too.
  static constexpr std::uint64_t kBegin = 0xcbf29ce484222325, kPrime = 0x100000001b3;
  std::uint64_t value_ = kBegin;
};

}  // namespace lockstep
