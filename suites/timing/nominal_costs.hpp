// What kernels, messages and copies would cost on a nominal device: one rate for each thing. Nothing here is
// measured; it is for pictures of a step, which say so, until a measured model takes its place.
#pragma once
#include <string>

#include "parallel/trace/simulate.hpp"

namespace lockstep {

// Operations and bytes a second. An accelerator's arithmetic is some thousand times a link's bytes, and its
// models are 4096 wide; the small suites' are 64 wide, and do about that much less arithmetic for a byte
// sent. So 10 operations to a byte make their steps look as a large model's do.
struct NominalRates {
  double flops = 50e9;            // matmul and attention
  double memory = 20e9;           // all other kernels: bytes read and written
  double link = 5e9;              // of a rank to the others
  double host = 5e9, disk = 1e9;  // copies to and from
};

// A collective is a ring (Thakur et al. 2005, section 4): all_reduce moves 2 (n-1)/n of its bytes over each
// link. Nothing costs anything to begin.
Costs nominal_costs(const NominalRates& = {});

// "50 GFLOP/s, 20 GB/s of memory, ...": what a picture must say.
std::string nominal_text(const NominalRates& = {});

}  // namespace lockstep
