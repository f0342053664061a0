// ZeRO stage 1 (Rajbhandari et al. 2020, section 5.1), `zero=1`: every rank holds all weights and sums its
// own block of samples, as in plain data parallelism, but each of the dp ranks keeps the optimizer's state of
// one shard of every unit, and updates that. Once a step:
//
//   rank 0  gradient [E] --.                   .--> own shard: AdamW --.                .--> weights [E]
//   rank 1  gradient [E] ---> reduce_scatter ---> own shard: AdamW ----> all_gather ---> weights [E]
//
// In sum as many bytes as one all_reduce. Sums follow each other beside backward, and are waited for when all
// have started. With `replicas=r` r groups of dp/r ranks do so, and the shards are then summed over groups
// (AcrossReplicas): for that each must have arrived.
#include <memory>

#include "parallel/accumulate.hpp"
#include "parallel/shards.hpp"

namespace lockstep {
namespace {

class ZeroOptimizer final : public Store {
 public:
  explicit ZeroOptimizer(const Context& c)
      : device_(c.device),
        params_(*c.params),
        b_(c.plan.number("micro")),
        first_(c.mesh.dp_of(c.rank) * (c.settings.batch / c.mesh.dp)),
        sharing_(c.mesh.sharing()),
        shards_(c),
        weights_(c, shards_, ShardedWeights::Kept::whole),
        replicas_(c),
        units_(params_.unit_elements.size()) {
    for (const int u : params_.units) {
      std::vector<i64> samples;
      for (const int j : (*c.gradient_order)[u])
        for (i64 i = 0; i < b_; ++i) samples.push_back(sample(j, i));
      Unit& unit = units_[u];
      unit.name = "unit" + std::to_string(u) + ".gradient";
      unit.sums = std::make_unique<Accumulation>(samples, c.settings.batch, c.settings.fast);
      unit.gradients = device_.take("gradients", Kind::gradients, unit.sums->slots() * shards_.padded(u));
    }
    pieces_ = own_pieces(c, shards_, weights_, [this](int l, i64 first) { return gradient(l, first); });
  }

  i64 sample(int microbatch, i64 i) const override { return first_ + microbatch * b_ + i; }
  void load(int local, const float* values) override { weights_.load(local, values); }
  bool resident() const override { return weights_.resident(); }
  void prefetch(int unit) override { weights_.prefetch(unit); }
  void acquire(int unit) override { weights_.acquire(unit); }
  void release(int unit) override { weights_.release(unit); }
  View weight(int local) override { return weights_.weight(local); }
  View kept(int local) override { return weights_.kept(local); }
  void republish() override { weights_.republish(); }

  Leaf leaf(int local, i64 sample) override {
    const Accumulation::Arrival& a = units_[params_.all[local].unit].sums->at(sample);
    return {slot(local, a.slot), a.add};
  }
  void done(int local, i64 sample) override {
    const LocalParam& p = params_.all[local];
    for (const auto& [into, from] : units_[p.unit].sums->at(sample).merges)
      device_.run(device_.ops().add, slot(local, into), slot(local, into), slot(local, from), p.count());
  }

  // The sum over ranks lands where the rank's own part of it was.
  void ready(int number, int, bool last) override {
    if (!last) return;
    Unit& u = units_[number];
    const bool passes_on = replicas_.any() && summing_ >= 0;
    if (passes_on) arrive(summing_);
    const i64 elements = params_.unit_elements[number], pads = shards_.padded(number) - elements;
    if (pads) device_.run(device_.ops().zero, u.gradients.from(elements), pads);
    if (passes_on) pass_on(summing_);
    Message m;
    m.verb = Verb::reduce_scatter;
    m.axis = sharing_;
    m.reduce = Reduce::sum;
    m.n = shards_.length(number);
    m.what = u.name.c_str();
    u.sum = device_.start(m, u.gradients, u.gradients, u.gradients, u.gradients.from(shards_.mine(number)));
    summing_ = number;
  }
  void finish() override {
    // The last to start first: a communicator that gives room back as a stack has the same for each next
    // time.
    for (const int unit : params_.units) arrive(unit);
    if (replicas_.any()) pass_on(summing_), replicas_.finish();
    summing_ = -1;
  }

  const std::vector<Piece>& pieces() override { return pieces_; }
  View gradient(int local, i64 first) override { return slot(local, 0).from(first); }

 private:
  struct Unit {
    Buf gradients;  // [slots, padded]
    std::unique_ptr<Accumulation> sums;
    std::string name;
    Request sum;  // over ranks, under way
  };
  void arrive(int unit) {
    if (Request& sum = units_[unit].sum) device_.wait(sum);
  }
  // What has arrived, to the other groups.
  void pass_on(int unit) {
    const Buf& gradients = units_[unit].gradients;
    replicas_.start(unit, gradients, gradients.from(shards_.mine(unit)), shards_.length(unit));
  }
  View slot(int local, int s) const {
    const LocalParam& p = params_.all[local];
    return units_[p.unit].gradients.from(s * shards_.padded(p.unit) + p.first);
  }

  Device& device_;
  const LocalParams& params_;
  i64 b_, first_;
  Axis sharing_;
  Shards shards_;
  ShardedWeights weights_;
  AcrossReplicas replicas_;
  std::vector<Unit> units_;
  std::vector<Piece> pieces_;
  int summing_ = -1;  // the unit whose sum started last in this step
};

// ---- price
i64 nothing(const Shape&, i64) { return 0; }
bool no(const Shape&) { return false; }

const Strategy<Store> strategy(
    "zero-1", {{"zero", "0", {"0", "1"}, "ZeRO stage: shards optimizer state, gradients, weights over dp"}},
    [](const Plan& p) { return p.number("zero") == 1; }, {},
    [](const Context& c) -> std::unique_ptr<Store> { return std::make_unique<ZeroOptimizer>(c); },
    {.weights = [](const Shape& s, i64 e) { return s.weight * shard(s, e) * s.shards; },
     .gathered = nothing,
     .gradients = [](const Shape& s,
                     i64 e) { return s.gradient * s.slots(s.n / s.dp, s.b, 1) * shard(s, e) * s.shards; },
     .reducing = nothing,
     .updated = own_part,
     .reduce =
         [](const Shape& s, i64 e) {
           return Maybe{{s.sharing, Verb::reduce_scatter, shard(s, e)}};
         },
     .reduce_over_replicas = over_replicas,
     .reduces_each_microbatch = no,
     .reduces_one_by_one = [](const Shape& s) { return s.replicas > 1; },
     .gather =
         [](const Shape& s, i64 e) {
           return Maybe{{s.sharing, Verb::all_gather, shard(s, e)}};
         },
     .gathers_each_use = no,
     .of_samples = own_samples,
     .zeroed_pads = [](const Shape& s, i64 e) -> i64 { return e % s.shards != 0; },
     .first_updated = first_of_own_part});

}  // namespace
}  // namespace lockstep
