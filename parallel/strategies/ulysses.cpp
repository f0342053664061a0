// Context parallelism by exchanging heads for tokens (Jacobs et al. 2023, DeepSpeed-Ulysses, section 3): a
// rank has a segment of each sequence, T/cp tokens, for all of a layer but attention; there it has whole
// sequences and 1/cp of the heads. All of a sequence is attended to in one place, so that attention is as it
// is without cp.
//
//   projections [b,T/cp, heads*hd] --all_to_all--> attention [b,T, heads/cp*hd] --all_to_all--> output
//   [b,T/cp,...]
//
// Where a rank of tp has fewer key/value heads than there are ranks of cp, each goes to several (Bekman et
// al. 2025, Arctic Long Sequence Training), and what these have of its gradient is added up in the order of
// the query heads: in exact mode float32, rounded behind the sum.
//
// Weights are as those of dp x cp replicas, which is how their gradients are summed. A layer's microbatch
// takes 4 exchanges forward (q, k, v; the output) and 4 backward, each of (cp - 1)/cp of the tensor. Those of
// q and k go beside the products that make k and v, that of the output's gradient beside o_proj's weight
// gradient, and those of dk and dv beside q_proj's.
#include <algorithm>

#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class Ulysses final : public Spread {
 public:
  explicit Ulysses(const Context& c)
      : device_(c.device), cp_(c.mesh.cp), tokens_(c.settings.seq), width_(c.model.head_dim) {}
  int parts() const override { return cp_; }

  i64 repeats(i64 heads) const override { return std::max<i64>(1, cp_ / heads); }

  Sent send_tokens(Buf tokens, i64 heads, Kind kind, const char* what, int j, i64 b) override {
    if (const i64 r = repeats(heads); r > 1) {
      Buf repeated = take(what, Kind::buffers, tokens.elements() * r, tokens);
      device_.run(device_.ops().repeat_rows, repeated, tokens, b * tokens_ * heads, r, width_);
      tokens = std::move(repeated);
    }
    return exchange(std::move(tokens), heads, kind, what, j, b);
  }
  Buf take_by_head(Sent sent, i64 b) override {
    device_.wait(sent.request);  // [b, T/cp, cp, w], by the rank that the tokens are from
    Buf by_head = take(sent.what, sent.kind, sent.buf.elements(), sent.buf);
    device_.run(device_.ops().swap_axes, by_head, sent.buf, b, tokens_, i64{cp_}, of_a_rank(sent.buf, b));
    return by_head;
  }

  Sent send_by_head(Buf by_head, i64 heads, Kind kind, const char* what, int j, i64 b) override {
    const Kind sent = repeats(heads) > 1 ? Kind::buffers : kind;
    Buf tokens = take(what, sent, by_head.elements(), by_head);
    device_.run(device_.ops().swap_axes, tokens, by_head, b, i64{cp_}, tokens_, of_a_rank(by_head, b));
    by_head.free();
    return exchange(std::move(tokens), heads, kind, what, j, b);
  }
  Buf take_tokens(Sent sent, i64 b) override {
    device_.wait(sent.request);  // by the rank that the heads are from, which is by heads
    const i64 r = repeats(sent.heads);
    if (r == 1) return std::move(sent.buf);
    Buf sums = take(sent.what, sent.kind, sent.buf.elements() / r, sent.buf);
    device_.run(device_.ops().sum_rows, sums, sent.buf, b * tokens_ * sent.heads, r, width_);
    return sums;
  }

 private:
  Buf take(const char* what, Kind kind, i64 elements, const Buf& like) {
    return device_.take(what, kind, elements, like.view().type);
  }
  i64 of_a_rank(const Buf& x, i64 b) const { return x.elements() / (b * tokens_ * cp_); }  // and token
  Sent exchange(Buf x, i64 heads, Kind kind, const char* what, int j, i64 b) {
    Message m;
    m.verb = Verb::all_to_all;
    m.axis = Axis::cp;
    m.blocks = b * tokens_;
    m.n = of_a_rank(x, b);
    m.what = what;
    m.microbatch = j;
    Request request = device_.start(m, x, x);
    return {std::move(x), kind, std::move(request), what, heads};
  }

  Device& device_;
  const int cp_;
  const i64 tokens_, width_;  // of a sequence, on this rank; of a head
};

const std::vector<Rule> rules = {
    {"cp-divides-heads",
     [](const Plan& p, const ModelConfig& m, const Settings&) -> std::optional<std::string> {
       const i64 both = i64{p.number("cp")} * p.number("tp");
       if (m.heads % both == 0) return {};
       return "cp x tp = " + std::to_string(both) + " does not divide the model's " +
              std::to_string(m.heads) + " attention heads";
     }},
    {"cp-and-kv-heads",
     [](const Plan& p, const ModelConfig& m, const Settings&) -> std::optional<std::string> {
       const i64 cp = p.number("cp"), kv = std::max<i64>(1, m.kv_heads / p.number("tp"));
       if (kv % cp == 0 || cp % kv == 0) return {};
       return "cp=" + std::to_string(cp) + " and " + std::to_string(kv) +
              " key/value heads of a rank of tp: one must be a multiple of the other";
     }},
};

// ---- price
const Strategy<Spread> strategy(
    "ulysses", {}, [](const Plan& p) { return p.number("cp") > 1; }, rules,
    [](const Context& c) -> std::unique_ptr<Spread> { return std::make_unique<Ulysses>(c); },
    {.exchanges = true,
     .repeats = [](const Shape& s) { return std::max<i64>(1, s.cp / std::max<i64>(1, s.K / s.tp)); },
     .exchange =
         [](const Shape& s, i64 elements) {
           return Maybe{{Axis::cp, Verb::all_to_all, elements / s.cp}};
         }});

}  // namespace
}  // namespace lockstep
