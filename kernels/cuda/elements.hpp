// Kernels whose outputs are each computed by one thread from few inputs. Sources: kernels/plain.
#pragma once
#include "kernels/cuda/eights.hpp"

namespace lockstep::cuda {

template <class On, class Y, class B>
void add(Lanes& lanes, Y* y, const Y* a, const B* b, i64 n) {
  each<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) { y[i] = static_cast<Y>(a[i] + b[i]); });
}
template <class On, class Y, class X>
void copy(Lanes& lanes, Y* y, const X* x, i64 n) {
  each<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) { y[i] = static_cast<Y>(float{x[i]}); });
}
// Four numbers a thread and not eight, so that each store of a warp fills whole sectors of memory.
template <class On>
void zero(Lanes& lanes, float* y, i64 n) {
  const i64 wide = in_eights(0, y) ? n / 4 * 4 : 0;
  each<On>(lanes, wide / 4, [=] LOCKSTEP_ANYWHERE(i64 i) { reinterpret_cast<Quad*>(y)[i] = Quad{}; });
  each<On>(lanes, n - wide, [=] LOCKSTEP_ANYWHERE(i64 i) { y[wide + i] = 0.0f; });
}

// A thread writes one place of y: warps write whole lines.
template <class On, class X>
void swap_axes_of(Lanes& lanes, X* y, const X* x, i64 B, i64 M, i64 N, i64 W) {
  each<On>(lanes, B * M * N * W, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const i64 m = i / W % M, n = i / (W * M) % N, b = i / (W * M * N);
    y[i] = x[((b * M + m) * N + n) * W + i % W];
  });
}
// By 16 bytes where W allows it.
template <class On, class X>
void swap_axes(Lanes& lanes, X* y, const X* x, i64 B, i64 M, i64 N, i64 W) {
  constexpr i64 kWide = sizeof(Quad) / sizeof(X);
  if (W % kWide == 0 && in_eights(0, y, x))
    swap_axes_of<On>(lanes, reinterpret_cast<Quad*>(y), reinterpret_cast<const Quad*>(x), B, M, N, W / kWide);
  else
    swap_axes_of<On>(lanes, y, x, B, M, N, W);
}

template <class On, class X>
void repeat_rows(Lanes& lanes, X* y, const X* x, i64 N, i64 R, i64 W) {
  each<On>(lanes, N * R * W, [=] LOCKSTEP_ANYWHERE(i64 i) { y[i] = x[i / (R * W) * W + i % W]; });
}
template <class On, class X>
void sum_rows(Lanes& lanes, X* y, const X* x, i64 N, i64 R, i64 W) {
  check_leaves(R);
  each<On>(lanes, N * W, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const X* row = x + i / W * R * W + i % W;
    y[i] = static_cast<X>(tree_on_stack(R, [&](i64 r) { return float{row[r * W]}; }));
  });
}

LOCKSTEP_ANYWHERE inline float sigmoid(float g) { return 1.0f / (1.0f + exact_exp(-g)); }

template <class On, class X>
void swiglu(Lanes& lanes, X* a, const X* g, const X* u, i64 n) {
  each<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const float gate = g[i];
    a[i] = static_cast<X>((gate * sigmoid(gate)) * u[i]);
  });
}
template <class On, class X>
void swiglu_dx(Lanes& lanes, X* dg, X* du, const X* da, const X* g, const X* u, i64 n) {
  each<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const float grad = da[i], gate = g[i], up = u[i];
    const float sg = sigmoid(gate);
    dg[i] = static_cast<X>((grad * up) * (sg * (1.0f + gate * (1.0f - sg))));
    du[i] = static_cast<X>(grad * (gate * sg));
  });
}

template <class On>
void adamw(Lanes& lanes, float* w, float* m, float* v, const float* g, i64 n, float clip,
           AdamWStep<float> s) {
  each<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const float grad = clip * g[i];
    m[i] = s.b1 * m[i] + s.c1 * grad;
    v[i] = s.b2 * v[i] + (s.c2 * grad) * grad;
    const float d = std::sqrt(v[i]) / s.root_bias2 + s.eps;
    w[i] = w[i] * s.keep - s.rate * (m[i] / d);
  });
}

template <class On, class X>
void rope(Lanes& lanes, X* x, const float* cos, const float* sin, i64 M, i64 T, i64 heads, i64 hd,
          bool inverse) {
  const i64 half = hd / 2;
  each<On>(lanes, M * heads * half, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const i64 j = i % half, row = i / half, m = row / heads;
    X *low = x + row * hd + j, *high = low + half;
    const float c = cos[m % T * half + j], plus = sin[m % T * half + j];
    const float s = inverse ? -plus : plus;
    const float a = *low, b = *high;
    *low = static_cast<X>(std::fma(-b, s, a * c));
    *high = static_cast<X>(std::fma(a, s, b * c));
  });
}

template <class On, class X>
void embed(Lanes& lanes, X* y, const X* table, const i32* ids, i64 M, i64 D, i64 first, i64 rows) {
  if (in_eights(D, y, table))
    return each_eight<On>(lanes, M * D, [=] LOCKSTEP_ANYWHERE(i64 i) {
      const i64 row = ids[i / D] - first;
      store(y + i, 0 <= row && row < rows ? load(table + row * D + i % D) : Eight{});
    });
  each<On>(lanes, M * D, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const i64 row = ids[i / D] - first;
    y[i] = 0 <= row && row < rows ? table[row * D + i % D] : X(0);
  });
}

LOCKSTEP_ANYWHERE inline int bits_of(std::uint64_t x) {
#ifdef __CUDA_ARCH__
  return __popcll(x);  // of std::popcount nvcc makes nothing, without a word
#else
  return std::popcount(x);
#endif
}

// A block makes 16 x 256 columns of a token's row, if the token is the first of its like in the sequence. The
// others it looks for 2048 tokens at a time: each thread says by the bits of a byte which of its eight are
// alike, these are listed in order, and the rows of the list are added, several on their way from memory at
// once. Most windows have none, and cost no more than their comparisons. wide: rows can be had in eights.
template <class X, bool wide>
struct EmbedGradient {
  static constexpr int kEights = 2;  // of columns, of a thread
  static constexpr int kAtOnce = 4;  // rows
  static constexpr i64 kColumns = 8 * kEights * kThreads, kWindow = 8 * kThreads;
  struct State {
    Eight sum[kEights];
  };
  struct Shared {
    std::uint64_t alike[kThreads / 8];  // a byte a thread: of its eight tokens
    i32 late;                           // is the token not the first?
    i32 found;
    std::uint16_t list[kWindow];  // the window's tokens that are alike, ascending
  };
  static constexpr i64 kShared = sizeof(Shared) / sizeof(float);
  float* dtable;
  const X* dy;
  const i32* ids;
  i64 T, D, first, rows, parts;  // blocks of a token
  bool add;
  LOCKSTEP_ANYWHERE i64 phases(i64 block) const {
    const i64 t = block / parts, row = ids[t] - first;
    return 0 <= row && row < rows ? 2 + 3 * blocks_for(T - t, kWindow) : 0;
  }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& state) const {
    const i64 t = at.block / parts, window = t + (p - 2) / 3 * kWindow;
    Shared& shared = *reinterpret_cast<Shared*>(at.shared);
    if (p == 0) {
      if (at.thread == 0) shared.late = 0;
    } else if (p == 1) {
      unsigned bits = 0;
      for (i64 from = 0; from < t; from += kWindow) bits |= alike(ids[t], from, t, at);
      if (bits != 0) shared.late = 1;  // whoever writes, writes this
    } else if (shared.late) {
      return;
    } else if (p % 3 == 2) {
      reinterpret_cast<unsigned char*>(shared.alike)[at.thread] =
          static_cast<unsigned char>(alike(ids[t], window, T, at));
      if (at.thread == 0) shared.found = 0;
    } else if (p % 3 == 0) {
      const unsigned bits = reinterpret_cast<const unsigned char*>(shared.alike)[at.thread];
      for (int i = 0; bits >> i != 0; ++i)
        if (bits >> i & 1) enlist(i, at, shared);
    } else {
      const int found = shared.found;
      int i = 0;
      for (; i + kAtOnce <= found; i += kAtOnce) add_rows<kAtOnce>(window, shared.list + i, at, state);
      for (; i < found; ++i) add_rows<1>(window, shared.list + i, at, state);
      if (window + kWindow >= T) write(ids[t] - first, at, state);
    }
  }

 private:
  LOCKSTEP_ANYWHERE i64 column(const Place& at, int e) const {
    return ((at.block % parts * kEights + e) * kThreads + at.thread) * 8;
  }
  // Which of this thread's eight tokens from `from` on are alike? They are a step of threads apart, so that
  // the threads' reads lie side by side.
  LOCKSTEP_ANYWHERE unsigned alike(i32 id, i64 from, i64 end, const Place& at) const {
    const i32* const mine = ids + from + at.thread;
    const int left = static_cast<int>(lesser(end - from, kWindow)) - at.thread;
    unsigned bits = 0;
    for (int i = 0; i < 8; ++i)
      bits |= static_cast<unsigned>(i * kThreads < left && mine[i * kThreads] == id) << i;
    return bits;
  }
  // This thread's token of step i goes behind those of earlier steps, and of its step's earlier threads.
  LOCKSTEP_ANYWHERE void enlist(int i, const Place& at, Shared& shared) const {
    constexpr std::uint64_t kEach = 0x0101010101010101u;
    const std::uint64_t step = kEach << i, earlier_steps = step - kEach;
    int before = 0, all = 0;
    for (int w = 0; w < kThreads / 8; ++w) {
      const int ahead = at.thread - 8 * w;  // threads of this word
      const std::uint64_t threads =
          ahead >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * (ahead < 0 ? 0 : ahead)) - 1;
      before += bits_of(shared.alike[w] & (earlier_steps | (step & threads)));
      all += bits_of(shared.alike[w]);
    }
    shared.list[before] = static_cast<std::uint16_t>(i * kThreads + at.thread);
    if (before + 1 == all) shared.found = all;
  }
  template <int n>
  LOCKSTEP_ANYWHERE void add_rows(i64 window, const std::uint16_t* list, const Place& at,
                                  State& state) const {
    Eight x[n][kEights];
    for (int r = 0; r < n; ++r)
      for (int e = 0; e < kEights; ++e) x[r][e] = some(dy + (window + list[r]) * D, column(at, e));
    for (int r = 0; r < n; ++r)
      for (int e = 0; e < kEights; ++e)
        for (int i = 0; i < 8; ++i) state.sum[e].at[i] = state.sum[e].at[i] + x[r][e].at[i];
  }
  // A row's columns from d on. Where there are none it is the first, which nobody will write: a load that is
  // always made does not wait for the one before.
  template <class Y>
  LOCKSTEP_ANYWHERE Eight some(const Y* row, i64 d) const {
    if constexpr (wide) return load(row + (d < D ? d : 0));
    Eight x{};
    for (int i = 0; i < 8; ++i)
      if (d + i < D) x.at[i] = row[d + i];
    return x;
  }
  LOCKSTEP_ANYWHERE void write(i64 row, const Place& at, State& state) const {
    float* const out = dtable + row * D;
    if (add) {
      Eight x[kEights];
      for (int e = 0; e < kEights; ++e) x[e] = some(out, column(at, e));
      for (int e = 0; e < kEights; ++e)
        for (int i = 0; i < 8; ++i) state.sum[e].at[i] = x[e].at[i] + state.sum[e].at[i];
    }
    for (int e = 0; e < kEights; ++e) {
      const i64 d = column(at, e);
      if constexpr (wide) {
        if (d < D) store_whole(out + d, state.sum[e]);
      } else {
        for (int i = 0; i < 8; ++i)
          if (d + i < D) out[d + i] = state.sum[e].at[i];
      }
    }
  }
};
template <class On, class X>
void embed_dw(Lanes& lanes, float* dtable, const X* dy, const i32* ids, i64 T, i64 D, i64 first, i64 rows,
              bool add) {
  if (!add) zero<On>(lanes, dtable, rows * D);
  if (T < 1 || D < 1) return;
  const auto launch = [&]<bool wide>() {
    using Kernel = EmbedGradient<X, wide>;
    const i64 parts = blocks_for(D, Kernel::kColumns);
    On::launch(lanes, Kernel{dtable, dy, ids, T, D, first, rows, parts, add}, T * parts, kThreads,
               Kernel::kShared);
  };
  in_eights(D, dtable, dy) ? launch.template operator()<true>() : launch.template operator()<false>();
}

}  // namespace lockstep::cuda
