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
//   loss              |l - l64| at most kFastMultiple r + kFastFloor |l64|: r, what rounding does, see below
//   gradients         |g - g64| at most (kFastMultiple r + kFastFloor) |g64|. r: the largest part of
//                     a float64 gradient by which the reference's in float32 was off, of all tensors of that
//                     name in any layer, up to this step, at these weights and twice at some that differ in
//                     their last bits. One tensor's own may come out small by chance, and there are many.
//                     Where rounding is more than reference_bound() of it, a gradient is not judged
//   gradient norm     of the dump's own gradients, to what a sum of squares in float32 may be off
//   weights after it  AdamW on the dump's own gradients from zero moments (suites/certify/adamw_variants.hpp)
// What was judged is counted, what the dump lacks for it is said, and what AdamW could not be told from.
// UserError: not a dump, one of another version or layout, with a step left out, or without gradients.
// at(part): called as steps are done.
Certificate certify(
    const std::string& dump, int threads = 1, const std::function<void(double)>& at = [](double) {});

}  // namespace lockstep
