// The members' contributions of a sum or maximum, combined in the order of EXACT.md: what combine_tree
// (parallel/comm/tree.cpp) does on the host, one element a thread.
#pragma once
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/frame.hpp"

namespace lockstep::cuda {

// Few parts leave a kernel small arguments; many need more than the 4 KB that were all before CUDA 12.1.
inline constexpr int kFewParts = 64, kMostParts = 1024;

struct Sum {
  template <class T>
  LOCKSTEP_ANYWHERE T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {  // integers wrap
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    } else {
      return a + b;
    }
  }
};
struct Max {  // of anything and NaN: NaN
  template <class T>
  LOCKSTEP_ANYWHERE T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

// out[n] = tree over part[0..count) of n elements each. `out` may be one of the parts: an element is read
// from all of them before it is written.
template <class T, class F, int kParts>
struct Ordered {
  static constexpr int kLevels = 11;  // of a tree over kMostParts
  static_assert(kParts <= 1 << (kLevels - 1));
  struct State {};
  const T* part[kParts];
  std::uint8_t merges[kParts];  // after each part
  int count;
  i64 n;
  T* out;
  LOCKSTEP_ANYWHERE i64 phases(i64) const { return 1; }
  LOCKSTEP_ANYWHERE void phase(i64, const Place& at, State&) const {
    const i64 e = at.block * at.threads + at.thread;
    if (e >= n) return;
    T stack[kLevels];
    int top = 0;
    for (int i = 0; i < count; ++i) {
      stack[top++] = part[i][e];
      for (int m = merges[i]; m > 0; --m, --top) stack[top - 2] = F{}(stack[top - 2], stack[top - 1]);
    }
    out[e] = stack[0];
  }
};

template <class On, class T, class F, int kParts>
void ordered_among(Lanes& lanes, const void* const* parts, int count, i64 n, void* out) {
  Ordered<T, F, kParts> kernel{};
  for (int i = 0; i < count; ++i) {
    kernel.part[i] = static_cast<const T*>(parts[i]);
    kernel.merges[i] = static_cast<std::uint8_t>(merges_after(i, count));
  }
  kernel.count = count, kernel.n = n, kernel.out = static_cast<T*>(out);
  if (n > 0) On::launch(lanes, kernel, blocks_for(n, kThreads), kThreads, 0);
}

template <class On, class T, class F>
void ordered(Lanes& lanes, const void* const* parts, int count, i64 n, void* out) {
  if (count <= kFewParts) return ordered_among<On, T, F, kFewParts>(lanes, parts, count, n, out);
#if !defined(CUDART_VERSION) || CUDART_VERSION >= 12010
  if (count <= kMostParts) return ordered_among<On, T, F, kMostParts>(lanes, parts, count, n, out);
  throw std::invalid_argument("device cuda combines at most 1024 parts");
#else
  throw std::invalid_argument("built with a CUDA toolkit before 12.1, device cuda combines at most 64 parts");
#endif
}

}  // namespace lockstep::cuda
