// A training run that another program wrote down (reports/schema.md, "Dump"), judged as fast mode judges a
// plan: each step from the dump's own weights, its gradients by their distance from float64.
#pragma once
#include <functional>
#include <string>

#include "kernels/lanes.hpp"

namespace lockstep {

struct Certificate {
  bool right = false;
  bool complete = false;  // nothing was left unjudged or untold
  std::string text;       // "within the bound: ...", or the first thing beyond it, in order of computation
};

// What is judged of each step, as far as the dump holds it:
//   loss              fast mode's bound (suites/gates/fast.hpp) at the weights that the step begins with
//   gradients         |g - g64| at most (kFastMultiple r + kFastFloor) |g64|. r is rounding: the largest part
//                     of a float64 gradient by which the reference's in float32 was off, of all tensors of
//                     that name in any layer, up to this step, at these weights and at some that differ in
//                     their last bits: one tensor's own may come out small by chance, and there are many
//   gradient norm     of the dump's own gradients, to 2^-18
//   weights after it  AdamW on the dump's own gradients from zero moments (suites/adamw_variants.hpp)
// What was judged is counted, what the dump lacks for it is said, and what AdamW could not be told from.
// UserError: not a dump, one of another version or layout, with a step left out, or without gradients.
// at(part): called as steps are done.
Certificate certify(
    const std::string& dump, int threads = 1, const std::function<void(double)>& at = [](double) {});

}  // namespace lockstep
