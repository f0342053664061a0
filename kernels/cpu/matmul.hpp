// The three matmuls of a linear layer, as one blocked product whose sums are cut in leaves (EXACT.md).
//
// The terms of a sum form one long row of *segments*: leaf 0 of piece 0, leaf 0 of piece 1, ..., leaf 1 of
// piece 0, ... A leaf is one chain over its segments; finished leaves meet in a binary tree. Segments are
// packed chunk by chunk, so scratch does not grow with k; a tile that waits for the next chunk keeps its
// chain and the finished subtrees in memory, which changes no bit.
#pragma once
#include "kernels/cpu/tile.hpp"
#include "kernels/ops.hpp"

namespace lockstep::simd {

// One product A_i B_i of a sum of products; k_i terms.
struct Piece {
  const float* a;
  i64 a_tile;  // from the first row of a tile of rows to the next tile's, divided by the rows of a tile
  i64 a_row, a_col;
  const float* b;
  i64 ldb;
  i64 k;
};

struct Product {
  float* c;
  i64 rows, cols, ldc;
  bool add;         // C = C + the sum
  bool transposed;  // B(k, j) = b[j * ldb + k], else b[k * ldb + j]
  Piece piece[3];
  int pieces;
  i64 leaves;
};

// How many pairs of subtrees meet once leaf r is done, going left to right through tree(0, leaves).
LOCKSTEP_INLINE int merges_after(i64 r, i64 leaves) {
  int merges = 0;
  for (i64 lo = 0, hi = leaves; hi - lo > 1;) {
    i64 mid = lo + (hi - lo) / 2;
    if (r >= mid)
      lo = mid, ++merges;
    else
      hi = mid, merges = 0;
  }
  return merges;
}

struct Segment {
  const float* a;
  i64 a_tile, a_row, a_col;
  const float* b;
  i64 ldb;
  i64 k;
  bool opens, closes;  // the first, the last of its leaf
  int merges;          // subtrees met when it closes
};

struct Chunk {
  static constexpr int kSegments = 48;
  static constexpr i64 kTerms = 384;  // packed rows of B
  Segment segment[kSegments];
  int segments = 0;
  i64 terms = 0;
};

// Walks the segments of a product.
struct Cursor {
  i64 leaf = 0;
  int piece = 0;
  i64 done = 0;  // terms of this leaf and piece already handed out
};

// Fills the next chunk; false when nothing is left.
template <class V>
bool next_chunk(Chunk& chunk, const Product& m, Cursor& at) {
  chunk.segments = 0;
  chunk.terms = 0;
  while (at.leaf < m.leaves && chunk.segments < Chunk::kSegments && chunk.terms < Chunk::kTerms) {
    const Piece& p = m.piece[at.piece];
    i64 begin = at.leaf * p.k / m.leaves + at.done, end = (at.leaf + 1) * p.k / m.leaves;
    bool whole = end - begin <= Chunk::kTerms - chunk.terms;
    i64 k = whole ? end - begin : Chunk::kTerms - chunk.terms;
    bool closes = whole && at.piece + 1 == m.pieces;
    chunk.segment[chunk.segments++] = {p.a + begin * p.a_col,
                                       p.a_tile,
                                       p.a_row,
                                       p.a_col,
                                       m.transposed ? p.b + begin : p.b + begin * p.ldb,
                                       p.ldb,
                                       k,
                                       at.piece == 0 && at.done == 0,
                                       closes,
                                       closes ? merges_after(at.leaf, m.leaves) : 0};
    chunk.terms += k;
    if (!whole) {
      at.done += k;
    } else {
      at.done = 0;
      if (++at.piece == m.pieces) at.piece = 0, ++at.leaf;
    }
  }
  return chunk.segments > 0;
}

// Where a tile's sum stands between two chunks. Memory per tile: subtree 0, subtree 1, ..., chain.
struct Progress {
  int subtrees = 0;  // finished, waiting for their right-hand sides
  int max_subtrees = 0;
  i64 closed = 0;  // leaves done
};

// Runs one chunk for one tile whose C starts at row i, column j.
template <class V, int Vectors>
LOCKSTEP_INLINE void run_tile(const Product& m, const Chunk& chunk, const float* b, float* memory,
                              Progress state, i64 i, i64 j) {
  using T = Tile<V, Vectors>;
  T t;
  float* chain = memory + state.max_subtrees * T::kFloats;
  if (chunk.segment[0].opens)
    t.clear();
  else
    t.load(chain, T::kCols);
  for (int s = 0; s < chunk.segments; ++s) {
    const Segment& seg = chunk.segment[s];
    if (seg.k > 0) t.chain({seg.a + i * seg.a_tile, seg.a_row, seg.a_col, m.rows - i}, b, T::kCols, seg.k);
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

// How a lane's scratch is shared out, in floats: a panel of B and the tiles' memory, then a packed A.
inline constexpr i64 kPanelFloats = 3 << 18, kPackedFloats = 1 << 18;
static_assert(kPanelFloats + kPackedFloats <= i64(Lanes::kScratchBytes / sizeof(float)));

// Columns [j, j + Vectors * width).
template <class V, int Vectors>
void run_panel(const Product& m, i64 j, float* scratch) {
  using T = Tile<V, Vectors>;
  Progress state;
  while ((i64{1} << state.max_subtrees) < m.leaves) ++state.max_subtrees;
  float* packed = scratch;
  float* memory = scratch + Chunk::kTerms * T::kCols;
  const i64 tile_memory = (state.max_subtrees + 1) * T::kFloats;
  const i64 rows = (kPanelFloats - Chunk::kTerms * T::kCols) / tile_memory * T::kRows;  // that can wait
  const i64 cols = m.cols - j < T::kCols ? m.cols - j : T::kCols;

  for (i64 begin = 0; begin < m.rows; begin += rows) {
    const i64 end = begin + rows < m.rows ? begin + rows : m.rows;
    Chunk chunk;
    Cursor cursor;
    for (Progress p = state; next_chunk<V>(chunk, m, cursor);) {
      float* b = packed;
      for (int s = 0; s < chunk.segments; ++s) {
        const Segment& seg = chunk.segment[s];
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
        run_tile<V, Vectors>(m, chunk, packed, tile, p, i, j);
        if (waits) tile += tile_memory;
      }
      for (int s = 0; s < chunk.segments; ++s)
        if (chunk.segment[s].closes) p.subtrees += 1 - chunk.segment[s].merges, ++p.closed;
    }
  }
}

// A whose rows lie across memory (dyT): a tile of rows side by side for each k. Memory is read along its
// lines; two spare columns keep the tiles, written in step, off each other's cache sets.
inline constexpr i64 kSpareColumns = 2;
template <class V>
void pack_a(Piece& p, i64 rows, float* packed) {
  const i64 stride = p.k + kSpareColumns;
  const typename V::Mask tile = V::first(V::kTileRows);
  for (i64 k = 0; k < p.k; ++k) {
    const float* from = p.a + k * p.a_col;
    float* to = packed + k * V::kTileRows;
    i64 i = 0;
    for (; i + V::kTileRows <= rows; i += V::kTileRows) V::load(from + i, tile).store(to + i * stride, tile);
    if (i < rows) V::load(from + i, V::first(rows - i)).store(to + i * stride, tile);
  }
  p.a = packed;
  p.a_tile = stride;
  p.a_row = 1;
  p.a_col = V::kTileRows;
}

template <class V>
void run_product(const Product& m, i64 row_begin, i64 row_end, i64 col_begin, i64 col_end, float* scratch) {
  // A block of rows of A stays in the second-level cache while all panels of B pass by.
  i64 block = V::kTileRows * 64;
  const i64 fit = kPackedFloats / (m.piece[0].k + kSpareColumns) / V::kTileRows * V::kTileRows;
  const bool pack = m.piece[0].a_col != 1 && fit > 0;
  if (pack && fit < block) block = fit;
  for (i64 i = row_begin; i < row_end; i += block) {
    Product part = m;
    part.rows = i + block < row_end ? block : row_end - i;
    part.cols = col_end;
    part.c += i * m.ldc;
    for (Piece& p : part.piece)
      if (p.k > 0) p.a += i * p.a_row;
    if (pack) pack_a<V>(part.piece[0], part.rows, scratch + kPanelFloats);
    for (i64 j = col_begin; j < col_end;) {
      i64 vectors = panel_vectors<V>(col_end - j);
      with_vectors<V>(vectors, [&](auto n) { run_panel<V, n>(part, j, scratch); });
      j += vectors * V::kWidth;
    }
  }
}

// Lanes share out columns if there are enough of them (then nothing is packed twice), else rows.
template <class V>
void product(Lanes& lanes, const Product& m) {
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
template <class V>
void matmul(Lanes& lanes, float* y, const float* x, const float* w, i64 M, i64 N, i64 K, i64 leaves) {
  product<V>(lanes, {y, M, N, N, false, true, {{x, K, K, 1, w, K, K}, {}, {}}, 1, leaves});
}

// dx[M,K] = sum over pieces of dy_i[M,N_i] w_i[N_i,K]
template <class V>
void matmul_dx(Lanes& lanes, float* dx, const float* dy0, i64 ld0, const float* w0, i64 N0, const float* dy1,
               i64 ld1, const float* w1, i64 N1, const float* dy2, i64 ld2, const float* w2, i64 N2, i64 M,
               i64 K, i64 leaves) {
  int pieces = N2 > 0 ? 3 : N1 > 0 ? 2 : 1;
  product<V>(lanes,
             {dx,
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
template <class V>
void matmul_dw(Lanes& lanes, float* dw, const float* dy, const float* x, i64 T, i64 N, i64 K, bool add) {
  product<V>(lanes, {dw, N, K, K, add, false, {{dy, 1, 1, N, x, K, T}, {}, {}}, 1, 1});
}

}  // namespace lockstep::simd
