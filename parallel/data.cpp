// Data parallelism: every rank holds all weights of its stage and slice, trains on its own block of samples,
// and gradients are summed once a step (Li et al. 2020, PyTorch Distributed, section 3.2). The sum of a unit
// starts when its last gradient is in, so it travels while earlier layers still compute backward.
// With dp=1 it is the plain store of one replica.
#include "parallel/accumulate.hpp"
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class Data final : public Store {
 public:
  explicit Data(const Context& c)
      : device_(c.device),
        params_(*c.params),
        dp_(c.mesh.dp),
        b_(c.plan.number("micro")),
        first_(c.mesh.dp_of(c.rank) * (c.settings.batch / c.mesh.dp)) {
    const std::size_t all = params_.unit_elements.size();
    weights_.resize(all), gradients_.resize(all), sums_.resize(all), names_.resize(all);
    for (const int u : params_.units) {
      std::vector<i64> arrivals;
      for (const int j : (*c.gradient_order)[u])
        for (i64 i = 0; i < b_; ++i) arrivals.push_back(sample(j, i));
      sums_[u] = std::make_unique<Accumulation>(arrivals, c.settings.batch);
      names_[u] = "unit" + std::to_string(u) + ".gradient";
      if (params_.unit_weights[u])
        weights_[u] = device_.take("weights", Kind::weights, params_.unit_weights[u]);
      gradients_[u] =
          device_.take("gradients", Kind::gradients, sums_[u]->slots() * params_.unit_elements[u]);
    }
    for (int l = 0; l < static_cast<int>(params_.all.size()); ++l) {
      if (params_.all[l].alias >= 0) continue;
      const bool counted = c.mesh.dp_of(c.rank) == 0 && counts_in_norm(params_, l, c.mesh, c.rank);
      pieces_.push_back({l, 0, params_.all[l].count(), weight(l), gradient(l, 0), counted});
    }
  }

  i64 sample(int microbatch, i64 i) const override { return first_ + microbatch * b_ + i; }
  void load(int local, const float* values) override {
    device_.upload(weight(local), values, params_.all[local].count());
  }
  void acquire(int) override {}
  void release(int) override {}
  View weight(int local) override {
    const LocalParam& p = params_.all[local];
    return p.alias >= 0 ? weight(p.alias) : weights_[p.unit].from(p.first);
  }
  Leaf leaf(int local, i64 sample) override {
    const Accumulation::Arrival& a = sums_[params_.all[local].unit]->at(sample);
    return {slot(local, a.slot), a.add};
  }
  void done(int local, i64 sample) override {
    const LocalParam& p = params_.all[local];
    for (const auto& [into, from] : sums_[p.unit]->at(sample).merges)
      device_.run(device_.ops().add, slot(local, into), slot(local, into), slot(local, from), p.count());
  }
  void ready(int unit, int, bool last) override {
    if (!last || dp_ == 1) return;
    if (under_way_) device_.wait(under_way_);
    Message m;
    m.verb = Verb::all_reduce;
    m.axis = Axis::dp;
    m.reduce = Reduce::sum;
    m.n = params_.unit_elements[unit];
    m.what = names_[unit].c_str();
    under_way_ = device_.start(m, gradients_[unit], gradients_[unit]);
  }
  void finish() override {
    if (under_way_) device_.wait(under_way_);
  }
  const std::vector<Piece>& pieces() override { return pieces_; }
  void republish() override {}
  View gradient(int local, i64 first) override { return slot(local, 0).from(first); }

 private:
  View slot(int local, int s) const {
    const LocalParam& p = params_.all[local];
    return gradients_[p.unit].from(s * params_.unit_elements[p.unit] + p.first);
  }

  Device& device_;
  const LocalParams& params_;
  int dp_;
  i64 b_, first_;
  std::vector<Buf> weights_, gradients_;  // by unit; gradients [slots, elements]
  std::vector<std::unique_ptr<Accumulation>> sums_;
  std::vector<std::string> names_;
  std::vector<Piece> pieces_;
  Request under_way_;  // one reduction at a time; the next unit's starts when it has arrived
};

// ---- price: weights once, gradients in the slots of the exact tree over this rank's samples, and one
// all_reduce of a unit's gradient a step.
i64 nothing(const Shape&, i64) { return 0; }
bool no(const Shape&) { return false; }

const Strategy<Store> strategy(
    "data", {}, nullptr, {},
    [](const Context& c) -> std::unique_ptr<Store> { return std::make_unique<Data>(c); },
    {.weights = [](const Shape&, i64 e) { return 4 * e; },
     .gathered = nothing,
     .gradients = [](const Shape& s, i64 e) { return 4 * tree_slots(s.n / s.dp, s.b, 1, s.reversed) * e; },
     .reducing = nothing,
     .reduced = nothing,
     .updated = [](const Shape&, i64 e) { return e; },
     .reduce =
         [](const Shape& s, i64 e) {
           return s.dp > 1 ? Maybe{{Axis::dp, Verb::all_reduce, e}} : std::nullopt;
         },
     .reduces_each_microbatch = no,
     .gather = [](const Shape&, i64) { return Maybe{}; },
     .gathers_each_use = no});

}  // namespace
}  // namespace lockstep
