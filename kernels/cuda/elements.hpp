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
template <class On>
void zero(Lanes& lanes, float* y, i64 n) {
  const i64 wide = in_eights(0, y) ? n / 8 * 8 : 0;
  each_eight<On>(lanes, wide, [=] LOCKSTEP_ANYWHERE(i64 i) { store(y + i, Eight{}); });
  each<On>(lanes, n - wide, [=] LOCKSTEP_ANYWHERE(i64 i) { y[wide + i] = 0.0f; });
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

// A block makes 16 x 256 columns of a token's row, if the token is the first of its like in the sequence. The
// others it looks for 2048 tokens at a time, of which each thread says by the bits of a byte which of its
// eight are alike.
template <class X>
struct EmbedGradient {
  static constexpr int kEights = 2;  // of columns, of a thread
  static constexpr i64 kColumns = 8 * kEights * kThreads, kWindow = 8 * kThreads;
  struct State {
    Eight sum[kEights];
    bool late;  // not the first
  };
  float* dtable;
  const X* dy;
  const i32* ids;
  i64 T, D, first, rows, parts;  // blocks of a token
  bool wide;                     // rows can be had in eights
  LOCKSTEP_ANYWHERE i64 phases(i64 block) const {
    const i64 t = block / parts, row = ids[t] - first;
    return 0 <= row && row < rows ? 3 + 2 * blocks_for(T - t, kWindow) : 0;
  }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& state) const {
    const i64 t = at.block / parts, window = t + (p - 3) / 2 * kWindow;
    const i32 id = ids[t];
    auto* const alike = reinterpret_cast<unsigned char*>(at.shared);
    if (p == 0) {
      if (at.thread == 0) alike[0] = 0;
    } else if (p == 1) {
      for (i64 s = at.thread; s < t; s += at.threads)
        if (ids[s] == id) alike[0] = 1;  // whoever writes, writes this
    } else if (p == 2) {
      state.late = alike[0] != 0;
    } else if (state.late) {
      return;
    } else if (p % 2 == 1) {
      unsigned bits = 0;
      for (int i = 0; i < 8; ++i) {  // a step of threads apart, so that their reads lie side by side
        const i64 s = window + i * at.threads + at.thread;
        bits |= static_cast<unsigned>(s < T && ids[s] == id) << i;
      }
      alike[at.thread] = static_cast<unsigned char>(bits);
    } else {
      for (int i = 0; i < 8; ++i) add_up(window + i * at.threads, i, at, state);
      if (window + kWindow >= T) write(id, at, state);
    }
  }

 private:
  LOCKSTEP_ANYWHERE i64 column(const Place& at, int e) const {
    return ((at.block % parts * kEights + e) * at.threads + at.thread) * 8;
  }
  // The tokens from `from` on whose bytes have this bit.
  LOCKSTEP_ANYWHERE void add_up(i64 from, int bit, const Place& at, State& state) const {
    const auto* const words = reinterpret_cast<const std::uint64_t*>(at.shared);
    for (int w = 0; w < at.threads / 8; ++w) {
      const std::uint64_t mine = words[w] >> bit & 0x0101010101010101u;
      if (mine == 0) continue;
      for (int i = 0; i < 8; ++i)
        if (mine >> 8 * i & 1) add_row(dy + (from + 8 * w + i) * D, at, state);
    }
  }
  LOCKSTEP_ANYWHERE void add_row(const X* row, const Place& at, State& state) const {
    for (int e = 0; e < kEights; ++e) {
      const i64 d = column(at, e);
      if (d >= D) return;
      Eight x{};
      if (wide)
        x = load(row + d);
      else
        for (int i = 0; i < lesser(8, D - d); ++i) x.at[i] = row[d + i];
      for (int i = 0; i < 8; ++i) state.sum[e].at[i] = state.sum[e].at[i] + x.at[i];
    }
  }
  LOCKSTEP_ANYWHERE void write(i32 id, const Place& at, const State& state) const {
    for (int e = 0; e < kEights; ++e) {
      const i64 d = column(at, e);
      if (d >= D) return;
      float* const out = dtable + (id - first) * D + d;
      if (wide) {
        Eight x = load(out);
        for (int i = 0; i < 8; ++i) x.at[i] = x.at[i] + state.sum[e].at[i];
        store(out, x);
      } else {
        for (int i = 0; i < lesser(8, D - d); ++i) out[i] = out[i] + state.sum[e].at[i];
      }
    }
  }
};
template <class On, class X>
void embed_dw(Lanes& lanes, float* dtable, const X* dy, const i32* ids, i64 T, i64 D, i64 first, i64 rows,
              bool add) {
  if (!add) zero<On>(lanes, dtable, rows * D);
  const i64 parts = blocks_for(D, EmbedGradient<X>::kColumns);
  if (T > 0 && D > 0)
    On::launch(lanes, EmbedGradient<X>{dtable, dy, ids, T, D, first, rows, parts, in_eights(D, dtable, dy)},
               T * parts, kThreads, kThreads / 4);
}

}  // namespace lockstep::cuda
