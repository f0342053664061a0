// A training run that another program wrote down (reports/schema.md, "Dump"), judged as fast mode judges a
// plan: each step from the dump's own weights, its gradients by their distance from float64.
#pragma once
#include <string>

#include "kernels/lanes.hpp"

namespace lockstep {

struct Certificate {
  bool right = false;
  std::string text;  // "within the bound: ...", or the first thing beyond it, in order of computation
};

// What is judged of each step, as far as the dump holds it:
//   loss, gradients   fast mode's bound (suites/gates/fast.hpp) at the weights that the step begins with
//   gradient norm     of the dump's own gradients, to 2^-18
//   weights after it  AdamW on the dump's own gradients from zero moments, in float64: |w - w64| at most
//                     kFastMultiple |w32 - w64| + kFastFloor |w64|; w32: this program's AdamW in float32
// What was judged is counted, and what the dump lacks for it is said.
// UserError: not a dump, one of another version or layout, with a step left out, or without gradients.
Certificate certify(const std::string& dump);

}  // namespace lockstep
