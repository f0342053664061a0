// Everything a run is made of besides the model and the text.
#pragma once
#include "kernels/lanes.hpp"

namespace lockstep {

struct Settings {
  i64 batch = 8;  // sequences per optimizer step, over all devices
  i64 seq = 64;   // T
  i64 steps = 3;
  i64 seed = 1;
  i64 leaves = 8;    // R, see kernels/EXACT.md
  i64 segments = 1;  // P, of a sequence: weights' gradients are sums over segments, see kernels/EXACT.md
  // Sums in any order, where that is cheaper than the canonical one (kernels/EXACT.md, fast mode). What is
  // compared with the reference; the reference itself has one order only.
  bool fast = false;
  // Bytes of a number, by what it is for. 2 (bf16 beside float32 master weights, as in mixed-precision
  // training) can be traced and priced; to compute with it needs a device with such kernels.
  int weight_bytes = 4, gradient_bytes = 4, activation_bytes = 4;
  double lr = 1e-3, min_ratio = 0.1;
  i64 warmup = 2;
  i64 total = 0;  // steps of the learning-rate schedule; 0: `steps`
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip = 1.0;
  double ignore = 0.25;  // up to this part of a sequence's first labels is ignored (a prompt), by sample
};

// Linear warm-up, then cosine from lr to lr * min_ratio. `step` counts from 0.
double learning_rate(const Settings&, i64 step);

}  // namespace lockstep
