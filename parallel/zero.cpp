// ZeRO (Rajbhandari et al. 2020, section 5): the dp ranks of a stage and slice share the optimizer state
// (zero=1), also the gradients (zero=2), also the weights (zero=3). A unit is cut into dp equal shards; the
// last one is padded, and pads are never counted.
//
//            weights  gradients                     moments  messages of a unit, s = E/dp elements each
//   zero=1   E        E, then own shard             E/dp     reduce_scatter, all_gather            a step
//   zero=2   E        own shard; E while reducing   E/dp     reduce_scatter a microbatch, all_gather a step
//   zero=3   E/dp     own shard; E while reducing   E/dp     reduce_scatter, 2 all_gather     a microbatch
#include <algorithm>

#include "parallel/accumulate.hpp"
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class Zero final : public Store {
 public:
  explicit Zero(const Context& c)
      : device_(c.device),
        params_(*c.params),
        level_(c.plan.number("zero")),
        dp_(c.mesh.dp),
        me_(c.mesh.dp_of(c.rank)),
        b_(c.plan.number("micro")),
        block_(c.settings.batch / c.mesh.dp),
        units_(params_.unit_elements.size()) {
    for (const int u : params_.units) {
      Unit& unit = units_[u];
      unit.elements = params_.unit_elements[u];
      unit.shard = (unit.elements + dp_ - 1) / dp_;
      unit.gradient_name = "unit" + std::to_string(u) + ".gradient";
      unit.weight_name = "unit" + std::to_string(u) + ".weights";
      const std::vector<int>& order = (*c.gradient_order)[u];
      if (params_.unit_weights[u])
        unit.weights = device_.take("weights", Kind::weights, level_ == 3 ? unit.shard : unit.shard * dp_);
      // zero=1 adds up a rank's whole block of samples; zero=2, 3 a microbatch first, then microbatches.
      std::vector<i64> samples;
      for (const int j : level_ == 1 ? order : std::vector<int>{0})
        for (i64 i = 0; i < b_; ++i) samples.push_back(sample(j, i));
      unit.leaves = std::make_unique<Accumulation>(samples, c.settings.batch);
      const i64 microbatches = block_ / b_;
      unit.sums = std::make_unique<Accumulation>(
          level_ == 1 ? std::vector<i64>{0} : std::vector<i64>(order.begin(), order.end()),
          level_ == 1 ? 1 : microbatches);
      unit.gradients = device_.take(
          "gradients", Kind::gradients,
          level_ == 1 ? unit.leaves->slots() * unit.shard * dp_ : unit.sums->slots() * unit.shard);
    }
    for (int l = 0; l < static_cast<int>(params_.all.size()); ++l) {
      const LocalParam& p = params_.all[l];
      if (p.alias >= 0) continue;
      const i64 from = std::max<i64>(0, me_ * units_[p.unit].shard - p.first);
      const i64 to = std::min<i64>(p.count(), (me_ + 1) * units_[p.unit].shard - p.first);
      if (from >= to) continue;
      pieces_.push_back({l, from, to - from, own_weight(l, from), gradient(l, from),
                         counts_in_norm(params_, l, c.mesh, c.rank)});
    }
  }

  // zero=1 reduces once a step: a rank has its own block. zero=2, 3 reduce every microbatch: its samples are
  // dealt so that a microbatch of all ranks is one block of the tree.
  i64 sample(int microbatch, i64 i) const override {
    return level_ == 1 ? me_ * block_ + microbatch * b_ + i : (microbatch * dp_ + me_) * b_ + i;
  }

  void load(int local, const float* values) override {
    const LocalParam& p = params_.all[local];
    if (resident()) return device_.upload(weight(local), values, p.count());
    for (const Piece& piece : pieces_)
      if (piece.local == local) device_.upload(piece.weight, values + piece.first, piece.n);
  }
  bool resident() const override { return level_ < 3; }

  void prefetch(int number) override {
    Unit& u = weights_of(number);
    if (resident() || u.whole) return;
    u.whole = device_.take("gathered", Kind::gathered, u.shard * dp_);
    u.coming = gather(u, u.weights, u.weights, u.whole);
  }
  void acquire(int number) override {
    if (resident()) return;
    prefetch(number);
    Unit& u = weights_of(number);
    if (u.coming) device_.wait(u.coming);
    ++u.users;
  }
  void release(int number) override {
    if (resident()) return;
    Unit& u = weights_of(number);
    if (--u.users == 0) u.whole.free();
  }
  View weight(int local) override {
    const LocalParam& p = params_.all[local];
    if (p.alias >= 0) return weight(p.alias);
    return (resident() ? units_[p.unit].weights : units_[p.unit].whole).from(p.first);
  }

  Leaf leaf(int local, i64 sample) override {
    Unit& u = units_[params_.all[local].unit];
    if (arriving_ == &u) finish();  // the microbatch before is still being reduced from the same buffer
    if (level_ > 1 && !u.microbatch) {
      u.microbatch = device_.take("microbatch gradients", Kind::reducing, u.leaves->slots() * u.shard * dp_);
      zero_pads(u);
    }
    const Accumulation::Arrival& a = u.leaves->at(place(sample));
    return {slot(local, a.slot), a.add};
  }
  void done(int local, i64 sample) override {
    const LocalParam& p = params_.all[local];
    for (const auto& [into, from] : units_[p.unit].leaves->at(place(sample)).merges)
      device_.run(device_.ops().add, slot(local, into), slot(local, into), slot(local, from), p.count());
  }

  void ready(int number, int microbatch, bool last) override {
    if (level_ == 1 && !last) return;
    finish();
    Unit& u = units_[number];
    Message m;
    m.verb = Verb::reduce_scatter;
    m.axis = Axis::dp;
    m.reduce = Reduce::sum;
    m.n = u.shard;
    m.what = u.gradient_name.c_str();
    if (level_ == 1) {
      zero_pads(u);
      const Buf& all = u.gradients;
      coming_ = device_.start(m, all, all, all, all.from(me_ * u.shard));
    } else {
      m.microbatch = microbatch;
      u.sum = device_.take("reduced", Kind::reducing, u.shard);
      coming_ = device_.start(m, u.microbatch, u.sum);
      arriving_ = &u, arriving_microbatch_ = microbatch;
    }
  }

  // The reduction under way arrives; a microbatch's sum goes to its place in the tree over microbatches.
  void finish() override {
    if (coming_) device_.wait(coming_);
    if (!arriving_) return;
    Unit& u = *std::exchange(arriving_, nullptr);
    u.microbatch.free();
    const Accumulation::Arrival& a = u.sums->at(arriving_microbatch_);
    const View to = u.gradients.from(a.slot * u.shard);
    if (a.add)
      device_.run(device_.ops().add, to, to, u.sum, u.shard);
    else
      device_.run(device_.ops().copy, to, u.sum, u.shard);
    u.sum.free();
    for (const auto& [into, from] : a.merges)
      device_.run(device_.ops().add, u.gradients.from(into * u.shard), u.gradients.from(into * u.shard),
                  u.gradients.from(from * u.shard), u.shard);
  }

  const std::vector<Piece>& pieces() override { return pieces_; }
  View gradient(int local, i64 first) override {
    const LocalParam& p = params_.all[local];
    const Unit& u = units_[p.unit];
    return u.gradients.from(p.first + first - (level_ == 1 ? 0 : me_ * u.shard));
  }

  void republish() override {
    if (!resident()) return;
    for (const int number : params_.units) {
      Unit& u = units_[number];
      if (!u.weights) continue;
      Request r = gather(u, u.weights, u.weights.from(me_ * u.shard), u.weights);
      device_.wait(r);
    }
  }

 private:
  struct Unit {
    i64 elements = 0, shard = 0;
    Buf weights, gradients;      // resident, or this rank's shard
    Buf whole, microbatch, sum;  // for a while
    Request coming;              // of `whole`
    int users = 0;
    // The tree in two storeys: over the samples that are summed before a message, over its results.
    std::unique_ptr<Accumulation> leaves, sums;
    std::string gradient_name, weight_name;
  };

  // A tied head's unit has no weights: it uses the embedding's.
  Unit& weights_of(int number) { return units_[units_[number].weights ? number : 0]; }
  View own_weight(int local, i64 first) const {
    const LocalParam& p = params_.all[local];
    const Unit& u = units_[p.unit];
    return u.weights.from(p.first + first - (level_ == 3 ? me_ * u.shard : 0));
  }
  Request gather(const Unit& u, const Buf& in, View from, const Buf& out) {
    Message m;
    m.verb = Verb::all_gather;
    m.axis = Axis::dp;
    m.n = u.shard;
    m.what = u.weight_name.c_str();
    return device_.start(m, in, from, out, out);
  }
  // Within one microbatch all arrive alike: the first one's places serve every microbatch.
  i64 place(i64 sample) const { return level_ == 1 ? sample : me_ * b_ + sample % b_; }
  View slot(int local, int s) const {
    const LocalParam& p = params_.all[local];
    const Unit& u = units_[p.unit];
    return (level_ == 1 ? u.gradients : u.microbatch).from(s * u.shard * dp_ + p.first);
  }
  void zero_pads(const Unit& u) {
    const i64 pads = u.shard * dp_ - u.elements;
    if (pads)
      device_.run(device_.ops().zero, (level_ == 1 ? u.gradients : u.microbatch).from(u.elements), pads);
  }

  Device& device_;
  const LocalParams& params_;
  int level_, dp_, me_;
  i64 b_, block_;
  std::vector<Unit> units_;
  std::vector<Piece> pieces_;
  Request coming_;  // the reduction under way
  Unit* arriving_ = nullptr;
  int arriving_microbatch_ = 0;
};

const std::vector<Rule> rules = {
    {"zero-microbatches-power-of-two",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> std::optional<std::string> {
       const i64 m = s.batch / p.number("dp") / p.number("micro");
       if (p.number("zero") == 1 || (m & (m - 1)) == 0) return {};
       return "exact mode with zero=" + p.text("zero") + " needs a power of two of microbatches, not " +
              std::to_string(m);
     }},
};

// ---- price
i64 level(const Shape& s) { return s.plan->number("zero"); }
i64 shard(const Shape& s, i64 elements) { return (elements + s.dp - 1) / s.dp; }

const Strategy<Store> strategy(
    "zero",
    {{"zero", "0", {"0", "1", "2", "3"}, "ZeRO stage: shards optimizer state, gradients, weights over dp"}},
    [](const Plan& p) { return p.number("zero") > 0; }, rules,
    [](const Context& c) -> std::unique_ptr<Store> { return std::make_unique<Zero>(c); },
    {.weights = [](const Shape& s, i64 e) { return 4 * shard(s, e) * (level(s) == 3 ? 1 : s.dp); },
     .gathered = [](const Shape& s, i64 e) { return level(s) == 3 ? 4 * shard(s, e) * s.dp : 0; },
     .gradients =
         [](const Shape& s, i64 e) {
           return level(s) == 1 ? 4 * tree_slots(s.n / s.dp) * shard(s, e) * s.dp
                                : 4 * tree_slots(s.m) * shard(s, e);
         },
     .reducing = [](const Shape& s,
                    i64 e) { return level(s) == 1 ? 0 : 4 * tree_slots(s.b) * shard(s, e) * s.dp; },
     .reduced = [](const Shape& s, i64 e) { return level(s) == 1 ? 0 : 4 * shard(s, e); },
     .updated = [](const Shape& s,
                   i64 e) { return std::clamp<i64>(e - s.dp_at * shard(s, e), 0, shard(s, e)); },
     .reduce =
         [](const Shape& s, i64 e) {
           return Maybe{{Axis::dp, Verb::reduce_scatter, shard(s, e)}};
         },
     .reduces_each_microbatch = [](const Shape& s) { return level(s) > 1; },
     .gather =
         [](const Shape& s, i64 e) {
           return Maybe{{Axis::dp, Verb::all_gather, shard(s, e)}};
         },
     .gathers_each_use = [](const Shape& s) { return level(s) == 3; }});

}  // namespace
}  // namespace lockstep
