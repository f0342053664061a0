// All three matmuls are one: out[M,N] = tree over leaves of chains over k of A(m,k) B(k,n), where a leaf goes
// through up to three pieces of k. A block makes a tile of outputs, with both operands' next terms in shared
// memory; a thread goes on with the chains of kPer x kPer outputs. Tiling: CUDA C++ Programming Guide 3.2.4.
#pragma once
#include "kernels/cuda/frame.hpp"

namespace lockstep::cuda {

// Terms k of one piece: A(m,k) = a[m*am + k*ak], B(k,n) = b[k*bk + n*bn].
template <class X>
struct Terms {
  const X *a, *b;
  i64 am, ak, bk, bn, K;
};

template <int kTile, class Y, class X>  // outputs of a block, on each side; stored as Y, operands as X
struct TileMatmul {
  static constexpr int kPer = kTile / kLanes;  // of a thread
  static constexpr int kDeep = 16;             // terms in shared memory
  static constexpr int kRow = kTile + 1;       // so that columns lie in different banks
  static constexpr int kShared = 2 * kDeep * kRow;
  struct State {
    float acc[kPer][kPer];
    float stack[kDepth][kPer][kPer];
    int top = 0, piece = 0;
    i64 leaf = 0, k = 0;  // where the next terms begin
  };
  Y* out;
  Terms<X> terms[3];
  int pieces;
  i64 M, N, leaves;
  bool add;  // to what is there

  LOCKSTEP_ANYWHERE i64 begin(int piece, i64 leaf) const { return leaf_begin(leaf, terms[piece].K, leaves); }
  // Each leaf of each piece has one chunk at least, be it empty.
  LOCKSTEP_ANYWHERE i64 phases(i64) const {
    i64 chunks = 0;
    for (i64 r = 0; r < leaves; ++r)
      for (int p = 0; p < pieces; ++p) {
        const i64 n = begin(p, r + 1) - begin(p, r);
        chunks += n > 0 ? blocks_for(n, kDeep) : 1;
      }
    return 2 * chunks;
  }

  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& s) const {
    const i64 tiles = blocks_for(N, kTile), m0 = at.block / tiles * kTile, n0 = at.block % tiles * kTile;
    if (p == 0) s.k = begin(0, 0), clear(s);
    const i64 count = lesser(kDeep, begin(s.piece, s.leaf + 1) - s.k);
    if (p % 2 == 0) return load(at, terms[s.piece], s.k, count, m0, n0);
    multiply(at, s, count);
    s.k += kDeep;
    if (s.k < begin(s.piece, s.leaf + 1)) return;
    if (++s.piece == pieces) {
      end_leaf(s);
      s.piece = 0;
      if (++s.leaf == leaves) return write(at, s, m0, n0);
    }
    s.k = begin(s.piece, s.leaf);
  }

 private:
  LOCKSTEP_ANYWHERE void clear(State& s) const {
    for (int i = 0; i < kPer; ++i)
      for (int j = 0; j < kPer; ++j) s.acc[i][j] = 0.0f;
  }
  // Neighbouring threads read neighbouring addresses, whichever index those are.
  LOCKSTEP_ANYWHERE void load(const Place& at, const Terms<X>& t, i64 k0, i64 count, i64 m0, i64 n0) const {
    for (int e = at.thread; e < kDeep * kTile; e += at.threads) {
      const int ka = t.ak == 1 ? e % kDeep : e / kTile, m = t.ak == 1 ? e / kDeep : e % kTile;
      const int kb = t.bk == 1 ? e % kDeep : e / kTile, n = t.bk == 1 ? e / kDeep : e % kTile;
      if (ka < count && m0 + m < M) at.shared[ka * kRow + m] = t.a[(m0 + m) * t.am + (k0 + ka) * t.ak];
      if (kb < count && n0 + n < N)
        at.shared[(kDeep + kb) * kRow + n] = t.b[(k0 + kb) * t.bk + (n0 + n) * t.bn];
    }
  }
  LOCKSTEP_ANYWHERE void multiply(const Place& at, State& s, i64 count) const {
    const int row = at.thread / kLanes, column = at.thread % kLanes;
    for (int k = 0; k < count; ++k) {
      const float *a = at.shared + k * kRow + row, *b = at.shared + (kDeep + k) * kRow + column;
      for (int i = 0; i < kPer; ++i)
        for (int j = 0; j < kPer; ++j) s.acc[i][j] = std::fma(a[i * kLanes], b[j * kLanes], s.acc[i][j]);
    }
  }
  LOCKSTEP_ANYWHERE void end_leaf(State& s) const {
    if (leaves == 1) return;
    for (int i = 0; i < kPer; ++i)
      for (int j = 0; j < kPer; ++j) s.stack[s.top][i][j] = s.acc[i][j];
    ++s.top;
    for (int n = merges_after(s.leaf, leaves); n > 0; --n, --s.top)
      for (int i = 0; i < kPer; ++i)
        for (int j = 0; j < kPer; ++j)
          s.stack[s.top - 2][i][j] = s.stack[s.top - 2][i][j] + s.stack[s.top - 1][i][j];
    clear(s);
  }
  LOCKSTEP_ANYWHERE void write(const Place& at, const State& s, i64 m0, i64 n0) const {
    for (int i = 0; i < kPer; ++i)
      for (int j = 0; j < kPer; ++j) {
        const i64 m = m0 + at.thread / kLanes + i * kLanes, n = n0 + at.thread % kLanes + j * kLanes;
        if (m >= M || n >= N) continue;
        const float sum = leaves == 1 ? s.acc[i][j] : s.stack[0][i][j];
        out[m * N + n] = static_cast<Y>(add ? out[m * N + n] + sum : sum);
      }
  }
};

template <class On, int kTile, class Y, class X>
void tiled(Lanes& lanes, Y* out, const Terms<X>* terms, int pieces, i64 M, i64 N, i64 leaves, bool add) {
  TileMatmul<kTile, Y, X> kernel{out, {}, pieces, M, N, leaves, add};
  for (int p = 0; p < pieces; ++p) kernel.terms[p] = terms[p];
  On::launch(lanes, kernel, blocks_for(M, kTile) * blocks_for(N, kTile), kThreads, kernel.kShared);
}
template <class On, class Y, class X>
void tiled(Lanes& lanes, Y* out, const Terms<X>* terms, int pieces, i64 M, i64 N, i64 leaves, bool add) {
  check_leaves(leaves);
  if (M < 1 || N < 1) return;
  if (M * N >= i64{128} * 128 * 64)  // enough large tiles for every multiprocessor of a small GPU
    return tiled<On, 128>(lanes, out, terms, pieces, M, N, leaves, add);
  tiled<On, 64>(lanes, out, terms, pieces, M, N, leaves, add);
}

template <class On, class Y, class X>
void matmul(Lanes& lanes, Y* y, const X* x, const X* w, i64 M, i64 N, i64 K, i64 leaves) {
  const Terms<X> terms{x, w, K, 1, 1, K, K};
  tiled<On>(lanes, y, &terms, 1, M, N, leaves, false);
}

template <class On, class Y, class X>
void matmul_dx(Lanes& lanes, Y* dx, const X* dy0, i64 ld0, const X* w0, i64 N0, const X* dy1, i64 ld1,
               const X* w1, i64 N1, const X* dy2, i64 ld2, const X* w2, i64 N2, i64 M, i64 K, i64 leaves) {
  Terms<X> terms[3];
  int pieces = 0;
  if (N0) terms[pieces++] = {dy0, w0, ld0, 1, K, 1, N0};
  if (N1) terms[pieces++] = {dy1, w1, ld1, 1, K, 1, N1};
  if (N2) terms[pieces++] = {dy2, w2, ld2, 1, K, 1, N2};
  if (pieces == 0) terms[pieces++] = {nullptr, nullptr, 0, 1, K, 1, 0};  // zeros
  tiled<On>(lanes, dx, terms, pieces, M, K, leaves, false);
}

template <class On, class X>
void matmul_dw(Lanes& lanes, float* dw, const X* dy, const X* x, i64 T, i64 N, i64 K, bool add) {
  const Terms<X> terms{dy, x, 1, N, K, 1, T};
  tiled<On>(lanes, dw, &terms, 1, N, K, 1, add);
}

}  // namespace lockstep::cuda
