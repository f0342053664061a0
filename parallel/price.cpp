#include "parallel/price.hpp"

#include <algorithm>

#include "kernels/ops.hpp"
#include "parallel/roles.hpp"

namespace lockstep {

Shape shape_of(const Plan& plan, const ModelConfig& c, const Settings& s, int rank) {
  const int dp = plan.number("dp"), tp = plan.number("tp"), pp = plan.number("pp");
  const i64 b = plan.number("micro");
  Shape x{};
  x.T = s.seq, x.D = c.hidden, x.H = c.heads, x.K = c.kv_heads, x.hd = c.head_dim, x.F = c.intermediate;
  x.V = c.vocab, x.Vp = (c.vocab + s.leaves - 1) / s.leaves * s.leaves, x.L = c.layers, x.R = s.leaves;
  x.tied = c.tied;
  x.n = s.batch, x.b = b, x.m = s.batch / dp / b;
  x.dp = dp, x.tp = tp, x.pp = pp;
  x.tp_at = rank % tp, x.dp_at = rank / tp % dp, x.stage = rank / tp / dp;
  x.plan = &plan;
  return x;
}

namespace {

// One microbatch's tensors on this rank, in elements.
struct Sizes {
  i64 X, W;       // [b,Ts,D] outside the branches, [b,T,D] inside
  i64 r;          // rstd of a norm
  i64 Q, KV, S;   // q or o; k or v; log-sum-exp
  i64 F;          // gate, up or act
  i64 M, logits;  // tokens; tokens x vocabulary rows
  i64 E;          // what entering a branch adds: a gathered copy, or nothing where it is the norm's output
  i64 sum;     // most that closing a branch holds: partial and sum, or one buffer where it is summed in place
  i64 leaves;  // norm-weight gradients of the sequences
};

Sizes sizes(const Shape& s, const PriceOf<Seam>& seam) {
  const i64 Ts = seam.outside(s), M = s.b * s.T;
  const bool gathers = seam.enter(s).has_value();
  Sizes z{};
  z.X = s.b * Ts * s.D, z.W = M * s.D, z.r = s.b * Ts;
  z.Q = M * seam.heads(s) * s.hd, z.KV = M * seam.kv_heads(s) * s.hd, z.S = s.b * seam.heads(s) * s.T;
  z.F = M * seam.ffn(s), z.M = M, z.logits = M * seam.vocab(s);
  z.E = gathers ? z.W : 0;
  z.sum = gathers ? z.W + z.X : z.W;
  z.leaves = s.b * s.D;
  return z;
}

// What a layer keeps of a microbatch beside its input: two norms, q k v, attention's o and log-sum-exp, x2,
// gate and up, and their product.
i64 kept_parts(const Sizes& z, const Dropped& d) {
  return (d.norms ? 0 : 2 * (z.X + z.r)) + (d.qkv ? 0 : z.Q + 2 * z.KV) + (d.attention ? 0 : z.Q + z.S) +
         (d.x2 ? 0 : z.X) + (d.gate_up ? 0 : 2 * z.F) + (d.product ? 0 : z.F);
}

// Most elements of temporaries in a layer's forward: at each step, what is dropped and not yet used up.
i64 forward_buffers(const Sizes& z, const Dropped& d) {
  const i64 h = d.norms ? z.X : 0, rstd = d.norms ? z.r : 0, qkv = d.qkv ? z.Q + 2 * z.KV : 0;
  const i64 o = d.attention ? z.Q : 0, lse = d.attention ? z.S : 0, x2 = d.x2 ? z.X : 0;
  const i64 gates = d.gate_up ? 2 * z.F : 0, act = d.product ? z.F : 0;
  const i64 entered = z.E ? z.E : h;  // a gathered copy, or the norm's output itself
  return std::max({h + rstd, h + z.E, entered + qkv, qkv + o + lse, o + z.sum, x2 + h + rstd, x2 + h + z.E,
                   x2 + entered + gates, x2 + gates + act, x2 + act + z.W, x2 + z.sum});
}

// The same in backward: dy, the gradients on their way, and what was made again and is not used up.
i64 backward_buffers(const Sizes& z, const Dropped& d) {
  i64 made = 0, peak = 0;
  auto at_least = [&](i64 more) { peak = std::max(peak, z.X + made + more); };
  bool again1 = false, again2 = false, again_qkv = false, again_o = false;  // made already
  auto enter1 = [&] {
    if (!again1) made += z.E + (d.norms ? z.X + z.r : 0);
    again1 = true;
  };
  auto qkv = [&] {
    if (!d.qkv || again_qkv) return;
    enter1();
    made += z.Q + 2 * z.KV;
    again_qkv = true;
  };
  auto attention = [&] {
    if (!d.attention || again_o) return;
    qkv();
    made += z.Q + z.S;
    again_o = true;
  };
  auto enter2 = [&] {
    if (again2) return;
    if (d.norms && d.x2) {
      attention();
      at_least(z.sum);
      made += z.X;
    }
    made += z.E + (d.norms ? z.X + z.r : 0);
    again2 = true;
  };
  if (d.product) {
    if (d.gate_up) enter2(), made += 2 * z.F;
    made += z.F;
  }
  at_least(z.E + z.F);  // dact
  made -= d.product ? z.F : 0;
  at_least(3 * z.F);  // dact, dgate, dup
  made -= d.gate_up ? 2 * z.F : 0;
  enter2();
  at_least(2 * z.F);
  made -= z.E + (d.norms ? z.X : 0);
  at_least(2 * z.F + z.W);  // the branch's input gradient
  at_least(z.sum);
  at_least(z.X + std::max(z.leaves, z.X));  // norm'
  made -= (d.x2 ? z.X : 0) + (d.norms ? z.r : 0);
  attention(), qkv();
  at_least(z.E + z.Q);           // do
  at_least(2 * z.Q + 2 * z.KV);  // do, dq, dk, dv
  made -= (d.qkv ? z.Q + 2 * z.KV : 0) + (d.attention ? z.Q + z.S : 0);
  enter1();
  at_least(z.Q + 2 * z.KV);
  made -= z.E + (d.norms ? z.X : 0);
  at_least(z.Q + 2 * z.KV + z.W);
  at_least(z.sum);
  at_least(z.X + std::max(z.leaves, z.X));
  return peak;
}

i64 head_buffers(const Sizes& z) {
  return std::max(
      {z.X + z.r + z.E, z.r + z.W + z.logits + 3 * z.M, z.r + z.sum, z.r + z.X + std::max(z.leaves, z.X)});
}

}  // namespace

Price price(const Plan& plan, const ModelConfig& model, const Settings& settings, int rank) {
  const PriceOf<Seam>& seam = chosen<Seam>(plan).price;
  const PriceOf<Schedule>& schedule = chosen<Schedule>(plan).price;
  const PriceOf<Store>& store = chosen<Store>(plan).price;
  const PriceOf<Home>& home = chosen<Home>(plan).price;
  const PriceOf<Stash>& stash = chosen<Stash>(plan).price;
  const Shape s = shape_of(plan, model, settings, rank);
  const Sizes z = sizes(s, seam);
  const i64 from = s.stage * s.L / s.pp, to = (s.stage + 1) * s.L / s.pp;  // layers of this stage

  // Parameters by unit: embedding, layers, final norm, head.
  const i64 table = seam.vocab(s) * s.D;
  const i64 layer = 2 * s.D + s.D * s.hd * (2 * seam.heads(s) + 2 * seam.kv_heads(s)) + 3 * s.D * seam.ffn(s);
  struct Unit {
    i64 number, gradient, weight;
  };
  std::vector<Unit> units;
  if (s.first()) units.push_back({0, table, table});
  for (i64 l = from; l < to; ++l) units.push_back({l + 1, layer, layer});
  if (s.last()) {
    units.push_back({s.L + 1, s.D, s.D});
    units.push_back({s.L + 2, table, s.tied && s.first() ? 0 : table});
  }

  Price out;
  auto peak = [&](Kind k) -> i64& { return out.peak[static_cast<int>(k)]; };
  i64 updated = 0;
  for (const Unit& u : units) {
    peak(Kind::weights) += store.weights(s, u.weight);
    peak(Kind::gradients) += store.gradients(s, u.gradient);
    updated += store.updated(s, u.weight);
  }
  // Units made whole: the one in use and the one that comes next; the head takes final norm along, and a tied
  // head on the embedding's stage takes the embedding.
  const i64 whole_layer = store.gathered(s, layer), whole_table = store.gathered(s, table);
  const i64 whole_norm = store.gathered(s, s.D);
  peak(Kind::gathered) =
      std::max({(to - from > 1 ? 2 : 1) * whole_layer, s.first() ? whole_table + whole_layer : 0,
                s.last() ? whole_table + whole_norm + whole_layer : 0});
  // Gradients on their way: a unit fills while the one before it is reduced. Head and final norm fill
  // together; what the microbatch before reduced last may still be under way then.
  const bool each = store.reduces_each_microbatch(s);
  auto filling = [&](i64 e) { return store.reducing(s, e); };
  auto leaving = [&](i64 e) { return store.reducing(s, e) + store.reduced(s, e); };
  if (each) {
    const i64 before = s.m == 1 ? 0 : leaving(s.first() ? table : layer);
    i64 most = std::max(leaving(layer), to - from > 1 ? filling(layer) + leaving(layer) : 0);
    if (s.last())
      most = std::max({most, filling(table) + filling(s.D) + std::max(before, store.reduced(s, table)),
                       filling(layer) + leaving(s.D)});
    if (!s.last()) most = std::max(most, filling(layer) + before);
    if (s.first()) most = std::max({most, filling(table) + leaving(layer), leaving(table)});
    peak(Kind::reducing) = most;
  }
  peak(Kind::optimizer) = home.optimizer(s, updated);
  peak(Kind::host) = home.host(s, updated);
  i64 kept = s.last() ? z.X : 0, buffers = 0;
  for (i64 l = from; l < to; ++l) {
    const Dropped d = stash.drops(s, l);
    kept += z.X + kept_parts(z, d);
    buffers = std::max({buffers, forward_buffers(z, d), backward_buffers(z, d)});
  }
  peak(Kind::activations) = 4 * schedule.in_flight(s) * kept;
  if (s.first()) buffers = std::max({buffers, z.sum, z.X + z.E});
  if (s.last()) buffers = std::max(buffers, head_buffers(z));
  peak(Kind::buffers) = 4 * buffers;
  peak(Kind::messages) = 4 * z.X * schedule.handovers(s);
  const i64 tokens = s.n / s.dp * s.T;
  peak(Kind::inputs) = 4 * tokens * (s.first() + s.last()) + 8 * s.n + 8 * kSquareWords + 4 * s.T * s.hd;

  auto say = [&](const std::string& what, int j, const Maybe& said, int times = 1) {
    for (int i = 0; said && i < times; ++i) out.messages.push_back({what, j, *said});
  };
  auto hand = [&](Verb verb, const std::string& what, int j) { say(what, j, Said{Axis::pp, verb, z.X}); };
  for (int j = 0; j < s.m; ++j) {
    if (s.first()) {
      say("embed.out", j, seam.close(s));
      say("embed.dout", j, seam.close_back(s));
    }
    for (i64 l = from; l < to; ++l) {
      const std::string at = "layers." + std::to_string(l) + ".";
      say(at + "attn.enter", j, seam.enter(s), 2);  // forward, and again for the weight gradients
      say(at + "mlp.enter", j, seam.enter(s), 2);
      say(at + "attn.out", j, seam.close(s), stash.drops(s, l).x2 ? 2 : 1);
      say(at + "mlp.out", j, seam.close(s));
      say(at + "attn.dout", j, seam.close_back(s));
      say(at + "mlp.dout", j, seam.close_back(s));
      say(at + "attn.din", j, seam.open(s));
      say(at + "mlp.din", j, seam.open(s));
      say(at + "attn.dkv", j, seam.kv_grad(s), 2);
      say(at + "input_norm.grad", j, seam.norm_grad(s));
      say(at + "post_norm.grad", j, seam.norm_grad(s));
    }
    if (s.last()) {
      say("head.enter", j, seam.enter(s));
      say("head.max", j, seam.vocab_max(s));
      say("head.sum", j, seam.vocab_sum(s));
      say("head.din", j, seam.open(s));
      say("norm.grad", j, seam.norm_grad(s));
    }
    const std::string own = "chunk" + std::to_string(s.stage), above = "chunk" + std::to_string(s.stage + 1),
                      below = "chunk" + std::to_string(s.stage - 1);
    if (!s.first()) hand(Verb::recv, own + ".x", j), hand(Verb::send, below + ".dy", j);
    if (!s.last()) hand(Verb::send, above + ".x", j), hand(Verb::recv, own + ".dy", j);
  }
  for (const Unit& u : units) {
    const std::string at = "unit" + std::to_string(u.number);
    for (int j = 0; j < (each ? s.m : 1); ++j)
      say(at + ".gradient", each ? j : -1, store.reduce(s, u.gradient));
    // Weights are gathered once a step; or for each forward and backward of a unit. Embedding rows are needed
    // in forward, final norm and head in backward, and a tied head on the embedding's stage takes the
    // embedding.
    if (!u.weight) continue;
    const bool twice = (u.number >= 1 && u.number <= s.L) || (u.number == 0 && s.last() && s.tied);
    say(at + ".weights", -1, store.gather(s, u.weight),
        store.gathers_each_use(s) ? static_cast<int>(s.m) * (twice ? 2 : 1) : 1);
  }
  if (s.tied && s.pp > 1 && (s.first() || s.last()) && store.updated(s, table) > 0)
    say("tied.gradient", -1, Said{Axis::tie, Verb::all_reduce, store.updated(s, table)});
  say("gradient norm", -1, Said{Axis::world, Verb::all_reduce, kSquareWords});
  say("losses", -1, Said{Axis::world, Verb::all_reduce, s.n});
  return out;
}

}  // namespace lockstep
