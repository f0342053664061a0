// Loops that treat every element by itself.
#pragma once
#include "kernels/cpu/vec_math.hpp"
#include "kernels/ops.hpp"

namespace lockstep::simd {

inline constexpr i64 kElementGrain = 4096;  // enough work to be worth waking a thread

// f(i, load, store) on vectors that cover [0, n) over the lanes: load(p) gives the elements at p + i,
// store(p, x) sets them. Whole vectors run without masks.
template <class V, class F>
void for_elements(Lanes& lanes, i64 n, F f) {
  lanes.split(n, kElementGrain, [&](i64 i, i64 end, int) {
    for (; i + V::kWidth <= end; i += V::kWidth)
      f([i](const auto* p) { return V::load(p + i); }, [i](auto* p, V x) { x.store(p + i); });
    if (i < end) {
      typename V::Mask m = V::first(end - i);
      f([i, m](const auto* p) { return V::load(p + i, m); }, [i, m](auto* p, V x) { x.store(p + i, m); });
    }
  });
}

template <class V, class Y, class B>
void add(Lanes& lanes, Y* y, const Y* a, const B* b, i64 n) {
  for_elements<V>(lanes, n, [=](auto load, auto store) { store(y, load(a) + load(b)); });
}

template <class V, class Y, class X>
void copy(Lanes& lanes, Y* y, const X* x, i64 n) {
  for_elements<V>(lanes, n, [=](auto load, auto store) { store(y, load(x)); });
}

// Shazeer, "GLU Variants Improve Transformer" (2020), equation 5.
template <class V>
LOCKSTEP_INLINE V sigmoid(V g) {
  return V::all(1.0f) / (V::all(1.0f) + exp(V::all(-0.0f) - g));  // -0 - g is -g, also for zeros
}

template <class V, class X>
void swiglu(Lanes& lanes, X* a, const X* g, const X* u, i64 n) {
  for_elements<V>(lanes, n, [=](auto load, auto store) {
    V gate = load(g);
    store(a, (gate * sigmoid(gate)) * load(u));
  });
}

template <class V, class X>
void swiglu_dx(Lanes& lanes, X* dg, X* du, const X* da, const X* g, const X* u, i64 n) {
  for_elements<V>(lanes, n, [=](auto load, auto store) {
    V one = V::all(1.0f), grad = load(da), gate = load(g), up = load(u);
    V sg = sigmoid(gate);
    store(dg, (grad * up) * (sg * (one + gate * (one - sg))));
    store(du, grad * (gate * sg));
  });
}

// Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
template <class V>
void adamw(Lanes& lanes, float* w, float* m, float* v, const float* g, i64 n, float clip,
           AdamWStep<float> step) {
  for_elements<V>(lanes, n, [=](auto load, auto store) {
    V grad = V::all(clip) * load(g);
    V mean = V::all(step.b1) * load(m) + V::all(step.c1) * grad;
    V square = V::all(step.b2) * load(v) + (V::all(step.c2) * grad) * grad;
    V d = V::sqrt(square) / V::all(step.root_bias2) + V::all(step.eps);
    store(m, mean);
    store(v, square);
    store(w, load(w) * V::all(step.keep) - V::all(step.rate) * (mean / d));
  });
}

}  // namespace lockstep::simd
