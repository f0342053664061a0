#include "parallel/price/price.hpp"

#include <algorithm>

#include "kernels/ops.hpp"
#include "parallel/price/pricing.hpp"

namespace lockstep {

Shape shape_of(const Plan& plan, const ModelConfig& c, const Settings& s, int rank) {
  const int cp = plan.number("cp"), dp = plan.number("dp") * cp;
  const int tp = plan.number("tp"), pp = plan.number("pp");
  const i64 b = plan.number("micro");
  Shape x{};
  x.T = s.seq / cp, x.D = c.hidden, x.H = c.heads, x.K = c.kv_heads, x.hd = c.head_dim, x.F = c.intermediate;
  x.V = c.vocab, x.Vp = (c.vocab + s.leaves - 1) / s.leaves * s.leaves, x.L = c.layers, x.R = s.leaves;
  x.tied = c.tied;
  x.n = s.batch * cp, x.b = b, x.m = x.n / dp / b;
  x.sums = s.fast ? 1 : b, x.fast = s.fast;
  x.weight = s.weight_bytes, x.gradient = s.gradient_bytes, x.activation = s.activation_bytes;
  x.partial = s.fast ? x.activation : 4;
  x.dp = dp, x.tp = tp, x.pp = pp, x.cp = cp;
  x.tp_at = rank % tp, x.stage = rank / tp / dp;
  x.dp_at = rank / tp % cp * (dp / cp) + rank / tp / cp % (dp / cp);
  x.replicas = plan.number("replicas"), x.shards = std::max(1, dp / x.replicas);
  x.replica_at = x.dp_at / x.shards, x.shard_at = x.dp_at % x.shards;
  x.sharing = x.replicas > 1 ? Axis::shard : Axis::dp;
  x.reversed = chosen<Schedule>(plan).price.reversed;
  x.plan = &plan;
  return x;
}

i64 shard(const Shape& s, i64 e) { return (e + s.shards - 1) / s.shards; }
i64 first_of_own_part(const Shape& s, i64 e) { return s.shard_at * shard(s, e); }
i64 own_part(const Shape& s, i64 e) { return std::clamp<i64>(e - s.shard_at * shard(s, e), 0, shard(s, e)); }

i64 Shape::slots(i64 samples, i64 microbatch, i64 block, i64 parts) const {
  return fast ? 1 : tree_slots(samples, microbatch, block, reversed, parts);
}

Additions own_samples(const Shape& s) {
  return s.fast ? plain_additions(s.m) : tree_additions(s.n / s.dp, s.b, 1, s.reversed);
}

std::string bucket_name(i64 lowest, i64 highest) {
  const std::string last = std::to_string(highest) + ".gradient";
  return lowest == highest ? "unit" + last : "units" + std::to_string(lowest) + "-" + last;
}

std::string replicas_name(i64 unit) { return "unit" + std::to_string(unit) + ".replicas"; }

Pricing pricing(const Plan& plan, const ModelConfig& model, const Settings& settings, int rank) {
  Pricing p{shape_of(plan, model, settings, rank),
            chosen<Seam>(plan).price,
            chosen<Spread>(plan).price,
            chosen<Schedule>(plan).price,
            chosen<Store>(plan).price,
            chosen<Home>(plan).price,
            chosen<Stash>(plan).price,
            chosen<Shelf>(plan).price,
            {},
            0,
            0,
            {},
            {}};
  const Shape& s = p.s;
  p.z = sizes(s, p.seam, p.spread);
  p.table = p.seam.vocab(s) * s.D;
  p.layer = 2 * s.D + s.D * s.hd * (2 * p.seam.heads(s) + 2 * p.seam.kv_heads(s)) + 3 * s.D * p.seam.ffn(s);
  const i64 all = p.schedule.chunks(s) * s.pp;
  // Embedding and head may count as a layer each, before the first and behind the last.
  const i64 ends = s.L % all != 0 && (s.L + 2) % all == 0;
  const auto before = [&](i64 c) { return std::clamp<i64>(c * (s.L + 2 * ends) / all - ends, 0, s.L); };
  for (i64 c = s.stage; c < all; c += s.pp)
    p.stretches.push_back({c, before(c), before(c + 1), c == 0, c == all - 1});
  if (s.first()) p.units.push_back({0, p.table, p.table});
  for (const Stretch& x : p.stretches)
    for (i64 l = x.from; l < x.to; ++l) p.units.push_back({l + 1, p.layer, p.layer});
  if (s.last()) {
    p.units.push_back({s.L + 1, s.D, s.D});
    p.units.push_back({s.L + 2, p.table, s.tied && s.first() ? 0 : p.table});
  }
  return p;
}

i64 kept_by(const Pricing& p, i64 layer) { return p.z.X + kept_parts(p.z, p.stash.drops(p.s, layer)); }

namespace {

// Units made whole: the one in use and the one that comes next; the head takes final norm along, and a tied
// head on the embedding's stage takes the embedding. What rests below the device is fetched for that: whole
// weights are then in use; a shard is fetched ahead, and given back when its unit has been gathered from it.
i64 gathered_bytes(const Pricing& p) {
  const bool below = p.home.rest(p.s) != Kind::weights;
  struct Bytes {
    i64 coming, arriving, here;
  };
  const auto of = [&](i64 e) -> Bytes {
    const i64 fetched = below ? p.store.weights(p.s, e) : 0, gathered = p.store.gathered(p.s, e);
    if (gathered == 0) return {fetched, fetched, fetched};
    return {below ? fetched : gathered, gathered + fetched, gathered};
  };
  const Bytes layer = of(p.layer), table = of(p.table), norm = of(p.s.D);
  i64 most = 0;
  for (const Stretch& x : p.stretches) {
    most = std::max({most, layer.arriving, x.to - x.from > 1 ? layer.here + layer.coming : 0});
    if (x.first) most = std::max({most, table.arriving, table.here + layer.coming});
    if (x.last)
      most =
          std::max({most, table.arriving, table.here + norm.arriving, table.here + norm.here + layer.coming});
  }
  return most;
}

// Gradients on their way: a unit fills while the one before it is reduced. Head and final norm fill together;
// what the pass before reduced last may still be under way then.
i64 reducing_bytes(const Pricing& p) {
  const Shape& s = p.s;
  if (!p.store.reduces_each_microbatch(s)) return 0;
  auto unit = [&](i64 e) { return p.store.reducing(s, e); };
  const bool again = s.m * p.schedule.chunks(s) > 1;
  const i64 below = s.first() && p.stretches.size() == 1 ? 0 : unit(p.layer);
  const i64 before = again ? std::max(below, s.first() ? unit(p.table) : 0) : 0;
  i64 most = unit(p.layer);
  for (const Stretch& x : p.stretches) {
    if (x.to - x.from > 1) most = std::max(most, 2 * unit(p.layer));
    if (x.last)
      most = std::max({most, unit(p.table) + unit(s.D) + before, unit(p.layer) + unit(s.D)});
    else if (p.stretches.size() > 1 || x.to - x.from > 1 || x.first)  // a lone layer waits for itself
      most = std::max(most, unit(p.layer) + before);
    if (x.first) most = std::max(most, unit(p.table) + unit(p.layer));
  }
  return most;
}

i64 kept_by(const Pricing& p, const Stretch& x) {
  i64 kept = 0;
  for (i64 l = x.from; l < x.to; ++l) kept += kept_by(p, l);
  return kept;
}

// And of those elements the ones that wait with its weight gradients; beside them what backward made.
i64 kept_waiting(const Pricing& p, i64 layer) { return kept_for_weights(p.z, p.stash.drops(p.s, layer)); }
i64 kept_waiting(const Pricing& p, const Stretch& x) {
  i64 kept = 0;
  for (i64 l = x.from; l < x.to; ++l) kept += kept_waiting(p, l);
  return kept;
}
i64 made_waiting(const Pricing& p, const Stretch& x) {
  i64 made = (x.last ? head_for_weights(p.z) : 0) + (x.first ? embedding_for_weights(p.z) : 0);
  for (i64 l = x.from; l < x.to; ++l) made += made_for_weights(p.z, p.stash.drops(p.s, l));
  return made;
}

KeptElements kept(const Pricing& p) {
  const Shape& s = p.s;
  const Stretch& chunk = p.stretches.front();  // of schedules that split backward, the only one
  const bool split = p.schedule.waiting(s) > 0;
  std::vector<i64> chunks;
  for (const Stretch& x : p.stretches) chunks.push_back(kept_by(p, x));
  const i64 ends = s.last() ? p.schedule.ends(s) : 0, held = p.schedule.held(s, chunks);
  // Of several chunks one ends the model, and what it holds may not be the most when the others do.
  if (s.last()) chunks.back() += p.z.X;
  const i64 with_ends = chunks.size() > 1 ? p.schedule.held(s, chunks) : held + ends * p.z.X;
  KeptElements k{.held = held,
                 .with_ends = with_ends,
                 .last = kept_by(p, s.L - 1),
                 .ends = ends,
                 .end = p.z.X,
                 .split = split,
                 .others = split ? p.schedule.waiting(s) - 1 : 0,
                 .beside = p.schedule.beside(s),
                 .for_weights = kept_waiting(p, chunk),
                 .in_use = 0};
  for (const Stretch& x : p.stretches) {
    i64 above = 0;
    for (i64 l = x.to - 1; l >= x.from; --l) {
      k.in_use = std::max(k.in_use, above + kept_by(p, l) + (l > x.from ? kept_by(p, l - 1) : 0));
      if (split) above += kept_waiting(p, l);
    }
  }
  return k;
}

KindBytes memory(const Pricing& p) {
  const Shape& s = p.s;
  KindBytes bytes{};
  auto peak = [&](Kind k) -> i64& { return bytes[static_cast<int>(k)]; };
  i64 updated = 0, weights = 0;
  for (const PricedUnit& u : p.units) {
    weights += p.store.weights(s, u.weight);
    peak(Kind::gradients) += p.store.gradients(s, u.gradient);
    updated += p.store.updated(s, u.weight);
  }
  peak(Kind::gathered) = gathered_bytes(p);
  peak(Kind::reducing) = reducing_bytes(p);
  peak(Kind::optimizer) = p.home.optimizer(s, updated);
  const KeptElements k = kept(p);
  peak(Kind::activations) = p.shelf.device(s, k);
  peak(Kind::host) = p.home.host(s, updated) + p.shelf.host(s, k);
  peak(Kind::disk) = p.home.disk(s, updated) + p.shelf.disk(s, k);
  peak(p.home.rest(s)) += weights;
  i64 buffers = 0;  // elements
  for (const Stretch& x : p.stretches)
    for (i64 l = x.from; l < x.to; ++l) {
      const Dropped d = p.stash.drops(s, l);
      buffers = std::max({buffers, forward_buffers(p.z, d), backward_buffers(p.z, d, k.split)});
    }
  if (s.first()) buffers = std::max({buffers, p.z.embedded, p.z.X + p.z.E});
  if (s.last()) buffers = std::max(buffers, head_buffers(p.z, k.split));
  peak(Kind::waiting) = s.activation * p.schedule.waiting(s) * made_waiting(p, p.stretches.front());
  peak(Kind::buffers) = s.activation * buffers;
  peak(Kind::messages) = s.activation * p.z.X * p.schedule.handovers(s);
  const i64 tokens = s.n / s.dp * s.T;
  peak(Kind::inputs) = 4 * tokens * (s.first() + s.last()) + 8 * s.n + 8 * kSquareWords + 4 * s.T * s.hd;
  return bytes;
}

std::vector<Price::Line> messages(const Pricing& p) {
  const Shape& s = p.s;
  std::vector<Price::Line> lines;
  const auto type_of = [](i64 bytes) { return bytes == 2 ? Type::bf16 : Type::f32; };
  const Type activation = type_of(s.activation), gradient = type_of(s.gradient), weight = type_of(s.weight);
  const Type partial = type_of(s.partial);
  auto say = [&](const std::string& what, i64 j, const Maybe& said, i64 times = 1, Type type = Type::f32,
                 Reduce reduce = Reduce::sum) {
    if (!said) return;
    const bool adds = said->verb == Verb::all_reduce || said->verb == Verb::reduce_scatter;
    const Price::Line line{what, static_cast<int>(j), *said, type, adds ? reduce : Reduce::none, -1};
    lines.insert(lines.end(), static_cast<std::size_t>(times), line);
  };
  // Of activations and their gradients.
  auto pass = [&](const std::string& what, i64 j, const Maybe& said, i64 times = 1) {
    say(what, j, said, times, activation);
  };
  // Of their parts on ranks that share a sum.
  auto sum = [&](const std::string& what, i64 j, const Maybe& said, i64 times = 1) {
    say(what, j, said, times, partial);
  };
  auto hand = [&](Verb verb, i64 chunk, i64 other, const char* which, i64 j) {
    pass("chunk" + std::to_string(chunk) + which, j, Said{Axis::pp, verb, p.z.X});
    lines.back().peer = static_cast<int>(other % s.pp);
  };
  for (i64 j = 0; j < s.m; ++j)
    for (const Stretch& x : p.stretches) {
      if (x.first) {
        pass("embed.out", j, p.seam.close(s));
        pass("embed.dout", j, p.seam.close_back(s));
      }
      for (i64 l = x.from; l < x.to; ++l) {
        const std::string at = "layers." + std::to_string(l) + ".";
        pass(at + "attn.enter", j, p.seam.enter(s), 2);  // forward, and again for the weight gradients
        pass(at + "mlp.enter", j, p.seam.enter(s), 2);
        const Dropped dropped = p.stash.drops(s, l);
        const i64 qkv = dropped.qkv ? 2 : 1;
        pass(at + "attn.q", j, p.spread.exchange(s, p.z.Q), qkv);
        for (const char* name : {"attn.k", "attn.v"}) pass(at + name, j, p.spread.exchange(s, p.z.KH), qkv);
        pass(at + "attn.o", j, p.spread.exchange(s, p.z.Q), dropped.attention ? 2 : 1);
        for (const char* name : {"attn.do", "attn.dq"}) pass(at + name, j, p.spread.exchange(s, p.z.Q));
        for (const char* name : {"attn.dk", "attn.dv"})
          say(at + name, j, p.spread.exchange(s, p.z.KH), 1, p.z.KHp > p.z.KH ? partial : activation);
        sum(at + "attn.out", j, p.seam.close(s), dropped.x2 ? 2 : 1);
        sum(at + "mlp.out", j, p.seam.close(s));
        pass(at + "attn.dout", j, p.seam.close_back(s));
        pass(at + "mlp.dout", j, p.seam.close_back(s));
        sum(at + "attn.din", j, p.seam.open(s));
        sum(at + "mlp.din", j, p.seam.open(s));
        sum(at + "attn.dkv", j, p.seam.kv_grad(s), 2);
        say(at + "input_norm.grad", j, p.seam.norm_grad(s));
        say(at + "post_norm.grad", j, p.seam.norm_grad(s));
      }
      if (x.last) {
        pass("head.enter", j, p.seam.enter(s));
        say("head.max", j, p.seam.vocab_max(s), 1, Type::f32, Reduce::max);
        say("head.sum", j, p.seam.vocab_sum(s));
        sum("head.din", j, p.seam.open(s));
        say("norm.grad", j, p.seam.norm_grad(s));
      }
      if (s.pp == 1) continue;
      const i64 below = x.index - 1, above = x.index + 1;
      if (!x.first) hand(Verb::recv, x.index, below, ".x", j), hand(Verb::send, below, below, ".dy", j);
      if (!x.last) hand(Verb::send, above, above, ".x", j), hand(Verb::recv, x.index, above, ".dy", j);
    }
  const bool each = p.store.reduces_each_microbatch(s);
  for (const auto& [lowest, highest] : reduced_together(p)) {
    i64 elements = 0;
    for (i64 u = lowest; u <= highest; ++u) elements += p.units[u].gradient;
    const std::string what = bucket_name(p.units[lowest].number, p.units[highest].number);
    for (i64 j = 0; j < (each ? s.m : 1); ++j)
      say(what, each ? j : -1, p.store.reduce(s, elements), 1, gradient);
  }
  for (const PricedUnit& u : p.units)
    say(replicas_name(u.number), -1, p.store.reduce_over_replicas(s, u.gradient), 1, gradient);
  for (const PricedUnit& u : p.units) {
    // Weights are gathered once a step; or for each forward and backward of a unit. Embedding rows are needed
    // in forward, final norm and head in backward, and a tied head on the embedding's stage takes the
    // embedding.
    if (!u.weight) continue;
    const bool twice = (u.number >= 1 && u.number <= s.L) || (u.number == 0 && s.last() && s.tied);
    say("unit" + std::to_string(u.number) + ".weights", -1, p.store.gather(s, u.weight),
        p.store.gathers_each_use(s) ? s.m * (twice ? 2 : 1) : 1, weight);
  }
  if (s.tied && s.pp > 1 && (s.first() || s.last()) && p.store.updated(s, p.table) > 0)
    say("tied.gradient", -1, Said{Axis::tie, Verb::all_reduce, p.store.updated(s, p.table)}, 1, gradient);
  say("gradient norm", -1, Said{Axis::world, Verb::all_reduce, kSquareWords}, 1, Type::i64);
  say("losses", -1, Said{Axis::world, Verb::all_reduce, s.n}, 1, Type::f64);
  return lines;
}

}  // namespace

std::vector<Together> reduced_together(const Pricing& p) {
  const i64 most = p.store.reduced_together(p.s);
  std::vector<Together> all;
  for (i64 u = static_cast<i64>(p.units.size()); u-- > 0;) {
    const bool next_to = !all.empty() && p.units[u].number + 1 == p.units[u + 1].number;
    if (next_to && all.back().highest - u < most)
      all.back().lowest = u;
    else
      all.push_back({u, u});
  }
  return all;
}

namespace {

// A stage's chunks differ in what they keep, and not by their number of layers alone.
bool unlike_chunks(const Plan& plan, const ModelConfig& model, const Settings& settings) {
  for (int stage = 0; stage < plan.number("pp"); ++stage) {
    const Pricing p = pricing(plan, model, settings, stage * plan.number("tp") * plan.sharers());
    const Stretch& one = p.stretches.front();
    for (const Stretch& x : p.stretches)
      if (kept_by(p, x) * (one.to - one.from) != kept_by(p, one) * (x.to - x.from)) return true;
  }
  return false;
}

}  // namespace

const char* scatters(const Plan& plan, const ModelConfig& model, const Settings& settings) {
  const Shape s = shape_of(plan, model, settings, 0);
  const auto& schedule = chosen<Schedule>(plan).price;
  if (schedule.waiting(s) > 0 && chosen<Home>(plan).price.rest(s) != Kind::weights)
    return "operands wait for a later pass of weight gradients while weights come and go from below";
  KeptElements some{};
  some.held = 1;
  const bool on_disk = chosen<Shelf>(plan).price.disk(s, some) > 0;
  if (on_disk && schedule.chunks(s) > 1 && unlike_chunks(plan, model, settings))
    return "a stage's chunks keep activations of unlike layers on disk";
  return nullptr;
}

i64 host_bytes(const Plan& plan, const ModelConfig& model, const Settings& settings, int rank) {
  const Shape s = shape_of(plan, model, settings, rank);
  return 4 * s.n / s.dp * s.T * (s.first() + s.last()) + 2 * (8 * s.n + 8 * kSquareWords);
}

KindBytes peak_bytes(const Plan& plan, const ModelConfig& model, const Settings& settings, int rank) {
  return memory(pricing(plan, model, settings, rank));
}

Price price(const Plan& plan, const ModelConfig& model, const Settings& settings, int rank) {
  const Pricing p = pricing(plan, model, settings, rank);
  return {memory(p), messages(p)};
}

}  // namespace lockstep
