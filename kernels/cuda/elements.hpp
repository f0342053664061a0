// Kernels whose outputs are each computed by one thread from few inputs. Sources: kernels/plain.
#pragma once
#include "kernels/cuda/frame.hpp"

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
  each<On>(lanes, n, [=] LOCKSTEP_ANYWHERE(i64 i) { y[i] = 0.0f; });
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
  each<On>(lanes, M * D, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const i64 row = ids[i / D] - first;
    y[i] = 0 <= row && row < rows ? table[row * D + i % D] : X(0);
  });
}

// A block makes 8 x 256 columns of a token's row, if the token is the first of its like in the sequence. The
// others it looks for 256 tokens at a time: a flag each, of which eight are read at once.
template <class X>
struct EmbedGradient {
  static constexpr int kColumns = 8;  // of a thread
  struct State {
    float sum[kColumns];
    bool late;  // not the first
  };
  float* dtable;
  const X* dy;
  const i32* ids;
  i64 T, D, first, rows, parts;  // blocks of a token
  LOCKSTEP_ANYWHERE i64 phases(i64 block) const {
    const i64 t = block / parts, row = ids[t] - first;
    return 0 <= row && row < rows ? 3 + 2 * blocks_for(T - t, kThreads) : 0;
  }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State& state) const {
    const i64 t = at.block / parts, window = t + (p - 3) / 2 * at.threads;
    const i32 id = ids[t];
    auto* const alike = reinterpret_cast<char*>(at.shared);
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
      alike[at.thread] = window + at.thread < T && ids[window + at.thread] == id;
    } else {
      add_up(window, at, state);
      if (window + at.threads >= T) write(id, at, state);
    }
  }

 private:
  LOCKSTEP_ANYWHERE i64 column(const Place& at, int c) const {
    return (at.block % parts * kColumns + c) * at.threads + at.thread;
  }
  LOCKSTEP_ANYWHERE void add_up(i64 window, const Place& at, State& state) const {
    const auto* const eights = reinterpret_cast<const std::uint64_t*>(at.shared);
    for (int e = 0; e < at.threads / 8; ++e) {
      if (eights[e] == 0) continue;
      for (int i = 8 * e; i < 8 * e + 8; ++i) {
        if (!reinterpret_cast<const char*>(at.shared)[i]) continue;
        for (int c = 0; c < kColumns; ++c)
          if (column(at, c) < D) state.sum[c] = state.sum[c] + dy[(window + i) * D + column(at, c)];
      }
    }
  }
  LOCKSTEP_ANYWHERE void write(i32 id, const Place& at, const State& state) const {
    float* const out = dtable + (id - first) * D;
    for (int c = 0; c < kColumns; ++c)
      if (const i64 d = column(at, c); d < D) out[d] = out[d] + state.sum[c];
  }
};
template <class On, class X>
void embed_dw(Lanes& lanes, float* dtable, const X* dy, const i32* ids, i64 T, i64 D, i64 first, i64 rows,
              bool add) {
  if (!add) zero<On>(lanes, dtable, rows * D);
  const i64 parts = blocks_for(D, i64{EmbedGradient<X>::kColumns} * kThreads);
  if (T > 0 && D > 0)
    On::launch(lanes, EmbedGradient<X>{dtable, dy, ids, T, D, first, rows, parts}, T * parts, kThreads,
               kThreads / 4);
}

}  // namespace lockstep::cuda
