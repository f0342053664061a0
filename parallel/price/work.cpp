// What a rank runs, copies and hides in a step, counted from the plan alone.
#include <algorithm>

#include "parallel/price/pricing.hpp"

namespace lockstep {

void StepWork::run(const std::string& kernel, i64 times, i64 work) {
  if (times) kernels[kernel].times += times, kernels[kernel].work += work;
}
void StepWork::set_up(const std::string& kernel, i64 times, i64 work) {
  setup[kernel].times += times, setup[kernel].work += work;
}
void StepWork::copy(const std::string& name, i64 times, i64 bytes, i64 hidden_times) {
  if (!times) return;
  copies[name].times += times, copies[name].bytes += bytes;
  hide(name, hidden_times);
}
void StepWork::hide(const std::string& name, i64 times) {
  if (times) hidden[name] += times;
}

namespace {

// A layer's forward, its backward, and what backward makes again. A product of matrices is 2 D operations for
// each element on its side that is not D wide.
void layer_kernels(const Pricing& p, const Dropped& d, StepWork& w) {
  const Shape& s = p.s;
  const Sizes& z = p.z;
  const i64 m = s.m, weights = s.m * s.sums, norms = d.norms ? 4 : 2, qkv = d.qkv ? 2 : 1;
  const i64 attention = d.attention ? 2 : 1, o = d.x2 ? 2 : 1, gates = d.gate_up ? 2 : 1;
  w.run("rms_norm", m * norms, m * norms * 2 * z.X);
  w.run("matmul", m * (3 * qkv + o + 2 * gates + 1),
        m * 2 * s.D * (qkv * (z.Q + 2 * z.KV) + o * z.Q + (2 * gates + 1) * z.F));
  w.run("rope", m * (2 * qkv + 2), m * (qkv + 1) * 2 * (z.Q + z.KV));  // q, k; their gradients
  const i64 whole = s.T * s.cp;
  w.run("attention", m * attention, m * attention * 2 * z.Q * whole);  // causal: half of q k' and of p v
  if (p.spread.exchanges)                                              // q k v, o and their gradients
    w.run("swap_axes", m * (3 * qkv + attention + 4),
          m * 2 * (qkv * (z.Q + 2 * z.KH) + attention * z.Q + 2 * z.Q + 2 * z.KH));
  if (z.KH > z.KV) {  // k v; their gradients
    w.run("repeat_rows", m * 2 * qkv, m * 2 * qkv * (z.KV + z.KH));
    w.run("sum_rows", m * 2, m * 2 * (z.KV + z.KH));
  }
  const i64 products = d.product ? 2 : 1;
  w.run("swiglu", m * products, m * products * 3 * z.F);
  const i64 sums = d.x2 ? 5 : 4;  // two residual ones, and their gradients
  w.run("add", m * sums, m * sums * 3 * z.X);
  w.run("attention_dx", m, m * 5 * z.Q * whole), w.run("swiglu_dx", m, m * 5 * z.F);
  if (z.KVp > z.KV) w.run("copy", 2 * m, 2 * m * 2 * z.KV);  // dk, dv are rounded
  w.run("rms_norm_dx", 2 * m, 2 * m * 3 * z.X), w.run("rms_norm_dw", 2 * weights, 2 * m * 2 * z.X);
  // q k v, and gate up, are one product back; of a key/value head that ranks share each takes its part.
  const i64 shared = s.K < s.tp ? z.KV * s.K / s.tp : z.KV;
  w.run("matmul_dx", 4 * m, m * 2 * s.D * (2 * z.Q + 2 * shared + 3 * z.F));
  w.run("matmul_dw", 7 * weights, m * 2 * s.D * (2 * z.Q + 2 * z.KV + 3 * z.F));
}

// Where heads are exchanged for tokens: all but the output, which is waited for at once, and its gradient
// where o_proj's waits.
void hidden_exchanges(const Pricing& p, i64 layer, StepWork& w) {
  if (!p.spread.exchanges) return;
  const i64 m = p.s.m, made = m * (p.stash.drops(p.s, layer).qkv ? 2 : 1);
  const std::string at = "layers." + std::to_string(layer) + ".attn.";
  for (const char* name : {"q", "k", "v"}) w.hide(at + name, made);
  for (const char* name : {"dq", "dk", "dv"}) w.hide(at + name, m);
  w.hide(at + "do", p.schedule.waiting(p.s) > 0 ? 0 : m);
}

void embedding_kernels(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  w.run("embed", s.m, s.m * 2 * p.z.W);
  w.run("embed_dw", s.m * s.sums, s.m * (p.z.W + s.sums * p.table));  // all of the table is written
}

void head_kernels(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  const Sizes& z = p.z;
  const i64 m = s.m, weights = s.m * s.sums, product = m * 2 * s.D * z.logits;
  w.run("rms_norm", m, m * 2 * z.X), w.run("rms_norm_dx", m, m * 3 * z.X);
  w.run("matmul", m, product), w.run("matmul_dx", m, product);
  for (const char* reads : {"ce_max", "ce_sum"}) w.run(reads, m, m * z.logits);
  w.run("ce_dx", m, m * 2 * z.logits);
  if (s.tp_at == 0) w.run("ce_loss", m, m * 3 * s.b * s.T);
  w.run("matmul_dw", weights, product), w.run("rms_norm_dw", weights, m * 2 * z.X);
}

// Elements of a unit's parameters in their order, and whether this rank's one counts in the gradient norm.
struct Parameter {
  i64 elements;
  bool counts;
};
std::vector<Parameter> parameters(const Pricing& p, i64 unit) {
  const Shape& s = p.s;
  const i64 q = p.seam.heads(s) * s.hd * s.D, kv = p.seam.kv_heads(s) * s.hd * s.D, f = p.seam.ffn(s) * s.D;
  const bool norm_counts = s.tp_at == 0, kv_counts = s.K >= s.tp || s.tp_at % (s.tp / s.K) == 0;
  const Parameter norm{s.D, norm_counts}, pair{kv, kv_counts};
  if (unit == s.L + 1) return {norm};
  if (unit == 0 || unit == s.L + 2) return {{p.table, unit == 0 || !s.tied}};
  return {norm, {q, true}, pair, pair, {q, true}, norm, {f, true}, {f, true}, {f, true}};
}

// Adding gradients up: by parameter, where norms' leaves are made beside their place and put there; then by
// unit what messages bring.
void gradient_kernels(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  const Additions samples = p.store.of_samples(s), messages = p.store.of_messages(s);
  for (const PricedUnit& u : p.units) {
    const i64 norms = u.number == s.L + 1 ? 1 : u.number >= 1 && u.number <= s.L ? 2 : 0;
    const i64 all = static_cast<i64>(parameters(p, u.number).size());
    const i64 part = shard(s, u.gradient), joins = messages.merged + messages.joined;
    w.run("add", all * samples.merged + norms * samples.joined + joins,
          3 * (u.gradient * samples.merged + norms * s.D * samples.joined + part * joins));
    w.run("copy", norms * samples.begun + messages.begun,
          2 * (norms * s.D * samples.begun + part * messages.begun));
    const i64 pads = p.store.zeroed_pads(s, u.gradient);
    w.run(StepWork::kZero, pads, pads * (part * s.shards - u.gradient));
  }
}

// After the last microbatch: what the rank updates, in pieces of parameters.
void update_kernels(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  std::vector<i64> pieces;
  for (const PricedUnit& u : p.units) {
    if (!u.weight) continue;
    const i64 from = p.store.first_updated(s, u.weight), to = from + p.store.updated(s, u.weight);
    i64 at = 0;
    for (const Parameter& x : parameters(p, u.number)) {
      const i64 n = std::min(to, at + x.elements) - std::max(from, at);
      at += x.elements;
      if (n <= 0) continue;
      pieces.push_back(n);
      if (x.counts && (p.store.sharded ? s.replica_at : s.dp_at) == 0) w.run("add_squares", 1, n);
      if (u.number == 0 && s.tied && s.last()) w.run("add", 1, 3 * n);  // the head's part of its gradient
    }
  }
  p.home.work(s, pieces, w);
}

// Uses of a unit's weights: in all, and those for which they come while the unit before is in use. A pass
// begins with a unit that nothing hides; head and final norm are used together.
struct Uses {
  i64 all, hidden;
};
Uses uses(const Pricing& p, i64 unit) {
  const Shape& s = p.s;
  if (unit == 0) return {s.m * (s.last() && s.tied ? 2 : 1), 0};
  if (unit > s.L) return {s.m, 0};
  for (const Stretch& x : p.stretches)
    if (x.from < unit && unit <= x.to) {
      const bool begins = unit - 1 == x.from && !x.first, begins_back = unit == x.to && !x.last;
      return {2 * s.m, s.m * (2 - begins - begins_back)};
    }
  return {0, 0};
}

void weights_on_their_way(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  const bool below = p.home.rest(s) != Kind::weights, each_use = p.store.gathers_each_use(s);
  for (const PricedUnit& u : p.units) {
    if (!u.weight) continue;
    const Uses x = uses(p, u.number);
    const i64 bytes = p.store.weights(s, u.weight);
    if (below) w.copy("weights to device", x.all, x.all * bytes, x.hidden);
    if (each_use && !below) w.hide("unit" + std::to_string(u.number) + ".weights", x.hidden);
    if (below && !each_use && p.store.gather(s, u.weight)) {  // new ones go round by way of the device
      w.copy("weights to device", 1, s.weight * shard(s, u.weight), 0);
      w.copy("weights to rest", 1, bytes, 0);
    }
  }
}

// A reduction hides behind what backward still has to do: nothing comes after the lowest units, nor, where
// the next is not started before it has arrived, between head and final norm. A unit that is all of its stage
// is waited for as soon as its next weight gradients begin.
void hidden_reductions(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  const bool each = p.store.reduces_each_microbatch(s);
  const i64 all = static_cast<i64>(p.units.size());
  for (const auto& [lowest, highest] : reduced_together(p)) {
    if (!p.store.reduce(s, 1)) continue;
    const bool lone_head =
        p.store.reduces_one_by_one(s) && lowest == highest && p.units[highest].number == s.L + 2;
    i64 times = lone_head ? 0 : (each ? s.m : 1) - (lowest == 0);
    if (each && lowest == 0 && highest == all - 1) times -= p.schedule.weights_in_a_row(s);
    w.hide(bucket_name(p.units[lowest].number, p.units[highest].number), times);
  }
  // Over replicas it goes when it has arrived, which is when the next unit is ready; or, where a unit's sums
  // are added up when they arrive, beside those of the next.
  for (i64 u = each ? 1 : 2; u < all; ++u)
    if (p.store.reduce_over_replicas(s, 1)) w.hide(replicas_name(p.units[u].number), 1);
}

// A receive is posted before the pass that comes first, a send is waited for after the next one: hidden but
// for a stage's first receive, and its last send unless weight gradients follow.
void hidden_handovers(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  const bool split = p.schedule.waiting(s) > 0;
  auto hide = [&](i64 chunk, const char* which, i64 times) {
    w.hide("chunk" + std::to_string(chunk) + which, times);
  };
  for (const Stretch& x : p.stretches) {
    if (s.pp == 1) continue;
    const bool lowest = x.index == s.stage;
    if (!x.first) hide(x.index, ".x", s.m - lowest), hide(x.index - 1, ".dy", s.m - (lowest && !split));
    if (!x.last) hide(x.index + 1, ".x", s.m), hide(x.index, ".dy", s.m);
  }
}

void shelved(const Pricing& p, StepWork& w) {
  const Shape& s = p.s;
  for (std::size_t k = 0; k < p.stretches.size(); ++k) {
    const Stretch& x = p.stretches[k];
    for (i64 l = x.from; l < x.to; ++l) {
      const Dropped d = p.stash.drops(s, l);
      const i64 parts = 1 + (d.norms ? 0 : 4) + (d.qkv ? 0 : 3) +
                        (d.attention          ? 0
                         : p.spread.exchanges ? 3
                                              : 2) +
                        (d.x2 ? 0 : 1) + (d.gate_up ? 0 : 2) + (d.product ? 0 : 1);
      const bool top = l + 1 == x.to;
      p.shelf.work(s,
                   {parts, s.activation * kept_by(p, l), top, x.last,
                    top ? p.schedule.into_first(s, static_cast<i64>(k)) : 0},
                   w);
    }
  }
}

}  // namespace

StepWork step_work(const Plan& plan, const ModelConfig& model, const Settings& settings, int rank) {
  const Pricing p = pricing(plan, model, settings, rank);
  const Shape& s = p.s;
  StepWork w;
  for (const Stretch& x : p.stretches) {
    for (i64 l = x.from; l < x.to; ++l) layer_kernels(p, p.stash.drops(s, l), w), hidden_exchanges(p, l, w);
    if (x.first) embedding_kernels(p, w);
    if (x.last) head_kernels(p, w);
  }
  gradient_kernels(p, w);
  update_kernels(p, w);
  weights_on_their_way(p, w);
  hidden_reductions(p, w);
  hidden_handovers(p, w);
  shelved(p, w);
  return w;
}

}  // namespace lockstep
