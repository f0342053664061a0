// Launches a GPU's kernels in loops, here: block by block, phase by phase, thread by thread.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/frame.hpp"

namespace lockstep::simd_test {

struct Here {
  template <class Kernel>
  static void launch(Lanes&, const Kernel& kernel, i64 blocks, int threads, i64 shared_floats) {
    std::vector<double> shared(static_cast<std::size_t>(shared_floats / 2 + 1));  // aligned for 8 bytes
    std::vector<typename Kernel::State> states(static_cast<std::size_t>(threads));
    for (i64 block = 0; block < blocks; ++block) {
      std::fill(shared.begin(), shared.end(), std::nan(""));
      for (auto& state : states) state = {};
      const i64 phases = kernel.phases(block);
      for (i64 p = 0; p < phases; ++p)
        // Not in the order of threads: what one wrote in this phase, another must not need.
        for (int t = threads; t-- > 0;)
          kernel.phase(p, {block, t, threads, reinterpret_cast<float*>(shared.data())}, states[t]);
    }
  }
};

}  // namespace lockstep::simd_test
