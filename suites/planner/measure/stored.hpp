// How a training's step stores what its kernels read and write.
#pragma once
#include <map>
#include <string>

#include "ref/settings.hpp"

namespace lockstep {

struct Stored {
  unsigned halves = 0;      // bit i: the kernel's argument i is bf16 (kernels/ops.hpp)
  double number_bytes = 4;  // of a number of its operands, on average
};
using StoredOperands = std::map<std::string, Stored>;  // by kernel

// As steps of a small model have it: of each kernel the call that moves most.
StoredOperands stored_operands(const Settings&);

}  // namespace lockstep
