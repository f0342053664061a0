// Data parallelism: every rank holds all weights of its stage and slice, trains on its own block of samples,
// and gradients are summed once a step, in buckets of whole units (Li et al. 2020, PyTorch Distributed,
// sections 3.2.2 and 3.2.3). A bucket's sum starts when the last gradient of its units is in, so it travels
// while earlier layers still compute backward, and is waited for when all have started: small buckets start
// sooner, large ones are fewer messages. With dp=1 it is the plain store of one replica.
#include <algorithm>

#include "parallel/accumulate.hpp"
#include "parallel/resting.hpp"

namespace lockstep {
namespace {

class Data final : public Store {
 public:
  explicit Data(const Context& c)
      : device_(c.device),
        params_(*c.params),
        dp_(c.mesh.dp),
        b_(c.plan.number("micro")),
        first_(c.mesh.dp_of(c.rank) * (c.settings.batch / c.mesh.dp)),
        weights_(c, params_.unit_weights) {
    const std::size_t all = params_.unit_elements.size();
    sums_.resize(all), place_.resize(all);
    for (const int u : params_.units) {
      std::vector<i64> arrivals;
      for (const int j : (*c.gradient_order)[u])
        for (i64 i = 0; i < b_; ++i) arrivals.push_back(sample(j, i));
      sums_[u] = std::make_unique<Accumulation>(arrivals, c.settings.batch, c.settings.fast);
    }
    fill_buckets(c.plan.number("bucket"));
    for (int l = 0; l < static_cast<int>(params_.all.size()); ++l) {
      if (params_.all[l].alias >= 0) continue;
      const bool counted = c.mesh.dp_of(c.rank) == 0 && counts_in_norm(params_, l, c.mesh, c.rank);
      pieces_.push_back({l, 0, params_.all[l].count(), kept(l), gradient(l, 0), counted});
    }
  }

  i64 sample(int microbatch, i64 i) const override { return first_ + microbatch * b_ + i; }
  void load(int local, const float* values) override {
    put(device_, kept(local), values, params_.all[local].count());
  }
  void prefetch(int unit) override { weights_.prefetch(of(unit)); }
  void acquire(int unit) override { weights_.acquire(of(unit)); }
  void release(int unit) override { weights_.release(of(unit)); }
  View weight(int local) override {
    const LocalParam& p = params_.all[local];
    return p.alias >= 0 ? weight(p.alias) : weights_.here(p.unit).from(p.first);
  }
  View kept(int local) override {
    const LocalParam& p = params_.all[local];
    return p.alias >= 0 ? kept(p.alias) : weights_.at_rest(p.unit).from(p.first);
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
    Bucket& bucket = buckets_[place_[unit].bucket];
    if (++bucket.ready < bucket.units) return;
    bucket.ready = 0;
    Message m;
    m.verb = Verb::all_reduce;
    m.axis = Axis::dp;
    m.reduce = Reduce::sum;
    m.n = bucket.elements;
    m.what = bucket.name.c_str();
    bucket.under_way = device_.start(m, bucket.gradients, bucket.gradients);
  }
  void finish() override {
    // The last to start first: a communicator that gives room back as a stack has the same for each next
    // time.
    for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket)
      if (bucket->under_way) device_.wait(bucket->under_way);
  }
  const std::vector<Piece>& pieces() override { return pieces_; }
  void republish() override {}
  View gradient(int local, i64 first) override { return slot(local, 0).from(first); }

 private:
  struct Bucket {
    int units = 0, ready = 0;
    i64 elements = 0;
    Buf gradients;  // [slots, elements]
    std::string name;
    Request under_way;
  };
  struct Place {  // of a unit
    int bucket;
    i64 first;  // elements before it there
  };

  // A tied head's unit has no weights: it uses the embedding's.
  int of(int unit) const { return params_.unit_weights[unit] ? unit : 0; }
  // Of a chunk of layers; backward reaches the highest unit first.
  void fill_buckets(int units) {
    std::vector<int> left = params_.units;
    std::sort(left.begin(), left.end());
    while (!left.empty()) {
      Bucket bucket;
      const int highest = left.back();
      int lowest = highest;
      // Below a gap lie the units of another chunk of an interleaved schedule, which is ready much later.
      const auto goes_on = [&] { return !left.empty() && left.back() + bucket.units == highest; };
      for (; bucket.units < units && goes_on(); ++bucket.units, left.pop_back()) {
        lowest = left.back();
        place_[lowest] = {static_cast<int>(buckets_.size()), bucket.elements};
        bucket.elements += params_.unit_elements[lowest];
      }
      bucket.name = bucket_name(lowest, highest);
      bucket.gradients =
          device_.take("gradients", Kind::gradients, sums_[highest]->slots() * bucket.elements);
      buckets_.push_back(std::move(bucket));
    }
  }
  View slot(int local, int s) const {
    const LocalParam& p = params_.all[local];
    const Bucket& bucket = buckets_[place_[p.unit].bucket];
    return bucket.gradients.from(s * bucket.elements + place_[p.unit].first + p.first);
  }

  Device& device_;
  const LocalParams& params_;
  int dp_;
  i64 b_, first_;
  RestingWeights weights_;
  std::vector<std::unique_ptr<Accumulation>> sums_;  // by unit, as the next
  std::vector<Place> place_;
  std::vector<Bucket> buckets_;
  std::vector<Piece> pieces_;
};

const std::vector<Rule> rules = {
    {"bucket-needs-replicas",
     [](const Plan& p, const ModelConfig&, const Settings&) -> std::optional<std::string> {
       if (p.number("bucket") == 1 || p.sharers() > 1) return {};
       return "bucket=" + p.text("bucket") + " needs dp x cp of 2 or more: one rank reduces nothing";
     }},
};

// ---- price: weights once, gradients in the slots of the exact tree over this rank's samples, and one
// all_reduce of a bucket's gradients a step.
i64 nothing(const Shape&, i64) { return 0; }
bool no(const Shape&) { return false; }

const Strategy<Store> strategy(
    "data", {{"bucket", "1", {}, "units (layers) whose gradients are summed in one message"}}, nullptr, rules,
    [](const Context& c) -> std::unique_ptr<Store> { return std::make_unique<Data>(c); },
    {.weights = [](const Shape& s, i64 e) { return s.weight * e; },
     .gathered = nothing,
     .gradients = [](const Shape& s, i64 e) { return s.gradient * s.slots(s.n / s.dp, s.b, 1) * e; },
     .reducing = nothing,
     .updated = [](const Shape&, i64 e) { return e; },
     .reduce =
         [](const Shape& s, i64 e) {
           return s.dp > 1 ? Maybe{{Axis::dp, Verb::all_reduce, e}} : std::nullopt;
         },
     .reduced_together = [](const Shape& s) -> i64 { return s.plan->number("bucket"); },
     .reduces_each_microbatch = no,
     .reduces_one_by_one = no,
     .gather = [](const Shape&, i64) { return Maybe{}; },
     .gathers_each_use = no,
     .of_samples = own_samples,
     .sharded = false});

}  // namespace
}  // namespace lockstep
