// The register block of every matmul here: a tile of C, rows x vectors, that runs a chain over k for each
// of its elements (EXACT.md, "chain"). Vectors lie across columns, so no chain is ever split.
//
//   C[i][j] = fma(A(i, k), B(k, j), C[i][j]) for k = 0, 1, ...
//
// A is read where it lies, by broadcast, with any two strides. B is packed: the tile's columns of each k
// side by side. This is the loop structure of Goto and van de Geijn, "Anatomy of High-Performance Matrix
// Multiplication" (2008), without packing A. What is stored as bf16 is widened first, and only a sum's last
// store rounds.
#pragma once
#include <type_traits>

#include "kernels/cpu/always_inline.hpp"
#include "kernels/lanes.hpp"

namespace lockstep::simd {

// A(i, k) = p[i * row + k * col]; only `rows` rows exist.
struct View {
  const float* p;
  i64 row, col;
  i64 rows;
};

template <class V, int Vectors>
struct Tile {
  static constexpr int kRows = V::kTileRows, kCols = Vectors * V::kWidth;
  static constexpr i64 kFloats = i64{kRows} * kCols;
  V c[kRows][Vectors];

  LOCKSTEP_INLINE void clear() {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) c[i][j] = V::zero();
  }
  LOCKSTEP_INLINE void load(const float* p, i64 ld) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) c[i][j] = V::load(p + i * ld + j * V::kWidth);
  }
  // What lies outside the matrix is not read.
  LOCKSTEP_INLINE void load(const float* p, i64 ld, i64 rows, i64 cols) {
    typename V::Mask last = V::first(cols - (Vectors - 1) * V::kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) {
        const float* q = p + (i < rows ? i : rows - 1) * ld + j * V::kWidth;
        c[i][j] = j < Vectors - 1 ? V::load(q) : V::load(q, last);
      }
  }
  LOCKSTEP_INLINE void store(float* p, i64 ld) const {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) c[i][j].store(p + i * ld + j * V::kWidth);
  }
  // this = left + this
  LOCKSTEP_INLINE void add(const float* left, i64 ld) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) c[i][j] = V::load(left + i * ld + j * V::kWidth) + c[i][j];
  }
  LOCKSTEP_INLINE void multiply(float s) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) c[i][j] = V::all(s) * c[i][j];
  }
  // Rows and columns outside the matrix are left alone.
  template <class Y>
  LOCKSTEP_INLINE void store(Y* p, i64 ld, i64 rows, i64 cols, bool add) const {
    typename V::Mask last = V::first(cols - (Vectors - 1) * V::kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      if (i >= rows) break;
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) {
        Y* q = p + i * ld + j * V::kWidth;
        if (j < Vectors - 1)
          (add ? V::load(q) + c[i][j] : c[i][j]).store(q);
        else
          (add ? V::load(q, last) + c[i][j] : c[i][j]).store(q, last);
      }
    }
  }

  // b: k rows of kCols floats, ldb apart. Rows beyond a.rows repeat the last one.
  LOCKSTEP_INLINE void chain(const View& a, const float* b, i64 ldb, i64 k) {
    const float* row[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) row[i] = a.p + (i < a.rows ? i : a.rows - 1) * a.row;
    i64 at = 0;
    for (; k > 0; --k, at += a.col, b += ldb) {
      V col[Vectors];
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) col[j] = V::load(b + j * V::kWidth);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        V x = V::all(row[i][at]);
#pragma GCC unroll 3
        for (int j = 0; j < Vectors; ++j) V::fma_into(c[i][j], x, col[j]);
      }
    }
  }
};

// Columns are cut in panels of whole vectors, at most V::kTileVectors each. Four vectors left become two
// and two: a panel of one runs out of load slots.
template <class V>
LOCKSTEP_INLINE i64 panel_vectors(i64 cols) {
  i64 left = (cols + V::kWidth - 1) / V::kWidth;
  return left == 4 ? 2 : left < V::kTileVectors ? left : V::kTileVectors;
}

// Calls f with the panel's number of vectors as a constant.
template <class V, class F>
LOCKSTEP_INLINE void with_vectors(i64 vectors, F&& f) {
  if (vectors == 1) f(std::integral_constant<int, 1>{});
  if (vectors == 2) f(std::integral_constant<int, 2>{});
  if constexpr (V::kTileVectors == 3)
    if (vectors == 3) f(std::integral_constant<int, 3>{});
}

// dst[i * dst_ld + 0..cols) = src[i * ld + 0..cols), widened.
template <class V, class X>
void copy_rows(float* dst, i64 dst_ld, const X* src, i64 ld, i64 rows, i64 cols) {
  const i64 whole = cols / V::kWidth * V::kWidth;
  const typename V::Mask rest = V::first(cols - whole);
  for (; rows > 0; --rows, src += ld, dst += dst_ld) {
    for (i64 j = 0; j < whole; j += V::kWidth) V::load(src + j).store(dst + j);
    if (whole < cols) V::load(src + whole, rest).store(dst + whole, rest);
  }
}

// dst[k][0..width) = src[k * ld + 0..cols), zeros beyond cols. width is a whole number of vectors.
template <class V, class X>
void pack_rows(float* dst, i64 width, const X* src, i64 ld, i64 k, i64 cols) {
  const i64 last = width - V::kWidth;
  const typename V::Mask mask = V::first(cols - last);
  for (; k > 0; --k, src += ld, dst += width) {
    for (i64 j = 0; j < last; j += V::kWidth) V::load(src + j).store(dst + j);
    V::load(src + last, mask).store(dst + last);
  }
}

// dst[k][0..width) = src[(0..cols) * ld + k], zeros beyond cols.
template <class V, class X>
void pack_transposed(float* dst, i64 width, const X* src, i64 ld, i64 k, i64 cols) {
  for (i64 j = 0; j < width; j += V::kWidth) {
    const X* s = src + j * ld;
    i64 rows = cols - j < V::kWidth ? cols - j : V::kWidth;
    i64 p = 0;
    if (rows == V::kWidth)
      for (; p + 4 <= k; p += 4) V::transpose4(s + p, ld, dst + p * width + j, width);
    for (; p < k; ++p)
      for (i64 i = 0; i < V::kWidth; ++i) dst[p * width + j + i] = i < rows ? float{s[i * ld + p]} : 0.0f;
  }
}

// All panels of B, one after another: the panel that starts at column j lies at dst + j * k.
template <class V, class X>
void pack_panels(float* dst, const X* src, i64 ld, i64 k, i64 cols, bool transposed) {
  for (i64 j = 0; j < cols;) {
    i64 width = panel_vectors<V>(cols - j) * V::kWidth;
    i64 exist = cols - j < width ? cols - j : width;
    if (transposed)
      pack_transposed<V>(dst + j * k, width, src + j * ld, ld, k, exist);
    else
      pack_rows<V>(dst + j * k, width, src + j, ld, k, exist);
    j += width;
  }
}

}  // namespace lockstep::simd
