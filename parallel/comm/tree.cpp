#include "parallel/comm/tree.hpp"

#include <algorithm>
#include <stdexcept>
#include <type_traits>

#include "kernels/bf16.hpp"

namespace lockstep {
namespace {

constexpr i64 kBlock = 512;  // elements combined at a time, so that partial results stay in cache
constexpr int kDepth = 10;   // levels of a tree over kMaxRanks
static_assert(1 << kDepth >= kMaxRanks);

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    } else {
      return a + b;
    }
  }
};

struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

// Parts are stored as T; bf16 ones are widened and combined in float32.
template <class T, class F>
class Tree {
 public:
  using W = Wide<T>;
  Tree(const void* const* parts, i64 offset, i64 n) : parts_(parts), offset_(offset), n_(n) {}

  // Where the combination of parts [lo, hi) lies: a single part stays where it is, more go to `out`.
  // `out` is first written when the first part has been read, so it may be that part.
  const W* combine(int lo, int hi, W* out, int depth) {
    if (hi - lo == 1) {
      const T* part = static_cast<const T*>(parts_[lo]) + offset_;
      if constexpr (std::is_same_v<T, W>)
        return part;
      else
        return std::copy_n(part, n_, out), out;
    }
    const int mid = lo + (hi - lo) / 2;
    const W* left = combine(lo, mid, out, depth + 1);
    const W* right = combine(mid, hi, right_[depth], depth + 1);
    if (n_ == kBlock)
      join(left, right, out, kBlock);  // a constant count: the compiler vectorises it
    else
      join(left, right, out, n_);
    return out;
  }

 private:
  [[gnu::always_inline]] static void join(const W* left, const W* right, W* out, i64 n) {
#pragma GCC ivdep  // `out` is apart from the inputs, or is exactly one of them
    for (i64 i = 0; i < n; ++i) out[i] = F{}(left[i], right[i]);
  }
  const void* const* parts_;
  i64 offset_, n_;
  W right_[kDepth][kBlock];
};

template <class T, class F>
void combine(const void* const* parts, int count, i64 n, void* out) {
  for (i64 at = 0; at < n; at += kBlock) {
    const i64 size = std::min(kBlock, n - at);
    T* to = static_cast<T*>(out) + at;
    if constexpr (std::is_same_v<T, Wide<T>>) {
      const T* sum = Tree<T, F>(parts, at, size).combine(0, count, to, 0);
      if (sum != to) std::copy_n(sum, size, to);
    } else {
      Wide<T> wide[kBlock];
      const Wide<T>* sum = Tree<T, F>(parts, at, size).combine(0, count, wide, 0);
      std::transform(sum, sum + size, to, [](Wide<T> x) { return T(x); });
    }
  }
}

template <class T>
void combine(Reduce reduce, const void* const* parts, int count, i64 n, void* out) {
  if (reduce == Reduce::sum) return combine<T, Sum>(parts, count, n, out);
  if (reduce == Reduce::max) return combine<T, Max>(parts, count, n, out);
  throw CommError("a reduction must be a sum or a max");
}

}  // namespace

void combine_tree(Type type, Reduce reduce, const void* const* parts, int count, i64 n, void* out) {
  switch (type) {
    case Type::f32:
      return combine<float>(reduce, parts, count, n, out);
    case Type::f64:
      return combine<double>(reduce, parts, count, n, out);
    case Type::i64:
      return combine<i64>(reduce, parts, count, n, out);
    case Type::i32:
      return combine<i32>(reduce, parts, count, n, out);
    case Type::bf16:
      return combine<bf16>(reduce, parts, count, n, out);
  }
}

}  // namespace lockstep
