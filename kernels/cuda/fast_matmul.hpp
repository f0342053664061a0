// The three matmuls as products of column-major matrices, which is what BLAS libraries multiply: a row-major
// matrix is its transpose in column-major order, and y = x w^T becomes y^T = w x^T.
#pragma once
#include <stdexcept>

#include "kernels/ops.hpp"

namespace lockstep::cuda {

// out[m,n] = op(first)[m,k] op(second)[k,n] + keep * out, all column-major; a leading dimension is the
// elements from one column to the next, op transposes.
struct Product {
  void* out;
  const void *first, *second;
  i64 m, n, k;
  i64 ld_out, ld_first, ld_second;
  bool transpose_first, transpose_second;
  bool keep;           // what is in out is added to
  bool half, to_half;  // operands are bf16; out is
};

// Blas::multiply(product) is false where it knows no way; so are these, and for what is empty: then the exact
// kernel has to do it.
template <class Y, class X, class Blas>
bool multiply_matmul(Blas& blas, Y* y, const X* x, const X* w, i64 M, i64 N, i64 K) {
  if (M < 1 || N < 1 || K < 1) return false;
  return blas.multiply({y, w, x, N, M, K, N, K, K, true, false, false, sizeof(X) == 2, sizeof(Y) == 2});
}

template <class X>
struct GradientPiece {
  const X* dy;
  i64 ld;
  const X* w;
  i64 n;
};
// Pieces are added in what dx is stored as: bf16 is rounded once for each.
template <class Y, class X, class Blas>
bool multiply_matmul_dx(Blas& blas, Y* dx, const GradientPiece<X> (&pieces)[3], i64 M, i64 K) {
  if (M < 1 || K < 1 || pieces[0].n + pieces[1].n + pieces[2].n < 1) return false;
  bool keep = false;
  for (const GradientPiece<X>& p : pieces) {
    if (p.n < 1) continue;
    if (!blas.multiply(
            {dx, p.w, p.dy, K, M, p.n, K, K, p.ld, false, false, keep, sizeof(X) == 2, sizeof(Y) == 2})) {
      if (keep)
        throw std::runtime_error("the library multiplies the first of several pieces, and not the next");
      return false;
    }
    keep = true;
  }
  return true;
}

template <class X, class Blas>
bool multiply_matmul_dw(Blas& blas, float* dw, const X* dy, const X* x, i64 T, i64 N, i64 K, bool add) {
  if (T < 1 || N < 1 || K < 1) return false;
  return blas.multiply({dw, x, dy, K, N, T, K, K, N, false, true, add, sizeof(X) == 2, false});
}

}  // namespace lockstep::cuda
