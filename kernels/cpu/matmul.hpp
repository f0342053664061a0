// The three matmuls of a linear layer, as one blocked product whose sums are cut in leaves (EXACT.md).
//
// The terms of a sum form one long row of *segments*: leaf 0 of piece 0, leaf 0 of piece 1, ..., leaf 1 of
// piece 0, ... A leaf is one chain over its segments; finished leaves meet in a binary tree. Segments are
// packed chunk by chunk, so scratch does not grow with k; a tile that waits for the next chunk keeps its
// chain and the finished subtrees in memory, float32 whatever the operands are, which changes no bit.
#pragma once
#include "kernels/bf16.hpp"
#include "kernels/cpu/chunks.hpp"
#include "kernels/cpu/tile.hpp"
#include "kernels/ops.hpp"

namespace lockstep::simd {

// Where a tile's sum stands between two chunks. Memory per tile: subtree 0, subtree 1, ..., chain.
struct Progress {
  int subtrees = 0;  // finished, waiting for their right-hand sides
  int max_subtrees = 0;
  i64 closed = 0;  // leaves done
};

// A tile's rows of A, as it reads them.
template <class V>
LOCKSTEP_INLINE View tile_rows(const float* a, i64 row, i64 col, i64 rows, i64 /*k*/, float* /*wide*/) {
  return {a, row, col, rows};
}
// Widened: along k, or where they lie across memory side by side for each k.
template <class V>
LOCKSTEP_INLINE View tile_rows(const bf16* a, i64 row, i64 col, i64 rows, i64 k, float* wide) {
  const i64 exist = rows < V::kTileRows ? rows : V::kTileRows;
  if (col == 1) {
    copy_rows<V>(wide, kTerms, a, row, exist, k);
    return {wide, kTerms, 1, rows};
  }
  for (i64 at = 0; at < k; ++at)
    for (i64 i = 0; i < exist; ++i) wide[at * V::kTileRows + i] = a[i * row + at * col];
  return {wide, 1, V::kTileRows, rows};
}
template <class V>
inline constexpr i64 kWideFloats = i64{V::kTileRows} * kTerms;

// Runs one chunk for one tile whose C starts at row i, column j.
template <class V, int Vectors, class Y, class A, class B>
LOCKSTEP_INLINE void run_tile(const Product<Y, A, B>& m, const Chunk<A, B>& chunk, const float* b,
                              float* wide, float* memory, Progress state, i64 i, i64 j) {
  using T = Tile<V, Vectors>;
  T t;
  float* chain = memory + state.max_subtrees * T::kFloats;
  if (chunk.segment[0].opens)
    t.clear();
  else
    t.load(chain, T::kCols);
  for (int s = 0; s < chunk.segments; ++s) {
    const Segment<A, B>& seg = chunk.segment[s];
    if (seg.k > 0)
      t.chain(tile_rows<V>(seg.a + i * seg.a_tile, seg.a_row, seg.a_col, m.rows - i, seg.k, wide), b,
              T::kCols, seg.k);
    b += seg.k * T::kCols;
    if (!seg.closes) continue;
    for (int n = 0; n < seg.merges; ++n) t.add(memory + --state.subtrees * T::kFloats, T::kCols);
    if (++state.closed < m.leaves)
      t.store(memory + state.subtrees++ * T::kFloats, T::kCols);
    else
      t.store(m.c + i * m.ldc + j, m.ldc, m.rows - i, m.cols - j, m.add);
    t.clear();
  }
  if (!chunk.segment[chunk.segments - 1].closes) t.store(chain, T::kCols);
}

// How a lane's scratch is shared out, in floats: a panel of B, a tile's widened rows of A and the tiles'
// memory; then a packed A.
inline constexpr i64 kPanelFloats = 3 << 18, kPackedFloats = 1 << 18;
static_assert(kPanelFloats + kPackedFloats <= i64(Lanes::kScratchBytes / sizeof(float)));

// Columns [j, j + Vectors * width).
template <class V, int Vectors, class Y, class A, class B>
void run_panel(const Product<Y, A, B>& m, i64 j, float* scratch) {
  using T = Tile<V, Vectors>;
  Progress state;
  while ((i64{1} << state.max_subtrees) < m.leaves) ++state.max_subtrees;
  float* packed = scratch;
  float* wide = packed + kTerms * T::kCols;
  float* memory = wide + kWideFloats<V>;
  const i64 tile_memory = (state.max_subtrees + 1) * T::kFloats;
  const i64 rows = (kPanelFloats - (memory - scratch)) / tile_memory * T::kRows;  // that can wait
  const i64 cols = m.cols - j < T::kCols ? m.cols - j : T::kCols;

  for (i64 begin = 0; begin < m.rows; begin += rows) {
    const i64 end = begin + rows < m.rows ? begin + rows : m.rows;
    Chunk<A, B> chunk;
    Cursor cursor;
    for (Progress p = state; next_chunk<V>(chunk, m, cursor);) {
      float* b = packed;
      for (int s = 0; s < chunk.segments; ++s) {
        const Segment<A, B>& seg = chunk.segment[s];
        if (seg.k == 0) continue;
        if (m.transposed)
          pack_transposed<V>(b, T::kCols, seg.b + j * seg.ldb, seg.ldb, seg.k, cols);
        else
          pack_rows<V>(b, T::kCols, seg.b + j, seg.ldb, seg.k, cols);
        b += seg.k * T::kCols;
      }
      // A sum that ends within one chunk leaves nothing to remember: all tiles share one memory.
      const bool waits = cursor.leaf < m.leaves || p.closed > 0 || !chunk.segment[0].opens;
      float* tile = memory;
      for (i64 i = begin; i < end; i += T::kRows) {
        run_tile<V, Vectors>(m, chunk, packed, wide, tile, p, i, j);
        if (waits) tile += tile_memory;
      }
      for (int s = 0; s < chunk.segments; ++s)
        if (chunk.segment[s].closes) p.subtrees += 1 - chunk.segment[s].merges, ++p.closed;
    }
  }
}

// A, where its rows lie across memory (dyT): a tile of rows side by side for each k. Memory is read along its
// lines; two spare columns keep the tiles, written in step, off each other's cache sets. And bf16, widened
// once for all panels of B.
inline constexpr i64 kSpareColumns = 2;
template <class V, class X>
Piece<float, X> pack_a(const Piece<X, X>& p, i64 rows, float* packed) {
  const i64 stride = p.k + kSpareColumns;
  if (p.a_col == 1) {
    copy_rows<V>(packed, stride, p.a, p.a_row, rows, p.k);
    return {packed, stride, stride, 1, p.b, p.ldb, p.k};
  }
  const auto widen = [](float* to, const X* from, i64 exist) {
#pragma GCC unroll 2
    for (i64 i = 0; i < V::kTileRows; i += V::kWidth) {
      const typename V::Mask m = V::first(exist - i);
      V::load(from + i, m).store(to + i, m);
    }
  };
  for (i64 k = 0; k < p.k; ++k) {
    const X* from = p.a + k * p.a_col;
    float* to = packed + k * V::kTileRows;
    i64 i = 0;
    for (; i + V::kTileRows <= rows; i += V::kTileRows) widen(to + i * stride, from + i, V::kTileRows);
    if (i < rows) widen(to + i * stride, from + i, rows - i);
  }
  return {packed, stride, 1, V::kTileRows, p.b, p.ldb, p.k};
}

template <class V, class Y, class A, class B>
void run_panels(const Product<Y, A, B>& m, i64 col_begin, float* scratch) {
  for (i64 j = col_begin; j < m.cols;) {
    const i64 vectors = panel_vectors<V>(m.cols - j);
    with_vectors<V>(vectors, [&](auto n) { run_panel<V, n>(m, j, scratch); });
    j += vectors * V::kWidth;
  }
}

template <class V, class Y, class X>
void run_product(const Product<Y, X>& m, i64 row_begin, i64 row_end, i64 col_begin, i64 col_end,
                 float* scratch) {
  // A block of rows of A stays in the second-level cache while all panels of B pass by.
  i64 block = V::kTileRows * 64, width = 0;
  for (int n = 0; n < m.pieces; ++n) width += m.piece[n].k + kSpareColumns;
  const i64 fit = kPackedFloats / width / V::kTileRows * V::kTileRows;
  // B is packed anew for each block of rows, so where A could be read as it lies there must be many.
  const bool across = m.piece[0].a_col != 1, widens = !std::is_same_v<X, float>;
  const bool pack = across ? fit > 0 : widens && fit >= block / 4;
  if (pack && fit < block) block = fit;
  for (i64 i = row_begin; i < row_end; i += block) {
    Product<Y, X> part = m;
    part.rows = i + block < row_end ? block : row_end - i;
    part.cols = col_end;
    part.c += i * m.ldc;
    for (Piece<X, X>& p : part.piece)
      if (p.k > 0) p.a += i * p.a_row;
    if (!pack) {
      run_panels<V>(part, col_begin, scratch);
      continue;
    }
    Product<Y, float, X> packed{part.c,          part.rows,    part.cols,   part.ldc,   part.add,
                                part.transposed, {{}, {}, {}}, part.pieces, part.leaves};
    float* to = scratch + kPanelFloats;
    for (int n = 0; n < m.pieces; ++n) {
      packed.piece[n] = pack_a<V>(part.piece[n], part.rows, to);
      to += part.rows * (m.piece[n].k + kSpareColumns);
    }
    run_panels<V>(packed, col_begin, scratch);
  }
}

// Lanes share out columns if there are enough of them (then no part of B is packed twice), else rows.
template <class V, class Y, class X>
void product(Lanes& lanes, const Product<Y, X>& m) {
  if (m.cols >= m.rows || m.cols >= i64{2} * lanes.count() * V::kTileVectors * V::kWidth)
    lanes.split(m.cols, V::kWidth, [&](i64 lo, i64 hi, int lane) {
      run_product<V>(m, 0, m.rows, lo, hi, static_cast<float*>(lanes.scratch(lane)));
    });
  else
    lanes.split(m.rows, V::kTileRows, [&](i64 lo, i64 hi, int lane) {
      run_product<V>(m, lo, hi, 0, m.cols, static_cast<float*>(lanes.scratch(lane)));
    });
}

// y[M,N] = x[M,K] w[N,K]^T
template <class V, class Y, class X>
void matmul(Lanes& lanes, Y* y, const X* x, const X* w, i64 M, i64 N, i64 K, i64 leaves) {
  product<V, Y, X>(lanes, {y, M, N, N, false, true, {{x, K, K, 1, w, K, K}, {}, {}}, 1, leaves});
}

// dx[M,K] = sum over pieces of dy_i[M,N_i] w_i[N_i,K]
template <class V, class Y, class X>
void matmul_dx(Lanes& lanes, Y* dx, const X* dy0, i64 ld0, const X* w0, i64 N0, const X* dy1, i64 ld1,
               const X* w1, i64 N1, const X* dy2, i64 ld2, const X* w2, i64 N2, i64 M, i64 K, i64 leaves) {
  int pieces = N2 > 0 ? 3 : N1 > 0 ? 2 : 1;
  product<V, Y, X>(
      lanes, {dx,
              M,
              K,
              K,
              false,
              false,
              {{dy0, ld0, ld0, 1, w0, K, N0}, {dy1, ld1, ld1, 1, w1, K, N1}, {dy2, ld2, ld2, 1, w2, K, N2}},
              pieces,
              leaves});
}

// dw[N,K] (+)= dy[T,N]^T x[T,K]
template <class V, class X>
void matmul_dw(Lanes& lanes, float* dw, const X* dy, const X* x, i64 T, i64 N, i64 K, bool add) {
  product<V, float, X>(lanes, {dw, N, K, K, add, false, {{dy, 1, 1, N, x, K, T}, {}, {}}, 1, 1});
}

}  // namespace lockstep::simd
