// A training run that another program wrote down (reports/schema.md, "Dump"), judged step by
// step from the dump's own weights, its gradients by their distance from float64.
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
//   loss, gradients   by their distance from float64's (suites/certify/rounding.hpp); where rounding is more
//                     than reference_bound() of a gradient, it is not. In bf16 also by their scale, of each
//                     and of all together. For gradients beyond: which divisor
//                     explains them, or which batch counted otherwise (suites/certify/sequences.hpp)
//   gradient norm     of the dump's own gradients, to what a sum of squares in float32 may be off
//   weights after it  AdamW on the dump's own gradients from zero moments (suites/certify/adamw_variants.hpp)
// What was judged is counted, what the dump lacks for it is said, and what AdamW could not be told from.
// In float32, or in bf16 where the dump says so. One that does not say, and is beyond the bound, is held to
// that of bf16 too, and told.
// UserError: not a dump, one of another version or layout, with a step left out, or without gradients.
// at(part): called as steps are done.
Certificate certify(
    const std::string& dump, int threads = 1, const std::function<void(double)>& at = [](double) {});

}  // namespace lockstep
