// The plain kernels: the specification of every operation in code (EXACT.md says the same in words).
// Each file fills its entries of the table. Argument names are those of ops.hpp. A kernel is a template over
// what its operands are stored as, and computes in Real = Wide of it: float for bf16, else the same.
#pragma once
#include <cmath>

#include "kernels/exact_math.hpp"
#include "kernels/ops.hpp"
#include "kernels/plain/mixed.hpp"

namespace lockstep::plain {

template <class Real>
void fill_matmul(Ops<Real>& ops);
template <class Real>
void fill_embed(Ops<Real>& ops);
template <class Real>
void fill_norm(Ops<Real>& ops);
template <class Real>
void fill_rope(Ops<Real>& ops);
template <class Real>
void fill_attention(Ops<Real>& ops);
template <class Real>
void fill_swiglu(Ops<Real>& ops);
template <class Real>
void fill_cross_entropy(Ops<Real>& ops);
template <class Real>
void fill_elementwise(Ops<Real>& ops);
template <class Real>
void fill_squares(Ops<Real>& ops);
template <class Real>
void fill_adamw(Ops<Real>& ops);

template <class Real>
void fill(Ops<Real>& ops) {
  fill_matmul(ops);
  fill_embed(ops);
  fill_norm(ops);
  fill_rope(ops);
  fill_attention(ops);
  fill_swiglu(ops);
  fill_cross_entropy(ops);
  fill_elementwise(ops);
  fill_squares(ops);
  fill_adamw(ops);
}

void normal_numbers(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values);

// Grains of Lanes::split: whole cache lines, and enough work to be worth waking a thread.
inline constexpr i64 kColumnGrain = 16;
inline constexpr i64 kElementGrain = 4096;

// Columns that accumulate side by side in scratch: it has room for a row of them per level of any tree.
inline constexpr i64 kBlock = 512;

template <class Real>
Real* scratch(const Lanes& lanes, int lane) {
  return static_cast<Real*>(lanes.scratch(lane));
}

// Elements of Real that fit a lane's scratch.
template <class Real>
inline constexpr i64 kScratch = static_cast<i64>(Lanes::kScratchBytes / sizeof(Real));

// chain over i of a[i] * b[i]
template <class A, class B>
Wide<A> dot(const A* a, const B* b, i64 n) {
  using Real = Wide<A>;
  Real sum = 0;
  for (i64 i = 0; i < n; ++i) sum = std::fma(Real{a[i]}, Real{b[i]}, sum);
  return sum;
}

// y[i] = x[i], rounded where y is stored as something narrower.
template <class Y, class X>
void store(const X* x, i64 n, Y* y) {
  for (i64 i = 0; i < n; ++i) y[i] = static_cast<Y>(x[i]);
}

}  // namespace lockstep::plain
