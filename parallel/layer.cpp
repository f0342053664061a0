#include "parallel/layer.hpp"

namespace lockstep {

const char* part_name(Part p) {
  static constexpr const char* names[] = {"x",  "h1", "rstd1", "q",    "k",  "v",   "o",  "oh", "lse",
                                          "x2", "h2", "rstd2", "gate", "up", "act", "e1", "e2"};
  return names[static_cast<int>(p)];
}

// Exact: sequence by sequence, each to its place in the tree. Fast: the microbatch as one.
void run_weight_work(const Rank& r, const WeightWork& w, int j) {
  Device& d = r.device;
  const i64 sums = r.settings.fast ? 1 : r.b, D = r.model.hidden;
  const i64 T = r.b / sums * r.settings.seq, Ts = r.b / sums * r.seam.cut().seq;  // tokens of one
  Buf leaves;
  if (w.what == WeightWork::norm) {
    leaves = d.take(w.name, Kind::buffers, sums * D, Type::f32);
    for (i64 i = 0; i < sums; ++i)
      d.run(d.ops().rms_norm_dw, leaves.from(i * D), w.dy.from(i * Ts * D), w.x.from(i * Ts * D),
            w.rstd.from(i * Ts), Ts, D, r.seam.cut().seq_leaves, false);
    r.seam.norm_grad(leaves, w.name, j, sums);
  }
  for (i64 i = 0; i < sums; ++i) {
    const i64 sample = r.store.sample(j, i);
    const Store::Leaf leaf = r.store.leaf(w.local, sample);
    switch (w.what) {
      case WeightWork::linear:
        d.run(d.ops().matmul_dw, leaf.at, w.dy.from(i * T * w.n), w.x.from(i * T * w.k), T, w.n, w.k,
              leaf.add);
        break;
      case WeightWork::norm:
        if (leaf.add)
          d.run(d.ops().add, leaf.at, leaf.at, leaves.from(i * D), D);
        else
          d.run(d.ops().copy, leaf.at, leaves.from(i * D), D);
        break;
      case WeightWork::embedding:
        d.run(d.ops().embed_dw, leaf.at, w.dy.from(i * T * D), w.x.from(j * r.b * r.settings.seq + i * T), T,
              D, r.seam.cut().vocab_first, r.seam.cut().vocab, leaf.add);
        break;
    }
    r.store.done(w.local, sample);
  }
}

void weigh(const Rank& r, WorkList* later, int j, WeightWork w) {
  if (!later) return run_weight_work(r, w, j);
  for (const Buf* operand : {&w.dy, &w.x, &w.rstd})
    if (*operand && operand->kind() == Kind::buffers) operand->relabel(Kind::waiting);
  later->push_back(std::move(w));
}

void input_gradient(Device& d, const View& dx, const std::array<GradientTerm, 3>& t, i64 M, i64 K,
                    i64 leaves) {
  d.run(d.ops().matmul_dx, dx, t[0].dy, t[0].ld, t[0].weight, t[0].n, t[1].dy, t[1].ld, t[1].weight, t[1].n,
        t[2].dy, t[2].ld, t[2].weight, t[2].n, M, K, leaves);
}

namespace {

// x + sum, in the sum's place unless it is stored as something wider than x.
Buf add_to_stream(Device& d, const Buf& x, Buf sum, const char* name) {
  const Type type = x.view().type;
  Buf y = sum.view().type == type ? sum : d.take(name, Kind::buffers, sum.elements(), type);
  d.run(d.ops().add, y, x, sum, y.elements());
  return y;
}

Buf stored_as(Device& d, Type type, Buf sum, const char* name) {
  if (sum.view().type == type) return sum;
  Buf y = d.take(name, Kind::buffers, sum.elements(), type);
  d.run(d.ops().copy, y, sum, y.elements());  // rounds
  return y;
}

}  // namespace

Layer::Layer(const Rank& r, int index, const Buf& cos, const Buf& sin)
    : r_(r),
      index_(index),
      c_(r.seam.cut()),
      rows_(r.b * c_.seq),
      inner_(r.b * r.settings.seq),
      whole_(r.settings.seq * r.spread.parts()),
      cos_(cos),
      sin_(sin) {
  const std::string at = "layers." + std::to_string(index) + ".";
  names_ = {at + "attn.enter",     at + "attn.out", at + "attn.dout", at + "attn.din", at + "attn.dkv",
            at + "mlp.enter",      at + "mlp.out",  at + "mlp.dout",  at + "mlp.din",  at + "input_norm.grad",
            at + "post_norm.grad", at + "attn.q",   at + "attn.k",    at + "attn.v",   at + "attn.o",
            at + "attn.do",        at + "attn.dq",  at + "attn.dk",   at + "attn.dv"};
}

int Layer::local(int p) const { return r_.params.local(param_index(index_, p)); }
View Layer::weight(int p) const { return r_.store.weight(local(p)); }
Kind Layer::kind_of(Part p, Kind kept) const { return r_.stash.keeps(index_, p) ? kept : Kind::buffers; }
Buf Layer::take(Part p, i64 elements, Kind kept) {
  return r_.device.take(part_name(p), kind_of(p, kept), elements);
}
Buf Layer::take_statistic(Part p, i64 elements, Kind kept) {
  return r_.device.take(part_name(p), kind_of(p, kept), elements, Type::f32);
}
void Layer::drop(Saved& s, std::initializer_list<Part> parts) {
  for (const Part p : parts)
    if (!r_.stash.keeps(index_, p)) s[p].free();
}

// q, k or v: of this rank's tokens by a matrix product, q and k turned by their positions; on its way to
// where it is by head.
Spread::Sent Layer::project(Part p, int param, i64 heads, const std::string& name, int j, Saved& s,
                            Kind kept) {
  const Kind kind = kind_of(p, kept);
  Device& d = r_.device;
  const i64 hd = r_.model.head_dim;
  Buf tokens = d.take(part_name(p), r_.spread.parts() > 1 ? Kind::buffers : kind, inner_ * heads * hd);
  d.run(d.ops().matmul, tokens, s[Part::e1], weight(param), inner_, heads * hd, r_.model.hidden, 1);
  if (p != Part::v) d.run(d.ops().rope, tokens, cos_, sin_, inner_, r_.settings.seq, heads, hd, false);
  return r_.spread.send_tokens(std::move(tokens), heads, kind, name.c_str(), j, r_.b);
}

// One step of the forward pass, from parts to parts. `kept`: the kind of what the stash keeps.
void Layer::make(Step step, int j, Saved& s, Kind kept) {
  Device& d = r_.device;
  const Ops<float>& ops = d.ops();
  const i64 D = r_.model.hidden, T = whole_, hd = r_.model.head_dim, b = r_.b;
  const i64 H = c_.heads, K = c_.kv_heads, F = c_.ffn;
  const i64 parts = r_.spread.parts(), repeats = r_.spread.repeats(K);
  const double eps = r_.model.rms_eps;
  switch (step) {
    case norm1:
      s[Part::h1] = take(Part::h1, rows_ * D, kept);
      s[Part::rstd1] = take_statistic(Part::rstd1, rows_, kept);
      d.run(ops.rms_norm, s[Part::h1], s[Part::rstd1], s[Part::x], weight(input_norm), rows_, D, eps);
      break;
    case enter1:
      s[Part::e1] = r_.seam.enter(s[Part::h1], names_.attn_enter.c_str(), j, b);
      break;
    case qkv: {
      Spread::Sent q = project(Part::q, q_proj, H, names_.q, j, s, kept);
      Spread::Sent k = project(Part::k, k_proj, K, names_.k, j, s, kept);
      Spread::Sent v = project(Part::v, v_proj, K, names_.v, j, s, kept);
      s[Part::q] = r_.spread.take_by_head(std::move(q), b);
      s[Part::k] = r_.spread.take_by_head(std::move(k), b);
      s[Part::v] = r_.spread.take_by_head(std::move(v), b);
      break;
    }
    case attend: {
      const Part output = parts > 1 ? Part::oh : Part::o;
      s[output] = take(output, inner_ * H * hd, kept);
      s[Part::lse] = take_statistic(Part::lse, inner_ * H, kept);
      d.run(ops.attention, s[output], s[Part::lse], s[Part::q], s[Part::k], s[Part::v], b, T, H / parts,
            K * repeats / parts, hd);
      if (parts > 1)
        s[Part::o] = r_.spread.take_tokens(
            r_.spread.send_by_head(s[output], H, kind_of(Part::o, kept), names_.o.c_str(), j, b), b);
      break;
    }
    case middle: {
      Buf partial = d.take("attention output", Kind::buffers, inner_ * D, d.partial());
      d.run(ops.matmul, partial, s[Part::o], weight(o_proj), inner_, D, H * hd, c_.leaves);
      Buf sum = r_.seam.close(std::move(partial), names_.attn_out.c_str(), j, b);
      Buf x2 = add_to_stream(d, s[Part::x], std::move(sum), part_name(Part::x2));
      if (r_.stash.keeps(index_, Part::x2)) x2.relabel(kept);
      d.show(2 * index_ + 1, r_.store.sample(j, 0), b, x2);
      s[Part::x2] = std::move(x2);
      break;
    }
    case norm2:
      s[Part::h2] = take(Part::h2, rows_ * D, kept);
      s[Part::rstd2] = take_statistic(Part::rstd2, rows_, kept);
      d.run(ops.rms_norm, s[Part::h2], s[Part::rstd2], s[Part::x2], weight(post_norm), rows_, D, eps);
      break;
    case enter2:
      s[Part::e2] = r_.seam.enter(s[Part::h2], names_.mlp_enter.c_str(), j, b);
      break;
    case gate_up:
      s[Part::gate] = take(Part::gate, inner_ * F, kept);
      s[Part::up] = take(Part::up, inner_ * F, kept);
      d.run(ops.matmul, s[Part::gate], s[Part::e2], weight(gate_proj), inner_, F, D, 1);
      d.run(ops.matmul, s[Part::up], s[Part::e2], weight(up_proj), inner_, F, D, 1);
      break;
    case swiglu:
      s[Part::act] = take(Part::act, inner_ * F, kept);
      d.run(ops.swiglu, s[Part::act], s[Part::gate], s[Part::up], inner_ * F);
      break;
  }
}

Buf Layer::forward(int j, Buf x, Saved& s) {
  constexpr Kind kept = Kind::activations;
  s[Part::x] = std::move(x);
  make(norm1, j, s, kept), drop(s, {Part::rstd1});
  make(enter1, j, s, kept), drop(s, {Part::h1});
  make(qkv, j, s, kept), drop(s, {Part::e1});
  make(attend, j, s, kept), drop(s, {Part::q, Part::k, Part::v, Part::oh, Part::lse});
  make(middle, j, s, kept), drop(s, {Part::o});
  make(norm2, j, s, kept), drop(s, {Part::rstd2});
  make(enter2, j, s, kept), drop(s, {Part::h2});
  make(gate_up, j, s, kept), drop(s, {Part::e2});
  make(swiglu, j, s, kept), drop(s, {Part::gate, Part::up});

  Device& d = r_.device;
  const i64 D = r_.model.hidden;
  Buf partial = d.take("mlp output", Kind::buffers, inner_ * D, d.partial());
  d.run(d.ops().matmul, partial, s[Part::act], weight(down_proj), inner_, D, c_.ffn, c_.leaves);
  drop(s, {Part::act});
  Buf sum = r_.seam.close(std::move(partial), names_.mlp_out.c_str(), j, r_.b);
  Buf y = add_to_stream(d, s[Part::x2], std::move(sum), part_name(Part::x));
  drop(s, {Part::x2});
  d.show(2 * index_ + 2, r_.store.sample(j, 0), r_.b, y);
  return y;
}

// Makes a part again if the stash did not keep it, and before it whatever it is made of.
void Layer::need(Part p, int j, Saved& s) {
  if (s[p]) return;
  constexpr Kind again = Kind::buffers;
  switch (p) {
    case Part::x:
      break;
    case Part::h1:
    case Part::rstd1:
      make(norm1, j, s, again);
      break;
    case Part::e1:
      need(Part::h1, j, s), make(enter1, j, s, again);
      break;
    case Part::q:
    case Part::k:
    case Part::v:
      need(Part::e1, j, s), make(qkv, j, s, again);
      break;
    case Part::o:
    case Part::oh:
    case Part::lse:
      need(Part::q, j, s), make(attend, j, s, again);
      break;
    case Part::x2:
      need(Part::o, j, s), make(middle, j, s, again);
      break;
    case Part::h2:
    case Part::rstd2:
      need(Part::x2, j, s), make(norm2, j, s, again);
      break;
    case Part::e2:
      need(Part::h2, j, s), make(enter2, j, s, again);
      break;
    case Part::gate:
    case Part::up:
      need(Part::e2, j, s), make(gate_up, j, s, again);
      break;
    case Part::act:
      need(Part::gate, j, s), make(swiglu, j, s, again);
      break;
    case Part::count:
      break;
  }
}

Buf Layer::backward(int j, Saved& s, Buf dy, WorkList* later) {
  Device& d = r_.device;
  const Ops<float>& ops = d.ops();
  const i64 D = r_.model.hidden, T = whole_, hd = r_.model.head_dim, b = r_.b;
  const i64 H = c_.heads, K = c_.kv_heads, F = c_.ffn;
  const i64 parts = r_.spread.parts(), repeats = r_.spread.repeats(K);
  auto linear = [&](int p, const Buf& gradient, const Buf& input, i64 n, i64 k) {
    weigh(r_, later, j, {WeightWork::linear, local(p), gradient, input, {}, n, k, ""});
  };
  auto norm = [&](int p, const Buf& gradient, const Buf& input, const Buf& rstd, const std::string& name) {
    weigh(r_, later, j, {WeightWork::norm, local(p), gradient, input, rstd, 0, 0, name.c_str()});
  };

  // ---- MLP: y = x2 + down(silu(gate(e2)) * up(e2))
  need(Part::act, j, s);
  Buf dyc = r_.seam.close_back(dy, names_.mlp_dout.c_str(), j, b);  // [b,T,D]
  Buf dact = d.take("dact", Kind::buffers, inner_ * F);
  input_gradient(d, dact, {{{dyc, D, weight(down_proj), D}}}, inner_, F, 1);
  linear(down_proj, dyc, s[Part::act], D, F);
  dyc.free(), s[Part::act].free();
  Buf dgate = d.take("dgate", Kind::buffers, inner_ * F);
  Buf dup = d.take("dup", Kind::buffers, inner_ * F);
  d.run(ops.swiglu_dx, dgate, dup, dact, s[Part::gate], s[Part::up], inner_ * F);
  dact.free(), s[Part::gate].free(), s[Part::up].free();
  need(Part::e2, j, s);
  s[Part::h2].free();
  linear(gate_proj, dgate, s[Part::e2], F, D);
  linear(up_proj, dup, s[Part::e2], F, D);
  s[Part::e2].free();
  Buf de2 = d.take("de2", Kind::buffers, inner_ * D, d.partial());
  input_gradient(d, de2, {{{dgate, F, weight(gate_proj), F}, {dup, F, weight(up_proj), F}}}, inner_, D,
                 c_.leaves);
  dgate.free(), dup.free();
  Buf dh2 = r_.seam.open(std::move(de2), names_.mlp_din.c_str(), j, b);  // [b,Ts,D]
  norm(post_norm, dh2, s[Part::x2], s[Part::rstd2], names_.post_norm);
  Buf dx2 = d.take("dx2", Kind::buffers, rows_ * D);
  d.run(ops.rms_norm_dx, dx2, dh2, s[Part::x2], s[Part::rstd2], weight(post_norm), rows_, D);
  d.run(ops.add, dx2, dx2, dy, rows_ * D);
  dh2.free(), dy.free(), s[Part::x2].free(), s[Part::rstd2].free();

  // ---- attention: x2 = x + o_proj(attention(q, k, v of e1))
  need(Part::o, j, s), need(Part::q, j, s);
  Buf dx2c = r_.seam.close_back(dx2, names_.attn_dout.c_str(), j, b);
  Buf dO = d.take("do", Kind::buffers, inner_ * H * hd);
  input_gradient(d, dO, {{{dx2c, D, weight(o_proj), D}}}, inner_, H * hd, 1);
  Spread::Sent sent_do = r_.spread.send_tokens(std::move(dO), H, Kind::buffers, names_.d_o.c_str(), j, b);
  linear(o_proj, dx2c, s[Part::o], D, H * hd);
  dx2c.free();
  dO = r_.spread.take_by_head(std::move(sent_do), b);
  Buf dq = d.take("dq", Kind::buffers, inner_ * H * hd);
  // Of this rank's query heads: others may use the same key/value head.
  const Type stored = dq.view().type, part = r_.mesh.kv_replicas > 1 || repeats > 1 ? d.partial() : stored;
  Buf dk = d.take("dk", Kind::buffers, inner_ * K * repeats * hd, part);
  Buf dv = d.take("dv", Kind::buffers, inner_ * K * repeats * hd, part);
  d.run(ops.attention_dx, dq, dk, dv, dO, s[Part::q], s[Part::k], s[Part::v],
        s[parts > 1 ? Part::oh : Part::o], s[Part::lse], b, T, H / parts, K * repeats / parts, hd);
  dO.free();
  for (const Part p : {Part::q, Part::k, Part::v, Part::o, Part::oh, Part::lse}) s[p].free();
  Spread::Sent sent_dq = r_.spread.send_by_head(std::move(dq), H, Kind::buffers, names_.dq.c_str(), j, b);
  Spread::Sent sent_dk = r_.spread.send_by_head(std::move(dk), K, Kind::buffers, names_.dk.c_str(), j, b);
  Spread::Sent sent_dv = r_.spread.send_by_head(std::move(dv), K, Kind::buffers, names_.dv.c_str(), j, b);
  dq = r_.spread.take_tokens(std::move(sent_dq), b);
  d.run(ops.rope, dq, cos_, sin_, inner_, r_.settings.seq, H, hd, true);
  need(Part::e1, j, s);
  s[Part::h1].free();
  linear(q_proj, dq, s[Part::e1], H * hd, D);
  dk = r_.spread.take_tokens(std::move(sent_dk), b);
  dv = r_.spread.take_tokens(std::move(sent_dv), b);
  r_.seam.kv_grad(dk, dv, names_.attn_dkv.c_str(), j, b);
  dk = stored_as(d, stored, std::move(dk), "dk");
  dv = stored_as(d, stored, std::move(dv), "dv");
  d.run(ops.rope, dk, cos_, sin_, inner_, r_.settings.seq, K, hd, true);
  linear(k_proj, dk, s[Part::e1], K * hd, D);
  linear(v_proj, dv, s[Part::e1], K * hd, D);
  s[Part::e1].free();
  Buf de1 = d.take("de1", Kind::buffers, inner_ * D, d.partial());
  const i64 from = c_.kv_first, cols = c_.kv_cols;  // this rank's leaves of a key/value head it may share
  input_gradient(d, de1,
                 {{{dq, H * hd, weight(q_proj), H * hd},
                   {dk.from(from), K * hd, weight(k_proj).from(from * D), cols},
                   {dv.from(from), K * hd, weight(v_proj).from(from * D), cols}}},
                 inner_, D, c_.leaves);
  dq.free(), dk.free(), dv.free();
  Buf dh1 = r_.seam.open(std::move(de1), names_.attn_din.c_str(), j, b);
  norm(input_norm, dh1, s[Part::x], s[Part::rstd1], names_.input_norm);
  Buf dx = d.take("dx", Kind::buffers, rows_ * D);
  d.run(ops.rms_norm_dx, dx, dh1, s[Part::x], s[Part::rstd1], weight(input_norm), rows_, D);
  d.run(ops.add, dx, dx, dx2, rows_ * D);
  s[Part::x].free(), s[Part::rstd1].free();
  return dx;
}

}  // namespace lockstep
