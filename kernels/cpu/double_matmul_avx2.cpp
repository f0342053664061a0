// The three matmuls in double: the sums of plain/matmul.cpp bit for bit, a tile of four rows and eight
// columns at a time. The float64 training that plans in fast mode and other trainers' dumps are held to is
// made of them.
#include <immintrin.h>

#include <algorithm>
#include <span>

#include "kernels/cpu/sets.hpp"
#include "kernels/exact_math.hpp"

namespace lockstep::simd {
namespace {

constexpr i64 kRows = 4, kCols = 8, kWidth = 4;
constexpr i64 kMostTerms = i64(Lanes::kScratchBytes / sizeof(double)) / kCols;  // of packed columns

// Terms a[row, t] * b[t, col] of a sum; its leaves are cut in each piece alike, and go through the pieces in
// order.
struct Piece {
  const double* a;
  i64 a_row, a_term;
  const double* b;
  i64 b_term, b_col;
  i64 terms;
};

struct Tile {
  __m256d sum[kRows][kCols / kWidth];
};
Tile operator+(const Tile& x, const Tile& y) {
  Tile sum;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kCols / kWidth; ++v) sum.sum[i][v] = _mm256_add_pd(x.sum[i][v], y.sum[i][v]);
  return sum;
}

// packed[t][kCols], 0 beyond the last column.
void pack(double* packed, const Piece& p, i64 col, i64 cols) {
  for (i64 t = 0; t < p.terms; ++t)
    for (i64 j = 0; j < kCols; ++j)
      packed[t * kCols + j] = j < cols ? p.b[t * p.b_term + (col + j) * p.b_col] : 0.0;
}

// Goes on with the tile's chains over terms [from, to). Rows beyond the last are that one again.
void chain(Tile& tile, const Piece& p, const double* packed, i64 row, i64 rows, i64 from, i64 to) {
  const double* a[kRows];
  for (i64 i = 0; i < kRows; ++i) a[i] = p.a + (row + std::min(i, rows - 1)) * p.a_row;
  Tile t = tile;
  for (i64 k = from; k < to; ++k) {
    const __m256d left = _mm256_load_pd(packed + k * kCols),
                  right = _mm256_load_pd(packed + k * kCols + kWidth);
    for (int i = 0; i < kRows; ++i) {
      const __m256d factor = _mm256_broadcast_sd(a[i] + k * p.a_term);
      t.sum[i][0] = _mm256_fmadd_pd(factor, left, t.sum[i][0]);
      t.sum[i][1] = _mm256_fmadd_pd(factor, right, t.sum[i][1]);
    }
  }
  tile = t;
}

void store(double* c, i64 ldc, const Tile& tile, i64 rows, i64 cols, bool add) {
  alignas(32) double values[kRows][kCols];
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kCols / kWidth; ++v) _mm256_store_pd(values[i] + v * kWidth, tile.sum[i][v]);
  for (i64 i = 0; i < rows; ++i)
    for (i64 j = 0; j < cols; ++j) c[i * ldc + j] = add ? c[i * ldc + j] + values[i][j] : values[i][j];
}

bool fits(std::span<const Piece> pieces) {
  i64 terms = 0;
  for (const Piece& p : pieces) terms += p.terms;
  return terms <= kMostTerms;
}

// c[M, N], row by row, of pieces that fit.
void product(Lanes& lanes, double* c, std::span<const Piece> pieces, i64 M, i64 N, i64 leaves, bool add) {
  lanes.split((N + kCols - 1) / kCols, 1, [&](i64 begin, i64 end, int lane) {
    double* const packed = static_cast<double*>(lanes.scratch(lane));
    for (i64 col = begin * kCols; col < std::min(end * kCols, N); col += kCols) {
      const i64 cols = std::min(kCols, N - col);
      double* to = packed;
      for (const Piece& p : pieces) pack(to, p, col, cols), to += p.terms * kCols;
      for (i64 row = 0; row < M; row += kRows) {
        const i64 rows = std::min(kRows, M - row);
        const Tile sum = tree_sum(0, leaves, [&](i64 r) {
          Tile leaf{};
          const double* from = packed;
          for (const Piece& p : pieces) {
            chain(leaf, p, from, row, rows, leaf_begin(r, p.terms, leaves),
                  leaf_begin(r + 1, p.terms, leaves));
            from += p.terms * kCols;
          }
          return leaf;
        });
        store(c + row * N + col, N, sum, rows, cols, add);
      }
    }
  });
}

// For what does not fit.
Ops<double> fallback() {
  Ops<double> table = plain_ops<double>();
  apply_avx2(table);
  return table;
}

void matmul(Lanes& lanes, double* y, const double* x, const double* w, i64 M, i64 N, i64 K, i64 leaves) {
  const Piece terms[] = {{x, K, 1, w, 1, K, K}};
  if (!fits(terms)) return fallback().matmul(lanes, y, x, w, M, N, K, leaves);
  product(lanes, y, terms, M, N, leaves, false);
}

void matmul_dx(Lanes& lanes, double* dx, const double* dy0, i64 ld0, const double* w0, i64 N0,
               const double* dy1, i64 ld1, const double* w1, i64 N1, const double* dy2, i64 ld2,
               const double* w2, i64 N2, i64 M, i64 K, i64 leaves) {
  const Piece terms[] = {
      {dy0, ld0, 1, w0, K, 1, N0}, {dy1, ld1, 1, w1, K, 1, N1}, {dy2, ld2, 1, w2, K, 1, N2}};
  if (!fits(terms))
    return fallback().matmul_dx(lanes, dx, dy0, ld0, w0, N0, dy1, ld1, w1, N1, dy2, ld2, w2, N2, M, K,
                                leaves);
  product(lanes, dx, terms, M, K, leaves, false);
}

void matmul_dw(Lanes& lanes, double* dw, const double* dy, const double* x, i64 T, i64 N, i64 K, bool add) {
  const Piece terms[] = {{dy, 1, N, x, K, 1, T}};
  if (!fits(terms)) return fallback().matmul_dw(lanes, dw, dy, x, T, N, K, add);
  product(lanes, dw, terms, N, K, 1, add);
}

}  // namespace

void matmuls_avx2(Ops<double>& ops) {
  ops.matmul.call = matmul;
  ops.matmul_dx.call = matmul_dx;
  ops.matmul_dw.call = matmul_dw;
}

}  // namespace lockstep::simd
