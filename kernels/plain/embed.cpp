#include <algorithm>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

template <class X>
void embed(Lanes& lanes, X* y, const X* table, const i32* ids, i64 M, i64 D, i64 first, i64 rows) {
  lanes.split(M, 1, [&](i64 begin, i64 end, int) {
    for (i64 m = begin; m < end; ++m) {
      const i64 row = ids[m] - first;
      if (0 <= row && row < rows)
        std::copy_n(table + row * D, D, y + m * D);
      else
        std::fill_n(y + m * D, D, X(0));
    }
  });
}

// A row's tokens are summed before they meet dtable, so a token looks for its like over the whole
// sequence: T * T cheap comparisons per lane, instead of a buffer as large as the table.
template <class Real, class X>
void embed_dw(Lanes& lanes, Real* dtable, const X* dy, const i32* ids, i64 T, i64 D, i64 first, i64 rows,
              bool add) {
  lanes.split(D, kColumnGrain, [&](i64 begin, i64 end, int lane) {
    Real* sum = scratch<Real>(lanes, lane);
    if (!add)
      for (i64 row = 0; row < rows; ++row)
        std::fill(dtable + row * D + begin, dtable + row * D + end, Real{0});
    for (i64 t = 0; t < T; ++t) {
      const i64 row = ids[t] - first;
      if (row < 0 || row >= rows || std::find(ids, ids + t, ids[t]) != ids + t) continue;
      for (i64 d = begin; d < end; d += kBlock) {
        const i64 width = std::min(kBlock, end - d);
        std::fill_n(sum, width, Real{0});
        for (i64 s = t; s < T; ++s)
          if (ids[s] == ids[t])
            for (i64 j = 0; j < width; ++j) sum[j] = sum[j] + Real{dy[s * D + d + j]};
        Real* out = dtable + row * D + d;
        for (i64 j = 0; j < width; ++j) out[j] = out[j] + sum[j];
      }
    }
  });
}

}  // namespace

template <class Real>
void fill_embed(Ops<Real>& ops) {
  ops.embed.call = embed<Real>;
  ops.embed_dw.call = embed_dw<Real, Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<embed<bf16>>(ops.embed);
    set_mixed<embed_dw<float, bf16>>(ops.embed_dw);
  }
}
template void fill_embed(Ops<float>&);
template void fill_embed(Ops<double>&);

}  // namespace lockstep::plain
