// Fast mode's kernels element by element: one pass over the operands, eight numbers a thread.
#pragma once
#include "kernels/cuda/eights.hpp"

namespace lockstep::cuda::fast {

template <class On, class Y, class B>
bool add(Lanes& lanes, Y* y, const Y* a, const B* b, i64 n) {
  if (!in_eights(n, y, a, b)) return false;
  each_eight<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) {
    Eight sum = load(a + i);
    const Eight other = load(b + i);
    for (int j = 0; j < 8; ++j) sum.at[j] += other.at[j];
    store(y + i, sum);
  });
  return true;
}

template <class On, class Y, class X>
bool copy(Lanes& lanes, Y* y, const X* x, i64 n) {
  if (!in_eights(n, y, x)) return false;
  each_eight<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) { store(y + i, load(x + i)); });
  return true;
}

template <class On, class X>
bool swiglu(Lanes& lanes, X* a, const X* g, const X* u, i64 n) {
  if (!in_eights(n, a, g, u)) return false;
  each_eight<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) {
    Eight gate = load(g + i);
    const Eight up = load(u + i);
    for (int j = 0; j < 8; ++j) gate.at[j] = gate.at[j] * quick_sigmoid(gate.at[j]) * up.at[j];
    store(a + i, gate);
  });
  return true;
}

template <class On, class X>
bool swiglu_dx(Lanes& lanes, X* dg, X* du, const X* da, const X* g, const X* u, i64 n) {
  if (!in_eights(n, dg, du, da, g, u)) return false;
  each_eight<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const Eight grad = load(da + i), gate = load(g + i), up = load(u + i);
    Eight of_gate, of_up;
    for (int j = 0; j < 8; ++j) {
      const float sg = quick_sigmoid(gate.at[j]), silu = gate.at[j] * sg;
      of_gate.at[j] = grad.at[j] * up.at[j] * (sg + silu * (1.0f - sg));
      of_up.at[j] = grad.at[j] * silu;
    }
    store(dg + i, of_gate), store(du + i, of_up);
  });
  return true;
}

template <class On, class X>
bool rope(Lanes& lanes, X* x, const float* cos, const float* sin, i64 M, i64 T, i64 heads, i64 hd,
          bool inverse) {
  const i64 half = hd / 2, eights = half / 8;
  if (hd % 2 != 0 || !in_eights(half, x, cos, sin)) return false;
  each<On>(lanes, M * heads * eights, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const i64 j = i % eights * 8, row = i / eights, t = row / heads % T;
    X* const low = x + row * hd + j;
    Eight a = load(low), b = load(low + half);
    const Eight c = load(cos + t * half + j), s = load(sin + t * half + j);
    for (int e = 0; e < 8; ++e) {
      const float with = inverse ? -s.at[e] : s.at[e], was = a.at[e];
      a.at[e] = std::fma(-b.at[e], with, was * c.at[e]);
      b.at[e] = std::fma(was, with, b.at[e] * c.at[e]);
    }
    store(low, a), store(low + half, b);
  });
  return true;
}

// The operations of exact mode, and its bits.
template <class On>
bool adamw(Lanes& lanes, float* w, float* m, float* v, const float* g, i64 n, float clip,
           AdamWStep<float> s) {
  if (!in_eights(n, w, m, v, g)) return false;
  each_eight<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) {
    Eight weight = load(w + i), first = load(m + i), second = load(v + i);
    const Eight whole = load(g + i);
    for (int j = 0; j < 8; ++j) {
      const float grad = clip * whole.at[j];
      first.at[j] = s.b1 * first.at[j] + s.c1 * grad;
      second.at[j] = s.b2 * second.at[j] + (s.c2 * grad) * grad;
      const float d = std::sqrt(second.at[j]) / s.root_bias2 + s.eps;
      weight.at[j] = weight.at[j] * s.keep - s.rate * (first.at[j] / d);
    }
    store(w + i, weight), store(m + i, first), store(v + i, second);
  });
  return true;
}

}  // namespace lockstep::cuda::fast
