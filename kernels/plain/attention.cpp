// Causal attention with grouped query heads. Forward keeps one number per row, the logarithm of the
// softmax's sum, from which backward computes the probabilities again:
// Dao et al., "FlashAttention" (2022), section 3.1 and appendix B.
#include <algorithm>
#include <limits>

#include "kernels/plain/plain.hpp"

namespace lockstep::plain {
namespace {

// Keys whose scores wait in scratch: a multiple of 16, so that a lane sum goes on from block to block.
constexpr i64 kKeys = 2048;

template <class Real>
void attention(Lanes& lanes, Real* o, Real* lse, const Real* q, const Real* k, const Real* v, i64 B, i64 T,
               i64 H, i64 K, i64 hd) {
  static_assert(kKeys <= kScratch<Real> && kKeys % 16 == 0);
  const Real scale = attention_scale<Real>(hd);
  lanes.split(B * H, 1, [&](i64 begin, i64 end, int lane) {
    Real* s = scratch<Real>(lanes, lane);
    for (i64 head = begin; head < end; ++head) {
      const i64 b = head / H, h = head % H, kv = h / (H / K);
      const auto key_row = [&](i64 j) { return ((b * T + j) * K + kv) * hd; };
      for (i64 i = 0; i < T; ++i) {
        const Real* query = q + ((b * T + i) * H + h) * hd;
        Real* out = o + ((b * T + i) * H + h) * hd;
        const i64 keys = i + 1;
        const auto scores = [&](i64 first, i64 count) {
          for (i64 j = 0; j < count; ++j) s[j] = scale * dot(query, k + key_row(first + j), hd);
        };

        Real max = -std::numeric_limits<Real>::infinity();
        for (i64 first = 0; first < keys; first += kKeys) {
          const i64 count = std::min(kKeys, keys - first);
          scores(first, count);
          for (i64 j = 0; j < count; ++j) max = std::max(max, s[j]);
        }

        LaneSum<Real> sum;
        std::fill_n(out, hd, Real{0});
        for (i64 first = 0; first < keys; first += kKeys) {
          const i64 count = std::min(kKeys, keys - first);
          if (keys > kKeys) scores(first, count);  // else they are all still there
          for (i64 j = 0; j < count; ++j) {
            const Real p = exact_exp(s[j] - max);
            sum.add(j, p);
            for (i64 d = 0; d < hd; ++d) out[d] = std::fma(p, v[key_row(first + j) + d], out[d]);
          }
        }
        const Real total = sum.total();
        for (i64 d = 0; d < hd; ++d) out[d] = out[d] / total;
        lse[head * T + i] = max + exact_log(total);
      }
    }
  });
}

// One lane does all query heads of one kv head, a block of keys at a time. Within a block, dk and dv
// of each query head are leaves of the group's tree; dq's chains, whose accumulators are dq itself,
// go on from block to block.
template <class Real>
void attention_dx(Lanes& lanes, Real* dq, Real* dk, Real* dv, const Real* dO, const Real* q, const Real* k,
                  const Real* v, const Real* o, const Real* lse, i64 B, i64 T, i64 H, i64 K, i64 hd) {
  const Real scale = attention_scale<Real>(hd);
  const i64 group = H / K;
  const i64 levels = tree_depth(group) + 1;
  const i64 block = std::clamp<i64>(kScratch<Real> / (2 * hd * levels), 1, 64);
  lanes.split(B * K, 1, [&](i64 begin, i64 end, int lane) {
    Real* sum = scratch<Real>(lanes, lane);
    for (i64 head = begin; head < end; ++head) {
      const i64 b = head / K, kv = head % K;
      const auto key_row = [&](i64 j) { return ((b * T + j) * K + kv) * hd; };
      const auto query_row = [&](i64 i, i64 member) { return ((b * T + i) * H + kv * group + member) * hd; };
      for (i64 i = 0; i < T; ++i) std::fill_n(dq + query_row(i, 0), group * hd, Real{0});

      for (i64 first = 0; first < T; first += block) {
        const i64 count = std::min(block, T - first);
        // A row of the tree: dk[count, hd], then dv[count, hd].
        const i64 width = 2 * count * hd;
        tree_rows(0, group, width, sum, sum + width, [&](i64 member, Real* acc) {
          Real* acc_dk = acc;
          Real* acc_dv = acc + count * hd;
          std::fill_n(acc, width, Real{0});
          for (i64 i = first; i < T; ++i) {
            const i64 row = query_row(i, member);
            LaneSum<Real> delta;
            for (i64 d = 0; d < hd; ++d) delta.add_product(d, dO[row + d], o[row + d]);
            const Real row_delta = delta.total();
            const Real row_lse = lse[(b * H + kv * group + member) * T + i];
            for (i64 j = 0; j < std::min(count, i + 1 - first); ++j) {
              const i64 key = key_row(first + j);
              const Real s = scale * dot(q + row, k + key, hd);
              const Real p = exact_exp(s - row_lse);
              const Real dp = dot(dO + row, v + key, hd);
              const Real ds = p * (dp - row_delta);
              for (i64 d = 0; d < hd; ++d) {
                dq[row + d] = std::fma(ds, k[key + d], dq[row + d]);
                acc_dk[j * hd + d] = std::fma(ds, q[row + d], acc_dk[j * hd + d]);
                acc_dv[j * hd + d] = std::fma(p, dO[row + d], acc_dv[j * hd + d]);
              }
            }
          }
          for (i64 d = 0; d < count * hd; ++d) acc_dk[d] = scale * acc_dk[d];
        });
        for (i64 j = 0; j < count; ++j) {
          std::copy_n(sum + j * hd, hd, dk + key_row(first + j));
          std::copy_n(sum + (count + j) * hd, hd, dv + key_row(first + j));
        }
      }

      for (i64 i = 0; i < T; ++i)
        for (i64 d = 0; d < group * hd; ++d) dq[query_row(i, 0) + d] = scale * dq[query_row(i, 0) + d];
    }
  });
}

}  // namespace

template <class Real>
void fill_attention(Ops<Real>& ops) {
  ops.attention.call = attention<Real>;
  ops.attention_dx.call = attention_dx<Real>;
}
template void fill_attention(Ops<float>&);
template void fill_attention(Ops<double>&);

}  // namespace lockstep::plain
