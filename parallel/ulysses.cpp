// Context parallelism by exchanging heads for tokens (Jacobs et al. 2023, DeepSpeed-Ulysses, section 3): a
// rank has a piece of each sequence, T/cp tokens, for all of a layer but attention; there it has whole
// sequences and 1/cp of the heads. All of a sequence is attended to in one place, so that attention is as it
// is without cp.
//
//   projections [b,T/cp, heads*hd] --all_to_all--> attention [b,T, heads/cp*hd] --all_to_all--> output
//   [b,T/cp,...]
//
// Weights are as those of dp x cp replicas, which is how their gradients are summed. A layer's microbatch
// takes 4 exchanges forward (q, k, v; the output) and 4 backward, each of (cp - 1)/cp of the tensor.
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class Ulysses final : public Spread {
 public:
  explicit Ulysses(const Context& c) : device_(c.device), cp_(c.mesh.cp), tokens_(c.settings.seq) {}
  int parts() const override { return cp_; }

  Buf to_heads(Buf tokens, Kind kind, const char* what, int j, i64 b) override {
    exchange(tokens, what, j, b);  // [b, T/cp, cp, w], by the rank that the tokens are from
    Buf heads = device_.take(what, kind, tokens.elements(), tokens.view().type);
    device_.run(device_.ops().swap_axes, heads, tokens, b, tokens_, i64{cp_}, width(tokens, b));
    return heads;
  }

  Buf to_tokens(Buf heads, Kind kind, const char* what, int j, i64 b) override {
    Buf tokens = device_.take(what, kind, heads.elements(), heads.view().type);
    device_.run(device_.ops().swap_axes, tokens, heads, b, i64{cp_}, tokens_, width(heads, b));
    heads.free();
    exchange(tokens, what, j, b);  // by the rank that the heads are from, which is by heads
    return tokens;
  }

 private:
  i64 width(const Buf& x, i64 b) const { return x.elements() / (b * tokens_ * cp_); }  // of a rank's heads
  void exchange(const Buf& x, const char* what, int j, i64 b) {
    Message m;
    m.verb = Verb::all_to_all;
    m.axis = Axis::cp;
    m.blocks = b * tokens_;
    m.n = width(x, b);
    m.what = what;
    m.microbatch = j;
    Request r = device_.start(m, x, x);
    device_.wait(r);
  }

  Device& device_;
  const int cp_;
  const i64 tokens_;  // of a sequence, on this rank
};

const std::vector<Rule> rules = {
    {"cp-divides-heads",
     [](const Plan& p, const ModelConfig& m, const Settings&) -> std::optional<std::string> {
       const i64 cp = p.number("cp"), tp = p.number("tp");
       if (m.heads % (cp * tp) == 0 && m.kv_heads % (cp * tp) == 0) return {};
       return "cp x tp = " + std::to_string(cp * tp) + " does not divide the model's " +
              std::to_string(m.heads) + " attention heads and " + std::to_string(m.kv_heads) +
              " key/value heads";
     }},
};

const Strategy<Spread> strategy(
    "ulysses", {}, [](const Plan& p) { return p.number("cp") > 1; }, rules,
    [](const Context& c) -> std::unique_ptr<Spread> { return std::make_unique<Ulysses>(c); },
    {.exchanges = true, .exchange = [](const Shape& s, i64 elements) {
       return Maybe{{Axis::cp, Verb::all_to_all, elements / s.cp}};
     }});

}  // namespace
}  // namespace lockstep
