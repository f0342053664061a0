// Plain kernels are templates over what their operands are stored as; this makes the entries of a table for
// operands some of which are bf16.
#pragma once
#include "kernels/ops.hpp"

namespace lockstep {
// Throws std::logic_error; elsewhere, because what is compiled for a newer processor must not throw.
[[noreturn]] void no_such_mixture();
}  // namespace lockstep

namespace lockstep::plain {

// Inlined, because files that call them are compiled for different instruction sets.
template <class... B, class... A>
[[gnu::always_inline]] inline bool called(void (*kernel)(Lanes&, B...), Lanes& lanes, unsigned halves,
                                          unsigned given, A... a) {
  if ((halves ^ kHalves<B...>)&given) return false;
  kernel(lanes, retyped<B>(a)...);
  return true;
}

template <class A>
[[gnu::always_inline]] inline bool is_given(A a) {
  if constexpr (std::is_pointer_v<A>)
    return a != nullptr;
  else
    return false;
}

// The first of `kernels` whose operands are stored as the call's; one that is left out (null) suits all.
template <auto... kernels, class... A>
void set_mixed(Op<A...>& op) {
  op.mixed = [](Lanes& lanes, unsigned halves, A... a) {
    unsigned given = 0, bit = 1;
    ((given |= is_given(a) ? bit : 0, bit <<= 1), ...);
    if (!(called(kernels, lanes, halves, given, a...) || ...)) no_such_mixture();
  };
}

}  // namespace lockstep::plain
