#include "parallel/price/layer.hpp"

#include <algorithm>

namespace lockstep {

Sizes sizes(const Shape& s, const PriceOf<Seam>& seam, const PriceOf<Spread>& spread) {
  const i64 Ts = seam.outside(s), M = s.b * s.T, statistic = 4 / s.activation,
            part = s.partial / s.activation;
  const bool gathers = seam.enter(s).has_value();
  Sizes z{};
  z.X = s.b * Ts * s.D, z.W = M * s.D, z.r = statistic * s.b * Ts;
  z.Q = M * seam.heads(s) * s.hd, z.KV = M * seam.kv_heads(s) * s.hd,
  z.S = statistic * s.b * seam.heads(s) * s.T;
  z.O = spread.exchanges ? z.Q : 0;
  z.F = M * seam.ffn(s), z.M = statistic * M, z.logits = M * seam.vocab(s);
  z.E = gathers ? z.W : 0;
  z.Xp = part * z.X, z.Wp = part * z.W;
  const i64 repeats = spread.repeats(s), shared = s.K < s.tp || repeats > 1 ? part : 1;
  z.KVp = shared * z.KV, z.KH = repeats * z.KV, z.KHp = shared * z.KH;
  z.sum = gathers ? z.Wp + z.Xp : z.Wp;
  z.closed = std::max(z.sum, part > 1 ? z.Xp + z.X : z.X);
  z.embedded = gathers ? z.W + z.X : z.W;
  z.leaves = statistic * s.sums * s.D;
  return z;
}

// What a layer keeps of a microbatch beside its input: two norms, q k v, attention's o and log-sum-exp, x2,
// gate and up, and their product.
i64 kept_parts(const Sizes& z, const Dropped& d) {
  return (d.norms ? 0 : 2 * (z.X + z.r)) + (d.qkv ? 0 : z.Q + 2 * z.KH) +
         (d.attention ? 0 : z.Q + z.O + z.S) + (d.x2 ? 0 : z.X) + (d.gate_up ? 0 : 2 * z.F) +
         (d.product ? 0 : z.F);
}

namespace {

// Most while q, k and v are made, one after the other: where they are exchanged, also what they are made of,
// all of it while v is, and when q has come. `kept` as none of them is a temporary.
i64 making_qkv(const Sizes& z, bool kept) {
  if (z.O == 0) return kept ? 0 : z.Q + 2 * z.KV;
  return z.Q + 2 * z.KH + std::max(kept ? 0 : z.Q, z.KH > z.KV ? z.KV : 0);
}

}  // namespace

// Most elements of temporaries in a layer's forward: at each step, what is dropped and not yet used up.
i64 forward_buffers(const Sizes& z, const Dropped& d) {
  const i64 h = d.norms ? z.X : 0, rstd = d.norms ? z.r : 0, qkv = d.qkv ? z.Q + 2 * z.KH : 0;
  const i64 making = making_qkv(z, !d.qkv), oh = d.attention ? z.O : 0;
  const i64 o = d.attention ? z.Q : 0, lse = d.attention ? z.S : 0, x2 = d.x2 ? z.X : 0;
  const i64 gates = d.gate_up ? 2 * z.F : 0, act = d.product ? z.F : 0;
  const i64 entered = z.E ? z.E : h;  // a gathered copy, or the norm's output itself
  return std::max({h + rstd, h + z.E, entered + making, qkv + o + oh + lse, o + z.closed, x2 + h + rstd,
                   x2 + h + z.E, x2 + entered + gates, x2 + gates + act, x2 + act + z.Wp, x2 + z.closed});
}

// The same in backward: the gradient that goes through the layer, those inside its branches, and what was
// made again and is not used up. Where weight gradients wait, their operands leave as they are named.
i64 backward_buffers(const Sizes& z, const Dropped& d, bool split) {
  i64 made = 0, peak = 0;
  i64 through = z.X;  // dy, then dx2
  auto at_least = [&](i64 more) { peak = std::max(peak, through + made + more); };
  bool again1 = false, again2 = false, again_qkv = false, again_o = false;  // made already
  auto enter1 = [&] {
    if (!again1) made += z.E + (d.norms ? z.X + z.r : 0);
    again1 = true;
  };
  auto qkv = [&] {
    if (!d.qkv || again_qkv) return;
    enter1();
    made += z.Q + 2 * z.KH;
    again_qkv = true;
  };
  auto attention = [&] {
    if (!d.attention || again_o) return;
    qkv();
    made += z.Q + z.O + z.S;
    again_o = true;
  };
  auto enter2 = [&] {
    if (again2) return;
    if (d.norms && d.x2) {
      attention();
      at_least(z.closed);
      made += z.X;
    }
    made += z.E + (d.norms ? z.X + z.r : 0);
    again2 = true;
  };
  // The gradient of a branch's output is the one that goes through, where no copy is gathered of it.
  auto leave_through = [&] {
    if (split && z.E == 0) through = 0;
  };
  if (d.product) {
    if (d.gate_up) enter2(), made += 2 * z.F;
    made += z.F;
  }
  at_least(z.E + z.F);  // dact
  leave_through();
  made -= d.product ? z.F : 0;
  at_least(3 * z.F);  // dact, dgate, dup
  made -= d.gate_up ? 2 * z.F : 0;
  enter2();
  at_least(2 * z.F);
  made -= z.E + (d.norms ? z.X : 0);
  at_least((split ? 0 : 2 * z.F) + z.Wp);  // the branch's input gradient
  at_least(z.sum);
  if (!split) at_least(z.Xp + std::max(z.leaves, z.X));  // norm'
  made -= (d.x2 ? z.X : 0) + (d.norms ? z.r : 0);
  if (split) at_least(z.X);
  through = z.X;
  attention(), qkv();
  at_least(z.E + z.Q);  // do
  leave_through();
  if (split && d.attention) made -= z.Q;
  at_least(2 * z.Q + 2 * z.KHp);  // do, dq, dk, dv
  made -= (d.qkv ? z.Q + 2 * z.KH : 0) + (d.attention ? z.S + z.O + (split ? 0 : z.Q) : 0);
  enter1();
  at_least(z.Q + 2 * z.KHp);
  const i64 q = split ? 0 : z.Q, h1 = d.norms ? z.X : 0;  // q's weight's gradient comes first
  if (split)
    made -= z.E + h1;
  else if (z.E)
    made -= h1;                                      // its gathered copy is there
  if (z.KH > z.KV) at_least(q + 2 * z.KHp + z.KVp);  // dk is added up, then dv
  if (!split) made -= z.E ? z.E : h1;
  at_least((split ? 0 : z.Q + 2 * z.KV) + z.Wp);
  at_least(z.sum);
  if (!split) at_least(z.Xp + std::max(z.leaves, z.X));
  made -= d.norms ? z.r : 0;
  if (split) at_least(std::max(z.X, z.leaves));
  return peak;
}

i64 head_buffers(const Sizes& z, bool split) {
  return std::max({z.X + z.r + z.E, z.r + z.W + z.logits + 3 * z.M, z.r + (split ? 0 : z.logits) + z.Wp,
                   z.r + z.sum, split ? z.X : z.r + z.Xp + std::max(z.leaves, z.X)});
}

// The inputs of the norms x and x2, of the projections h1, o, h2 and act; a gathered copy is made anew.
i64 kept_for_weights(const Sizes& z, const Dropped& d) {
  const i64 inputs = z.E ? 0 : 2 * z.X;  // h1, h2
  return z.X + (d.norms ? 0 : 2 * z.r + inputs) + (d.attention ? 0 : z.Q) + (d.x2 ? 0 : z.X) +
         (d.product ? 0 : z.F);
}

// Gradients of seven projections' and two norms' outputs; gathered inputs, and what was made again.
i64 made_for_weights(const Sizes& z, const Dropped& d) {
  const i64 inputs = z.E ? 2 * z.E : d.norms ? 2 * z.X : 0;
  return 2 * z.W + 2 * z.F + z.Q + 2 * z.KV + 2 * z.Xp + inputs + (d.norms ? 2 * z.r : 0) +
         (d.attention ? z.Q : 0) + (d.x2 ? z.X : 0) + (d.product ? z.F : 0);
}

i64 head_for_weights(const Sizes& z) { return z.logits + z.W + z.Xp + z.r; }
i64 embedding_for_weights(const Sizes& z) { return z.W; }

}  // namespace lockstep
