// The defaults of one device: a whole layer, every activation kept and kept there, the optimizer where the
// weights are.
// (The default store and schedule are `data` with one replica and `1f1b` with one stage.)
#include <numeric>

#include "parallel/roles.hpp"
#include "ref/optimizer.hpp"

namespace lockstep {
namespace {

class Whole final : public Seam {
 public:
  explicit Whole(const Context& c) {
    const ModelConfig& m = c.model;
    const i64 padded = padded_vocab(m, c.settings.leaves);
    cut_ = {.heads = m.heads,
            .kv_heads = m.kv_heads,
            .ffn = m.intermediate,
            .vocab = padded,
            .vocab_first = 0,
            .vocab_valid = m.vocab,
            .leaves = c.settings.fast ? 1 : c.settings.leaves,
            .seq = c.settings.seq,
            .seq_leaves = c.settings.fast ? 1 : c.settings.leaves,
            .kv_first = 0,
            .kv_cols = m.kv_heads * m.head_dim};
  }
  const Cut& cut() const override { return cut_; }
  Slice slice(const Param& p) const override { return {0, p.stored_rows, 0, p.cols}; }
  Buf enter(const Buf& h, const char*, int, i64) override { return h; }
  Buf close(Buf partial, const char*, int, i64) override { return partial; }
  Buf close_back(const Buf& dy, const char*, int, i64) override { return dy; }
  Buf open(Buf partial, const char*, int, i64) override { return partial; }
  void norm_grad(const Buf&, const char*, int, i64) override {}
  void kv_grad(const Buf&, const Buf&, const char*, int, i64) override {}
  void vocab_max(const Buf&, int) override {}
  void vocab_sum(const Buf&, int) override {}

 private:
  Cut cut_{};
};

Maybe silent(const Shape&) { return {}; }

const Strategy<Spread> together("together", {}, nullptr, {},
                                [](const Context&) -> std::unique_ptr<Spread> {
                                  return std::make_unique<Spread>();
                                },
                                {.exchange = [](const Shape&, i64) { return Maybe{}; }});

const Strategy<Seam> whole("whole", {}, nullptr, {},
                           [](const Context& c) -> std::unique_ptr<Seam> {
                             return std::make_unique<Whole>(c);
                           },
                           {.outside = [](const Shape& s) { return s.T; },
                            .heads = [](const Shape& s) { return s.H; },
                            .kv_heads = [](const Shape& s) { return s.K; },
                            .ffn = [](const Shape& s) { return s.F; },
                            .vocab = [](const Shape& s) { return s.Vp; },
                            .enter = silent,
                            .close = silent,
                            .close_back = silent,
                            .open = silent,
                            .norm_grad = silent,
                            .kv_grad = silent,
                            .vocab_max = silent,
                            .vocab_sum = silent});

class KeepAll final : public Stash {
 public:
  // e1, e2 are gathered anew where a seam gathers them, and are h1, h2 themselves where it does not.
  bool keeps(int, Part part) const override { return part != Part::e1 && part != Part::e2; }
};

const Strategy<Stash> keep_all("keep", {}, nullptr, {},
                               [](const Context&) -> std::unique_ptr<Stash> {
                                 return std::make_unique<KeepAll>();
                               },
                               {.drops = [](const Shape&, i64) { return Dropped{}; }});

class AtHand final : public Shelf {};

i64 none(const Shape&, const KeptElements&) { return 0; }

const Strategy<Shelf> at_hand(
    "at-hand", {}, nullptr, {},
    [](const Context&) -> std::unique_ptr<Shelf> { return std::make_unique<AtHand>(); },
    {.device = [](const Shape& s,
                  const KeptElements& k) { return s.activation * (k.with_ends + k.beside * k.for_weights); },
     .host = none,
     .disk = none});

class OnDevice final : public Home {
 public:
  explicit OnDevice(const Context& c) : device_(c.device), settings_(c.settings) {}
  void prepare(const std::vector<Piece>& pieces, const LocalParams&) override {
    i64 all = 0;
    for (const Piece& p : pieces) all += p.n;
    if (settings_.weight_bytes < 4) master_ = device_.take("master weights", Kind::optimizer, all);
    first_ = device_.take("first moments", Kind::optimizer, all);
    second_ = device_.take("second moments", Kind::optimizer, all);
    device_.run(device_.ops().zero, first_, all);
    device_.run(device_.ops().zero, second_, all);
  }
  void begin(const std::vector<Piece>& pieces) override {
    i64 at = 0;
    for (const Piece& p : pieces) {
      if (master_) device_.run(device_.ops().copy, master_.from(at), p.weight, p.n);
      at += p.n;
    }
  }
  void step(const std::vector<Piece>& pieces, const LocalParams& params, i64 step, double clip) override {
    i64 at = 0;
    for (const Piece& p : pieces) {
      device_.run(device_.ops().adamw, master_ ? master_.from(at) : p.weight, first_.from(at),
                  second_.from(at), p.gradient, p.n, static_cast<float>(clip),
                  adamw_step<float>(settings_, step, params.all[p.local].decayed));
      if (master_) device_.run(device_.ops().copy, p.weight, master_.from(at), p.n);  // rounds
      at += p.n;
    }
  }
  State state(i64 at) const override {
    return {master_ ? master_.from(at) : View{}, first_.from(at), second_.from(at)};
  }

 private:
  Device& device_;
  const Settings& settings_;
  Buf master_, first_, second_;  // float32; master: where the weights themselves are not
};

const Strategy<Home> on_device(
    "on-device", {}, nullptr, {},
    [](const Context& c) -> std::unique_ptr<Home> { return std::make_unique<OnDevice>(c); },
    {.optimizer = [](const Shape& s, i64 updated) { return (s.weight < 4 ? 12 : 8) * updated; },
     .host = [](const Shape&, i64) { return i64{0}; },
     .disk = [](const Shape&, i64) { return i64{0}; },
     .work =
         [](const Shape& s, const std::vector<i64>& pieces, StepWork& work) {
           const i64 n = static_cast<i64>(pieces.size());
           const i64 elements = std::accumulate(pieces.begin(), pieces.end(), i64{0});
           work.set_up(StepWork::kZero, 2, 2 * elements);
           work.run("adamw", n, 7 * elements);
           if (s.weight < 4) work.run("copy", n, 2 * elements);
         }});

}  // namespace
}  // namespace lockstep
