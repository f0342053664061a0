// Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021), section 3.2.2,
// pairing coordinate j with j + hd / 2 as Llama's weights expect.
#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class Real, class X>
void rope(Lanes& lanes, X* x, const Real* cos, const Real* sin, i64 M, i64 T, i64 heads, i64 hd,
          bool inverse) {
  const i64 half = hd / 2;
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m)
      for (i64 h = 0; h < heads; ++h) {
        X* low = x + (m * heads + h) * hd;
        X* high = low + half;
        for (i64 j = 0; j < half; ++j) {
          const Real c = cos[m % T * half + j];
          const Real s = inverse ? -sin[m % T * half + j] : sin[m % T * half + j];
          const Real a = low[j], b = high[j];
          low[j] = static_cast<X>(std::fma(-b, s, a * c));
          high[j] = static_cast<X>(std::fma(a, s, b * c));
        }
      }
  });
}

}  // namespace

template <class Real>
void fill_rope(Ops<Real>& ops) {
  ops.rope.call = rope<Real, Real>;
  if constexpr (std::is_same_v<Real, float>) set_mixed<rope<float, bf16>>(ops.rope);
}
template void fill_rope(Ops<float>&);
template void fill_rope(Ops<double>&);

}  // namespace lockstep::plain
