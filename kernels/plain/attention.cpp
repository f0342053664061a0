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

template <class Real, class X>
void attention(Lanes& lanes, X* o, Real* lse, const X* q, const X* k, const X* v, i64 B, i64 T, i64 H, i64 K,
               i64 hd) {
  static_assert(kKeys <= kScratch<Real> && kKeys % 16 == 0);
  const Real scale = attention_scale<Real>(hd);
  lanes.split(B * H, 1, [&](i64 begin, i64 end, int lane) {
    Real* s = scratch<Real>(lanes, lane);
    Real* out = s + kKeys;
    for (i64 head = begin; head < end; ++head) {
      const i64 b = head / H, h = head % H, kv = h / (H / K);
      const auto key_row = [&](i64 j) { return ((b * T + j) * K + kv) * hd; };
      for (i64 i = 0; i < T; ++i) {
        const i64 row = ((b * T + i) * H + h) * hd;
        const i64 keys = i + 1;
        const auto scores = [&](i64 first, i64 count) {
          for (i64 j = 0; j < count; ++j) s[j] = scale * dot(q + row, k + key_row(first + j), hd);
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
            for (i64 d = 0; d < hd; ++d) out[d] = std::fma(p, Real{v[key_row(first + j) + d]}, out[d]);
          }
        }
        const Real total = sum.total();
        for (i64 d = 0; d < hd; ++d) o[row + d] = static_cast<X>(out[d] / total);
        lse[head * T + i] = max + exact_log(total);
      }
    }
  });
}

// What both halves of the backward pass compute anew: a row's delta, and of a row and a key the probability
// and the gradient of its score.
template <class Real, class X>
struct Scores {
  const X *dO, *q, *k, *v, *o;
  i64 hd;
  Real scale;

  Real delta(i64 row) const {
    LaneSum<Real> sum;
    for (i64 d = 0; d < hd; ++d) sum.add_product(d, dO[row + d], o[row + d]);
    return sum.total();
  }
  struct Pair {
    Real p, ds;
  };
  Pair pair(i64 row, i64 key, Real lse, Real row_delta) const {
    const Real p = exact_exp(scale * dot(q + row, k + key, hd) - lse);
    return {p, p * (dot(dO + row, v + key, hd) - row_delta)};
  }
};

// One lane does all query heads of one kv head, a block of keys at a time: dk and dv, of which those of each
// query head are leaves of the group's tree, and with them dq, a chain over keys that goes on from block to
// block where its sums can wait. What is stored as bf16 cannot hold them: then dq comes first, by itself.
template <class Real, class X, class Dkv>
void attention_dx(Lanes& lanes, X* dq, Dkv* dk, Dkv* dv, const X* dO, const X* q, const X* k, const X* v,
                  const X* o, const Real* lse, i64 B, i64 T, i64 H, i64 K, i64 hd) {
  constexpr bool kInPlace = std::is_same_v<X, Real>;
  const Scores<Real, X> scores{dO, q, k, v, o, hd, attention_scale<Real>(hd)};
  const i64 group = H / K;
  const i64 levels = tree_depth(group) + 1;
  const i64 block = std::clamp<i64>(kScratch<Real> / (2 * hd * levels), 1, 64);
  lanes.split(B * K, 1, [&](i64 begin, i64 end, int lane) {
    Real* sum = scratch<Real>(lanes, lane);
    for (i64 head = begin; head < end; ++head) {
      const i64 b = head / K, kv = head % K;
      const auto key_row = [&](i64 j) { return ((b * T + j) * K + kv) * hd; };
      const auto query_row = [&](i64 i, i64 member) { return ((b * T + i) * H + kv * group + member) * hd; };
      const auto row_lse = [&](i64 i, i64 member) { return lse[(b * H + kv * group + member) * T + i]; };

      const auto each_query = [&](const auto& body) {
        for (i64 member = 0; member < group; ++member)
          for (i64 i = 0; i < T; ++i) body(member, i, query_row(i, member));
      };
      each_query([&](i64 member, i64 i, i64 row) {
        if constexpr (kInPlace) return void(std::fill_n(dq + row, hd, X{0}));
        const Real delta = scores.delta(row);
        std::fill_n(sum, hd, Real{0});
        for (i64 j = 0; j <= i; ++j) {
          const Real ds = scores.pair(row, key_row(j), row_lse(i, member), delta).ds;
          for (i64 d = 0; d < hd; ++d) sum[d] = std::fma(ds, Real{k[key_row(j) + d]}, sum[d]);
        }
        for (i64 d = 0; d < hd; ++d) dq[row + d] = static_cast<X>(scores.scale * sum[d]);
      });

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
            const Real delta = scores.delta(row);
            for (i64 j = 0; j < std::min(count, i + 1 - first); ++j) {
              const auto [p, ds] = scores.pair(row, key_row(first + j), row_lse(i, member), delta);
              for (i64 d = 0; d < hd; ++d) {
                acc_dk[j * hd + d] = std::fma(ds, Real{q[row + d]}, acc_dk[j * hd + d]);
                acc_dv[j * hd + d] = std::fma(p, Real{dO[row + d]}, acc_dv[j * hd + d]);
              }
              if constexpr (kInPlace)
                for (i64 d = 0; d < hd; ++d)
                  dq[row + d] = std::fma(ds, k[key_row(first + j) + d], dq[row + d]);
            }
          }
          for (i64 d = 0; d < count * hd; ++d) acc_dk[d] = scores.scale * acc_dk[d];
        });
        for (i64 j = 0; j < count; ++j) {
          store(sum + j * hd, hd, dk + key_row(first + j));
          store(sum + (count + j) * hd, hd, dv + key_row(first + j));
        }
      }
      if constexpr (kInPlace)
        each_query([&](i64, i64, i64 row) {
          for (i64 d = 0; d < hd; ++d) dq[row + d] = scores.scale * dq[row + d];
        });
    }
  });
}

}  // namespace

template <class Real>
void fill_attention(Ops<Real>& ops) {
  ops.attention.call = attention<Real, Real>;
  ops.attention_dx.call = attention_dx<Real, Real, Real>;
  if constexpr (std::is_same_v<Real, float>) {
    set_mixed<attention<float, bf16>>(ops.attention);
    set_mixed<attention_dx<float, bf16, bf16>, attention_dx<float, bf16, float>>(ops.attention_dx);
  }
}
template void fill_attention(Ops<float>&);
template void fill_attention(Ops<double>&);

}  // namespace lockstep::plain
