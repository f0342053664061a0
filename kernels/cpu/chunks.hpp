// A sum of products as one row of terms, cut in leaves and in chunks that are packed at once (matmul.hpp).
#pragma once
#include "kernels/cpu/always_inline.hpp"
#include "kernels/lanes.hpp"

namespace lockstep::simd {

// One product A_i B_i of a sum of products; k_i terms.
template <class A, class B>
struct Piece {
  const A* a;
  i64 a_tile;  // from the first row of a tile of rows to the next tile's, divided by the rows of a tile
  i64 a_row, a_col;
  const B* b;
  i64 ldb;
  i64 k;
};

template <class Y, class A, class B = A>
struct Product {
  Y* c;
  i64 rows, cols, ldc;
  bool add;         // C = C + the sum
  bool transposed;  // B(k, j) = b[j * ldb + k], else b[k * ldb + j]
  Piece<A, B> piece[3];
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

template <class A, class B>
struct Segment {
  const A* a;
  i64 a_tile, a_row, a_col;
  const B* b;
  i64 ldb;
  i64 k;
  bool opens, closes;  // the first, the last of its leaf
  int merges;          // subtrees met when it closes
};

inline constexpr i64 kTerms = 384;  // of a chunk: packed rows of B

template <class A, class B>
struct Chunk {
  static constexpr int kSegments = 48;
  Segment<A, B> segment[kSegments];
  int segments = 0;
  i64 terms = 0;
};

// Walks the segments of a product.
struct Cursor {
  i64 leaf = 0;
  int piece = 0;
  i64 done = 0;  // terms of this leaf and piece already handed out
};

// Fills the next chunk; false when nothing is left. Of V as all that is not inlined: each set its own.
template <class V, class Y, class A, class B>
bool next_chunk(Chunk<A, B>& chunk, const Product<Y, A, B>& m, Cursor& at) {
  chunk.segments = 0;
  chunk.terms = 0;
  while (at.leaf < m.leaves && chunk.segments < chunk.kSegments && chunk.terms < kTerms) {
    const Piece<A, B>& p = m.piece[at.piece];
    i64 begin = at.leaf * p.k / m.leaves + at.done, end = (at.leaf + 1) * p.k / m.leaves;
    bool whole = end - begin <= kTerms - chunk.terms;
    i64 k = whole ? end - begin : kTerms - chunk.terms;
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

}  // namespace lockstep::simd
