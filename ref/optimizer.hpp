// Global-norm clipping and AdamW (Loshchilov & Hutter 2019), in PyTorch's order of operations.
#pragma once
#include "kernels/ops.hpp"
#include "ref/settings.hpp"

namespace lockstep {

// clip / (norm + 1e-6), at most 1; computed in double.
double clip_scale(const Settings&, double norm);

// The scalars of step `step` (from 0); decayed: whether weight decay applies to the tensor.
template <class T>
AdamWStep<T> adamw_step(const Settings&, i64 step, bool decayed);

}  // namespace lockstep
