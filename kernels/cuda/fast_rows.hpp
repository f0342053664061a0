// Fast mode's kernels over rows: a block of 256 threads a row, eight numbers of it a thread at a time. What a
// second pass over the row needs lies in the caches by then.
#pragma once
#include <limits>

#include "kernels/cuda/eights.hpp"
#include "kernels/cuda/rows.hpp"
#include "kernels/cuda/squares.hpp"

namespace lockstep::cuda::fast {

// first(m, d, s) for d = 8 thread, 8 thread + 2048, ... of row m goes on with a thread's sum s; join(a, b)
// joins two; finish(m, d, s) gets the row's, for the same d; and once(m, s) by one thread.
template <class First, class Join, class Finish, class Once>
struct BlockOfRow {
  struct State {};
  i64 D;
  float start;
  First first;
  Join join;
  Finish finish;
  Once once;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 4; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State&) const {
    const i64 m = at.block, step = 8 * i64{at.threads};
    if (p == 0) {
      float sum = start;
      for (i64 d = 8 * i64{at.thread}; d < D; d += step) sum = first(m, d, sum);
      at.shared[at.thread] = sum;
    } else if (p == 1) {
      if (at.thread >= 16) return;
      float sum = at.shared[at.thread];
      for (int i = at.thread + 16; i < at.threads; i += 16) sum = join(sum, at.shared[i]);
      at.shared[at.threads + at.thread] = sum;
    } else if (p == 2) {
      if (at.thread > 0) return;
      float sum = at.shared[at.threads];
      for (int i = 1; i < 16; ++i) sum = join(sum, at.shared[at.threads + i]);
      at.shared[0] = sum;
      once(m, sum);
    } else {
      for (i64 d = 8 * i64{at.thread}; d < D; d += step) finish(m, d, at.shared[0]);
    }
  }
};
template <class On, class First, class Join, class Finish, class Once>
void rows(Lanes& lanes, i64 M, i64 D, float start, const First& first, const Join& join, const Finish& finish,
          const Once& once) {
  if (M > 0)
    On::launch(lanes, BlockOfRow<First, Join, Finish, Once>{D, start, first, join, finish, once}, M, kThreads,
               kThreads + 16);
}

template <class On, class X>
bool rms_norm(Lanes& lanes, X* y, float* rstd, const X* x, const X* w, i64 M, i64 D, double eps) {
  if (!in_eights(D, y, x, w)) return false;
  const auto rate = [=] LOCKSTEP_ANYWHERE(float sum) {
    return 1.0f / std::sqrt(sum / static_cast<float>(D) + static_cast<float>(eps));
  };
  rows<On>(
      lanes, M, D, 0.0f,
      [=] LOCKSTEP_ANYWHERE(i64 m, i64 d, float sum) {
        const Eight a = load(x + m * D + d);
        for (const float e : a.at) sum = std::fma(e, e, sum);
        return sum;
      },
      [=] LOCKSTEP_ANYWHERE(float a, float b) { return a + b; },
      [=] LOCKSTEP_ANYWHERE(i64 m, i64 d, float sum) {
        Eight a = load(x + m * D + d);
        const Eight weight = load(w + d);
        const float rs = rate(sum);
        for (int i = 0; i < 8; ++i) a.at[i] = weight.at[i] * (a.at[i] * rs);
        store(y + m * D + d, a);
      },
      [=] LOCKSTEP_ANYWHERE(i64 m, float sum) { rstd[m] = rate(sum); });
  return true;
}

template <class On, class X, class Dy>
bool rms_norm_dx(Lanes& lanes, X* dx, const Dy* dy, const X* x, const float* rstd, const X* w, i64 M, i64 D) {
  if (!in_eights(D, dx, dy, x, w)) return false;
  rows<On>(
      lanes, M, D, 0.0f,
      [=] LOCKSTEP_ANYWHERE(i64 m, i64 d, float sum) {
        const Eight grad = load(dy + m * D + d), a = load(x + m * D + d), weight = load(w + d);
        for (int i = 0; i < 8; ++i) sum = std::fma(grad.at[i] * weight.at[i], a.at[i] * rstd[m], sum);
        return sum;
      },
      [=] LOCKSTEP_ANYWHERE(float a, float b) { return a + b; },
      [=] LOCKSTEP_ANYWHERE(i64 m, i64 d, float sum) {
        const Eight grad = load(dy + m * D + d), a = load(x + m * D + d), weight = load(w + d);
        const float mean = sum / static_cast<float>(D);
        Eight out;
        for (int i = 0; i < 8; ++i)
          out.at[i] = rstd[m] * (grad.at[i] * weight.at[i] - (a.at[i] * rstd[m]) * mean);
        store(dx + m * D + d, out);
      },
      [=] LOCKSTEP_ANYWHERE(i64, float) {});
  return true;
}

// A block makes 16 columns, a memory sector of bf16: 128 threads go through the rows for each half of them.
template <class X, class Dy>
struct ColumnSums {
  static constexpr int kColumns = 16, kGroups = kThreads / 2;
  struct State {};
  float* dw;
  const Dy* dy;
  const X* x;
  const float* rstd;
  i64 T, D;
  bool add;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 2; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State&) const {
    const i64 first = at.block * kColumns;
    if (p == 0) {
      const i64 d = first + at.thread % 2 * 8;
      Eight sum{};
      if (d < D)
        for (i64 t = at.thread / 2; t < T; t += kGroups) {
          const Eight grad = load(dy + t * D + d), a = load(x + t * D + d);
          const float rs = rstd[t];
          for (int i = 0; i < 8; ++i) sum.at[i] = std::fma(grad.at[i], a.at[i] * rs, sum.at[i]);
        }
      for (int i = 0; i < 8; ++i) at.shared[at.thread / 2 * kColumns + at.thread % 2 * 8 + i] = sum.at[i];
    } else if (at.thread < kColumns && first + at.thread < D) {
      float sum = 0.0f;
      for (int g = 0; g < kGroups; ++g) sum += at.shared[g * kColumns + at.thread];
      float& out = dw[first + at.thread];
      out = add ? out + sum : sum;
    }
  }
};
template <class On, class X, class Dy>
bool rms_norm_dw(Lanes& lanes, float* dw, const Dy* dy, const X* x, const float* rstd, i64 T, i64 D,
                 i64 /*leaves*/, bool add) {
  if (!in_eights(D, dy, x)) return false;
  using Kernel = ColumnSums<X, Dy>;
  On::launch(lanes, Kernel{dw, dy, x, rstd, T, D, add}, blocks_for(D, Kernel::kColumns), kThreads,
             Kernel::kGroups * Kernel::kColumns);
  return true;
}

template <class On, class X>
bool ce_max(Lanes& lanes, float* max, const X* logits, i64 M, i64 V, i64 valid) {
  if (!in_eights(V, logits)) return false;
  rows<On>(
      lanes, M, valid, -std::numeric_limits<float>::infinity(),
      [=] LOCKSTEP_ANYWHERE(i64 m, i64 n, float most) {
        const Eight x = load(logits + m * V + n);
        for (int i = 0; i < 8; ++i)
          if (n + i < valid) most = greater(most, x.at[i]);
        return most;
      },
      [=] LOCKSTEP_ANYWHERE(float a, float b) { return greater(a, b); },
      [=] LOCKSTEP_ANYWHERE(i64, i64, float) {}, [=] LOCKSTEP_ANYWHERE(i64 m, float most) { max[m] = most; });
  return true;
}

template <class On, class X>
bool ce_sum(Lanes& lanes, float* sum, float* target, const X* logits, const float* max, const i32* labels,
            i64 M, i64 V, i64 valid, i64 first, i64 /*leaves*/) {
  if (!in_eights(V, logits)) return false;
  rows<On>(
      lanes, M, valid, 0.0f,
      [=] LOCKSTEP_ANYWHERE(i64 m, i64 n, float all) {
        const Eight x = load(logits + m * V + n);
        const float most = max[m];
        for (int i = 0; i < 8; ++i)
          if (n + i < valid) all += quick_exp(x.at[i] - most);
        return all;
      },
      [=] LOCKSTEP_ANYWHERE(float a, float b) { return a + b; }, [=] LOCKSTEP_ANYWHERE(i64, i64, float) {},
      [=] LOCKSTEP_ANYWHERE(i64 m, float all) {
        sum[m] = all;
        const i64 column = label_column(labels[m], first, valid);
        target[m] = column < 0 ? 0.0f : float{logits[m * V + column]};
      });
  return true;
}

template <class On, class X>
bool ce_dx(Lanes& lanes, X* logits, const float* max, const float* sum, const i32* labels, i64 M, i64 V,
           i64 valid, i64 first, float scale) {
  if (!in_eights(V, logits)) return false;
  each_eight<On>(lanes, M * V, [=] LOCKSTEP_ANYWHERE(i64 i) {
    const i64 m = i / V, n = i % V;
    Eight x{};
    if (labels[m] >= 0) {
      x = load(logits + i);
      const i64 column = label_column(labels[m], first, valid);
      const float rate = quick_ratio(1.0f, sum[m]), most = max[m];
      for (int j = 0; j < 8; ++j) {
        const float p = quick_exp(x.at[j] - most) * rate;
        x.at[j] = n + j < valid ? (n + j == column ? p - 1.0f : p) * scale : 0.0f;
      }
    }
    store(logits + i, x);
  });
  return true;
}

// The sum of squares (of float32, exact in float64) in twice float64's digits: high holds what an addition
// keeps, low what it rounds away (Knuth, The Art of Computer Programming 2, 4.2.2, theorem B). So the root is
// the exact sum's.
struct Double2 {
  double high = 0, low = 0;
  LOCKSTEP_ANYWHERE void add(double x) {
    const double sum = high + x, part = sum - high;
    low += (high - (sum - part)) + (x - part);
    high = sum;
  }
};

// Both halves of a block's sum are added to the fixed-point words exactly.
struct SumOfSquares {
  struct State {};
  i64* words;
  const float* x;
  i64 n, threads;  // of all blocks
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 3; }
  LOCKSTEP_ANYWHERE void phase(i64 p, const Place& at, State&) const {
    auto* const sums = reinterpret_cast<Double2*>(at.shared);
    if (p == 0) {
      Double2 sum;
      for (i64 i = 8 * (at.block * at.threads + at.thread); i < n; i += 8 * threads) {
        const Eight a = load(x + i);
        for (const float e : a.at) sum.add(static_cast<double>(e) * e);
      }
      sums[at.thread] = sum;
    } else if (p == 1) {
      if (at.thread < 16) gather(sums, at.thread, at.threads, 16);
    } else if (at.thread == 0) {
      gather(sums, 0, 16, 1);
      if (!(sums[0].high < INFINITY)) return add_to(words + kSquareLimbs, 1);
      deposit(sums[0].high);
      deposit(sums[0].low);
    }
  }

 private:
  LOCKSTEP_ANYWHERE static void gather(Double2* sums, int first, int end, int apart) {
    Double2 sum = sums[first];
    for (int i = first + apart; i < end; i += apart) {
      sum.low += sums[i].low;
      sum.add(sums[i].high);
    }
    sums[first] = sum;
  }

  LOCKSTEP_ANYWHERE void deposit(double sum) const {
    const auto bits = std::bit_cast<std::uint64_t>(sum);
    const int exponent = static_cast<int>(bits >> 52 & 0x7ff);
    if (exponent == 0) return;  // zero: all here are multiples of 2^-298, the least square of a float32
    const std::uint64_t mantissa = (bits & 0xfffffffffffff) | std::uint64_t{1} << 52;
    const int place = exponent - 1075 + 448, limb = place / 32, shift = place % 32;
    const std::uint64_t low = (mantissa & 0xffffffff) << shift, high = (mantissa >> 32) << shift;
    const i64 sign = bits >> 63 ? -1 : 1;
    add_to(words + limb, sign * static_cast<i64>(low & 0xffffffff));
    add_to(words + limb + 1, sign * static_cast<i64>((low >> 32) + (high & 0xffffffff)));
    add_to(words + limb + 2, sign * static_cast<i64>(high >> 32));
  }
};
template <class On>
bool add_squares(Lanes& lanes, i64* words, const float* x, i64 n) {
  if (n < 8 || !in_eights(n, x)) return false;
  const i64 blocks = lesser(blocks_for(n, 32 * kThreads), 1056);
  On::launch(lanes, SumOfSquares{words, x, n, blocks * kThreads}, blocks, kThreads, 4 * kThreads);
  return true;
}

}  // namespace lockstep::cuda::fast
