// Tensor (model) parallelism: column- then row-split matmuls in every branch, vocabulary-parallel embedding,
// head and cross entropy (Shoeybi et al. 2019, Megatron-LM, sections 3 and 5), and sequence parallelism
// outside the branches (Korthikanti et al. 2022, section 4.2.2) as `sp=1`.
//
//   sp=0   norm -> branch (own heads, own ffn columns) -> close: all_reduce   backward open: all_reduce
//   sp=1   norm of T/tp tokens -> enter: all_gather -> branch -> close: reduce_scatter; backward the reverse
#include <algorithm>

#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class Tensor final : public Seam {
 public:
  explicit Tensor(const Context& c)
      : device_(c.device),
        tp_(c.mesh.tp),
        at_(c.mesh.tp_of(c.rank)),
        split_tokens_(c.plan.number("sp") == 1),
        width_(c.model.hidden),
        T_(c.settings.seq),
        replicas_(c.mesh.kv_replicas) {
    const ModelConfig& m = c.model;
    const i64 padded = padded_vocab(m, c.settings.leaves);
    const i64 all_kv = m.kv_heads * m.head_dim;
    // First of the kv heads held here: `replicas_` neighbouring ranks hold the same ones.
    kv_head_ = at_ / replicas_ * (m.kv_heads * replicas_ / tp_);
    cut_.heads = m.heads / tp_;
    cut_.kv_heads = m.kv_heads * replicas_ / tp_;
    cut_.ffn = m.intermediate / tp_;
    cut_.vocab = padded / tp_;
    cut_.vocab_first = at_ * cut_.vocab;
    cut_.vocab_valid = std::clamp<i64>(m.vocab - cut_.vocab_first, 0, cut_.vocab);
    cut_.leaves = c.settings.fast ? 1 : c.settings.leaves / tp_;
    cut_.seq = split_tokens_ ? T_ / tp_ : T_;
    cut_.seq_leaves = c.settings.fast ? 1 : split_tokens_ ? cut_.leaves : c.settings.leaves;
    // Ranks that share a kv head hold all of its dk, dv; each puts its own leaves' columns into dx.
    cut_.kv_cols = all_kv / tp_;
    cut_.kv_first = at_ * cut_.kv_cols - kv_head_ * m.head_dim;
    head_dim_ = m.head_dim;
  }

  const Cut& cut() const override { return cut_; }

  Slice slice(const Param& p) const override {
    const i64 r = p.stored_rows, c = p.cols;
    if (p.row_dim == Dim::heads || p.row_dim == Dim::ffn || p.row_dim == Dim::vocab)
      return {at_ * r / tp_, r / tp_, 0, c};
    if (p.row_dim == Dim::kv_heads)
      return {kv_head_ * head_dim_, cut_.kv_heads * head_dim_, 0, c, replicas_ > 1 ? Axis::kv : Axis::count};
    if (p.col_dim == Dim::heads || p.col_dim == Dim::ffn) return {0, r, at_ * c / tp_, c / tp_};
    return {0, r, 0, c, Axis::tp};
  }

  Buf enter(const Buf& h, const char* what, int j, i64 b) override {
    return split_tokens_ ? gather(h, what, j, b) : h;
  }
  Buf close(Buf partial, const char* what, int j, i64 b) override {
    return sum(std::move(partial), what, j, b);
  }
  Buf close_back(const Buf& dy, const char* what, int j, i64 b) override { return enter(dy, what, j, b); }
  Buf open(Buf partial, const char* what, int j, i64 b) override {
    return sum(std::move(partial), what, j, b);
  }

  void norm_grad(const Buf& leaves, const char* what, int j, i64 b) override {
    if (split_tokens_) device_.all_reduce(Axis::tp, Reduce::sum, leaves, leaves, b * width_, what, j);
  }
  void kv_grad(const Buf& dk, const Buf& dv, const char* what, int j, i64 b) override {
    if (replicas_ == 1) return;
    const i64 n = b * T_ * cut_.kv_heads * head_dim_;
    device_.all_reduce(Axis::kv, Reduce::sum, dk, dk, n, what, j);
    device_.all_reduce(Axis::kv, Reduce::sum, dv, dv, n, what, j);
  }
  void vocab_max(const Buf& max, int j) override {
    device_.all_reduce(Axis::tp, Reduce::max, max, max, max.elements(), "head.max", j);
  }
  void vocab_sum(const Buf& both, int j) override {
    device_.all_reduce(Axis::tp, Reduce::sum, both, both, both.elements(), "head.sum", j);
  }

 private:
  Message message(Verb verb, const char* what, int j, i64 b) const {
    Message m;
    m.verb = verb;
    m.axis = Axis::tp;
    m.reduce = verb == Verb::all_gather ? Reduce::none : Reduce::sum;
    m.blocks = b;
    m.n = cut_.seq * width_;
    m.what = what;
    m.microbatch = j;
    return m;
  }
  Buf gather(const Buf& in, const char* what, int j, i64 b) {
    Buf out = device_.take(what, Kind::buffers, b * T_ * width_);
    Request r = device_.start(message(Verb::all_gather, what, j, b), in, out);
    device_.wait(r);
    return out;
  }
  Buf sum(Buf partial, const char* what, int j, i64 b) {
    Buf out = split_tokens_ ? device_.take(what, Kind::buffers, b * cut_.seq * width_, partial.view().type)
                            : partial;
    const Verb verb = split_tokens_ ? Verb::reduce_scatter : Verb::all_reduce;
    Request r = device_.start(message(verb, what, j, b), partial, out);
    device_.wait(r);
    return out;
  }

  Device& device_;
  int tp_, at_;
  bool split_tokens_;
  i64 width_, T_, head_dim_ = 0, kv_head_ = 0;
  int replicas_;
  Cut cut_{};
};

using Refused = std::optional<std::string>;

Refused divides(const Plan& p, i64 n, const char* what) {
  const int tp = p.number("tp");
  if (n % tp == 0) return {};
  return "tp=" + std::to_string(tp) + " does not divide the model's " + std::to_string(n) + " " + what;
}

const std::vector<Rule> rules = {
    {"tp-divides-heads", [](const Plan& p, const ModelConfig& m,
                            const Settings&) { return divides(p, m.heads, "attention heads"); }},
    {"tp-divides-ffn", [](const Plan& p, const ModelConfig& m,
                          const Settings&) { return divides(p, m.intermediate, "ffn columns"); }},
    {"tp-and-kv-heads",
     [](const Plan& p, const ModelConfig& m, const Settings&) -> Refused {
       const i64 tp = p.number("tp");
       if (m.kv_heads % tp == 0 || (tp % m.kv_heads == 0 && m.kv_heads * m.head_dim % tp == 0)) return {};
       return "tp=" + std::to_string(tp) + " and " + std::to_string(m.kv_heads) +
              " key/value heads: one must be a multiple of the other";
     }},
    {"tp-divides-leaves",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Refused {
       if (s.fast || s.leaves % p.number("tp") == 0) return {};
       return "exact mode needs tp to divide the run's " + std::to_string(s.leaves) + " leaves";
     }},
    {"tp-divides-vocabulary",
     [](const Plan& p, const ModelConfig& m, const Settings& s) {
       return divides(p, padded_vocab(m, s.leaves), "stored vocabulary rows");
     }},
    {"sp-divides-sequence",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Refused {
       const i64 T = in_segments(s, p).seq;
       if (p.number("sp") == 0 || T % p.number("tp") == 0) return {};
       return "sp=1 needs tp to divide the " + std::to_string(T) + " tokens of a sequence";
     }},
};

// ---- price: per layer and microbatch 2 sums forward and 2 backward of b*T*D elements; with sp each is a
// gather and a scatter of the same total volume, counted here by this rank's part, plus 2 gathers anew in
// backward (Korthikanti et al. 2022, section 4.2.2).
bool sp(const Shape& s) { return s.plan->number("sp") == 1; }
i64 part(const Shape& s) { return s.b * s.T / (sp(s) ? s.tp : 1) * s.D; }
Maybe gathers(const Shape& s) { return sp(s) ? Maybe{{Axis::tp, Verb::all_gather, part(s)}} : std::nullopt; }
Maybe sums(const Shape& s) {
  return Said{Axis::tp, sp(s) ? Verb::reduce_scatter : Verb::all_reduce, part(s)};
}

const PriceOf<Seam> price = {
    .outside = [](const Shape& s) { return sp(s) ? s.T / s.tp : s.T; },
    .heads = [](const Shape& s) { return s.H / s.tp; },
    .kv_heads = [](const Shape& s) { return std::max<i64>(1, s.K / s.tp); },
    .ffn = [](const Shape& s) { return s.F / s.tp; },
    .vocab = [](const Shape& s) { return s.Vp / s.tp; },
    .enter = gathers,
    .close = sums,
    .close_back = gathers,
    .open = sums,
    .norm_grad =
        [](const Shape& s) {
          return sp(s) ? Maybe{{Axis::tp, Verb::all_reduce, s.sums * s.D}} : std::nullopt;
        },
    .kv_grad =
        [](const Shape& s) {
          return s.K < s.tp ? Maybe{{Axis::kv, Verb::all_reduce, s.b * s.T * s.hd}} : std::nullopt;
        },
    .vocab_max =
        [](const Shape& s) {
          return Maybe{{Axis::tp, Verb::all_reduce, s.b * s.T}};
        },
    .vocab_sum =
        [](const Shape& s) {
          return Maybe{{Axis::tp, Verb::all_reduce, 2 * s.b * s.T}};
        },
};

const Strategy<Seam> strategy(
    "tensor", {{"sp", "0", {"0", "1"}, "sequence parallelism outside the branches (needs tp > 1)"}},
    [](const Plan& p) { return p.number("tp") > 1; }, rules,
    [](const Context& c) -> std::unique_ptr<Seam> { return std::make_unique<Tensor>(c); }, price);

}  // namespace
}  // namespace lockstep
