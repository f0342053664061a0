// ZeRO stages 2 and 3 (Rajbhandari et al. 2020, sections 5.2 and 5.3): the dp ranks of a stage and slice
// share optimizer state and gradients (zero=2), and the weights too (zero=3). Every microbatch's gradient is
// reduced, so that it is whole on a rank for a while only; the owner of a shard sums over microbatches.
//
//            weights  gradients                     moments  messages of a unit, s = E/dp elements each
//   zero=2   E        own shard; E while reducing   s        reduce_scatter a microbatch, all_gather a step
//   zero=3   s        own shard; E while reducing   s        reduce_scatter, 2 all_gather     a microbatch
//
// Samples are dealt so that a microbatch of all ranks is contiguous. Of 2^k microbatches each is a node of
// the tree over samples, and its reduce_scatter adds it up. Of any other number some microbatches are no
// nodes. Then each rank sums up the largest nodes within its own samples, ranks exchange these (all_to_all),
// and the owner adds them in the tree's order. Three microbatches on dp=2, samples 0 to 5:
//
//   rank 0 sends   0   2   4     to both owners; each computes
//   rank 1 sends   1   3   5     (0 + (1 + 2)) + (3 + (4 + 5))
//
// With `cp` a microbatch of all ranks is a block of sequences, and its segments are as many blocks of
// samples, far from each other in the tree: exact sums then are the owner's too.
//
// With `replicas=r` all this is of r groups of dp/r ranks, each with a block of the samples; after the last
// microbatch the shards are summed over groups (AcrossReplicas).
#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>

#include "parallel/accumulate.hpp"
#include "parallel/shards.hpp"

namespace lockstep {
namespace {

class Zero final : public Store {
 public:
  explicit Zero(const Context& c)
      : device_(c.device),
        params_(*c.params),
        ranks_(c.mesh.shards()),
        me_(c.mesh.shard_of(c.rank)),
        groups_(c.mesh.replicas),
        blocks_(std::max(1, c.mesh.cp / c.mesh.replicas)),
        b_(c.plan.number("micro")),
        n_(c.settings.batch),
        first_(c.mesh.replica_of(c.rank) * (n_ / c.mesh.replicas)),
        fast_(c.settings.fast),
        summed_(fast_ ||
                (blocks_ == 1 && std::has_single_bit(static_cast<std::uint64_t>(n_ / c.mesh.dp / b_)))),
        sharing_(c.mesh.sharing()),
        shards_(c),
        weights_(c, shards_,
                 c.plan.number("zero") == 3 ? ShardedWeights::Kept::shard : ShardedWeights::Kept::whole),
        replicas_(c),
        units_(params_.unit_elements.size()) {
    const int microbatches = static_cast<int>(n_ / c.mesh.dp / b_);
    for (int j = 0; j < microbatches; ++j) deal(j);
    for (const int u : params_.units) {
      std::vector<Accumulation::Node> nodes;
      for (const int j : (*c.gradient_order)[u])
        for (const Arrived& a : arrived_[j]) nodes.push_back(a.node);
      Unit& unit = units_[u];
      unit.name = "unit" + std::to_string(u) + ".gradient";
      unit.sums = std::make_unique<Accumulation>(nodes, n_, fast_);
      unit.gradients = device_.take("gradients", Kind::gradients, unit.sums->slots() * shards_.length(u));
    }
    pieces_ = own_pieces(c, shards_, weights_, [this](int l, i64 first) { return gradient(l, first); });
  }

  i64 sample(int microbatch, i64 i) const override { return first_of(me_, microbatch) + i; }
  void load(int local, const float* values) override { weights_.load(local, values); }
  bool resident() const override { return weights_.resident(); }
  void prefetch(int unit) override { weights_.prefetch(unit); }
  void acquire(int unit) override { weights_.acquire(unit); }
  void release(int unit) override { weights_.release(unit); }
  View weight(int local) override { return weights_.weight(local); }
  View kept(int local) override { return weights_.kept(local); }
  void republish() override { weights_.republish(); }

  Leaf leaf(int local, i64 sample) override {
    const int number = params_.all[local].unit;
    Unit& u = units_[number];
    if (arriving_ == number) arrive();  // the microbatch before is still being reduced from the same buffer
    if (!u.filling) {
      u.filling = device_.take("microbatch gradients", Kind::reducing, slots_ * shards_.padded(number));
      zero_pads(number);
    }
    const Accumulation::Arrival& a = leaves(sample).at(sample);
    return {filling(local, a.slot), a.add};
  }
  void done(int local, i64 sample) override {
    for (const auto& [into, from] : leaves(sample).at(sample).merges)
      device_.run(device_.ops().add, filling(local, into), filling(local, into), filling(local, from),
                  params_.all[local].count());
  }

  void ready(int number, int microbatch, bool last) override {
    arrive();
    Unit& u = units_[number];
    Message m;
    m.axis = sharing_;
    m.n = shards_.length(number);
    m.what = u.name.c_str();
    m.microbatch = microbatch;
    if (summed_) {
      m.verb = Verb::reduce_scatter;
      m.reduce = Reduce::sum;
    } else {
      m.verb = Verb::all_to_all;
      m.blocks = nodes_;
    }
    // In place: a sum lands where this rank's own part of it was.
    const View to = summed_ ? u.filling.from(shards_.mine(number)) : u.filling.view();
    coming_ = device_.start(m, u.filling, u.filling, u.filling, to);
    u.arrived = std::move(u.filling);
    arriving_ = number, arriving_microbatch_ = microbatch, arriving_last_ = last;
  }

  void finish() override {
    arrive();
    replicas_.finish();
  }

  const std::vector<Piece>& pieces() override { return pieces_; }
  View gradient(int local, i64 first) override {
    const LocalParam& p = params_.all[local];
    return units_[p.unit].gradients.from(p.first + first - shards_.mine(p.unit));
  }

 private:
  // The reduction under way arrives; its sums go to their places in the tree over samples.
  void arrive() {
    if (arriving_ < 0) return;
    device_.wait(coming_);
    Unit& u = units_[arriving_];
    const i64 n = shards_.length(arriving_);
    auto slot = [&](int s) { return u.gradients.from(s * n); };
    for (const Arrived& arrived : arrived_[arriving_microbatch_]) {
      const Accumulation::Arrival& a = u.sums->at(arrived.node.first);
      if (a.add)
        device_.run(device_.ops().add, slot(a.slot), slot(a.slot), u.arrived.from(arrived.place * n), n);
      else
        device_.run(device_.ops().copy, slot(a.slot), u.arrived.from(arrived.place * n), n);
      for (const auto& [into, from] : a.merges)
        device_.run(device_.ops().add, slot(into), slot(into), slot(from), n);
    }
    u.arrived.free();
    if (arriving_last_) replicas_.start(arriving_, u.gradients, slot(0), n);
    arriving_ = -1;
  }

  struct Unit {
    Buf gradients;  // [slots, length]: sums over microbatches
    Buf filling,
        arrived;  // for a while: [slots_, padded] of a microbatch; what its message brings, in shards
    std::unique_ptr<Accumulation> sums;
    std::string name;
  };
  struct Arrived {
    Accumulation::Node node;
    i64 place;  // in what has arrived, in shards
  };

  // Which sums a microbatch's message brings, and how this rank makes its own ones.
  void deal(int microbatch) {
    std::vector<Arrived>& arrived = arrived_.emplace_back();
    for (int rank = 0; rank < ranks_; ++rank) {
      if (fast_ && rank != me_) continue;  // one sum each, added by the message
      std::vector<Accumulation::Node> samples;
      const i64 first = first_of(rank, microbatch);
      for (i64 s = first; s < first + b_; ++s) samples.push_back({s, s + 1});
      Accumulation leaves(samples, n_, fast_);
      const i64 nodes = static_cast<i64>(leaves.sums().size());
      slots_ = std::max<i64>(slots_, leaves.slots());
      nodes_ = std::max(nodes_, nodes);
      for (i64 k = 0; k < nodes; ++k) arrived.push_back({leaves.sums()[k], k * ranks_ + rank});
      if (rank == me_) leaves_.push_back(std::move(leaves));
    }
    const i64 first = first_ + i64{microbatch} * ranks_ * b_;  // in fast mode: one number each
    if (summed_) arrived = {{{first, first + ranks_ * b_}, me_}};
  }
  // Of a rank's samples in a microbatch: those of the ranks of a block lie side by side.
  i64 first_of(int rank, int microbatch) const {
    const int beside = ranks_ / blocks_;
    return first_ + rank / beside * (n_ / groups_ / blocks_) +
           (i64{microbatch} * beside + rank % beside) * b_;
  }
  const Accumulation& leaves(i64 sample) const {
    return leaves_[static_cast<std::size_t>((sample - first_of(me_, 0)) / (ranks_ / blocks_ * b_))];
  }

  View filling(int local, int s) const {
    const LocalParam& p = params_.all[local];
    return units_[p.unit].filling.from(s * shards_.padded(p.unit) + p.first);
  }
  void zero_pads(int unit) {
    const i64 elements = params_.unit_elements[unit], pads = shards_.padded(unit) - elements;
    for (i64 k = 0; pads && k < nodes_; ++k)
      device_.run(device_.ops().zero, units_[unit].filling.from(k * shards_.padded(unit) + elements), pads);
  }

  Device& device_;
  const LocalParams& params_;
  int ranks_, me_;
  int groups_, blocks_;  // of ranks; of samples in a group, one for each segment of its sequences
  i64 b_, n_, first_;    // first_: of the group's samples
  bool fast_;
  bool summed_;                // by the message, over ranks; if not, it brings the ranks' sums of nodes
  i64 slots_ = 0, nodes_ = 0;  // of any rank's part of a microbatch: partial sums at once, and in the end
  std::vector<Accumulation> leaves_;           // by microbatch: this rank's part
  std::vector<std::vector<Arrived>> arrived_;  // by microbatch
  Axis sharing_;
  Shards shards_;
  ShardedWeights weights_;
  AcrossReplicas replicas_;
  std::vector<Unit> units_;
  std::vector<Piece> pieces_;
  Request coming_;  // the reduction under way: one at a time
  int arriving_ = -1, arriving_microbatch_ = 0;
  bool arriving_last_ = false;
};

// ---- price
bool yes(const Shape&) { return true; }
i64 blocks(const Shape& s) { return std::max(1, s.cp / s.replicas); }  // of a group's samples
bool summed(const Shape& s) {
  return s.fast || (blocks(s) == 1 && (s.m & (s.m - 1)) == 0);
}  // by the messages
i64 level(const Shape& s) { return s.plan->number("zero"); }
i64 samples(const Shape& s) { return s.n / s.replicas; }  // of a group

const Word zero = {
    "zero", "0", {"0", "2", "3"}, "ZeRO stage: shards optimizer state, gradients, weights over dp"};

const Strategy<Store> strategy(
    "zero-2-3", {zero}, [](const Plan& p) { return asks_for(p, zero); }, {},
    [](const Context& c) -> std::unique_ptr<Store> { return std::make_unique<Zero>(c); },
    {.weights = [](const Shape& s, i64 e) { return s.weight * shard(s, e) * (level(s) == 3 ? 1 : s.shards); },
     .gathered = [](const Shape& s, i64 e) { return level(s) == 3 ? s.weight * shard(s, e) * s.shards : 0; },
     .gradients =
         [](const Shape& s, i64 e) {
           const i64 run = s.shards * s.b;
           return s.gradient * shard(s, e) * s.slots(samples(s), run, summed(s) ? run : s.b, blocks(s));
         },
     .reducing =
         [](const Shape& s, i64 e) {
           return s.gradient * (s.fast ? 1 : block_slots(samples(s), s.b)) * shard(s, e) * s.shards;
         },
     .updated = own_part,
     .reduce =
         [](const Shape& s, i64 e) {
           return summed(s) ? Maybe{{s.sharing, Verb::reduce_scatter, shard(s, e)}}
                            : Maybe{{s.sharing, Verb::all_to_all, block_sums(samples(s), s.b) * shard(s, e)}};
         },
     .reduce_over_replicas = over_replicas,
     .reduces_each_microbatch = yes,
     .reduces_one_by_one = yes,
     .gather =
         [](const Shape& s, i64 e) {
           return Maybe{{s.sharing, Verb::all_gather, shard(s, e)}};
         },
     .gathers_each_use = [](const Shape& s) { return level(s) == 3; },
     .of_samples =
         [](const Shape& s) {
           Additions all;
           const i64 beside = s.shards / blocks(s), block = s.shard_at / beside;
           for (i64 j = 0; j < s.m; ++j) {
             const i64 first = block * (samples(s) / blocks(s)) + (j * beside + s.shard_at % beside) * s.b;
             all += s.fast ? plain_additions(1) : block_additions(samples(s), first, first + s.b);
           }
           return all;
         },
     .of_messages =
         [](const Shape& s) {
           const i64 run = s.shards * s.b;
           return s.fast ? plain_additions(s.m)
                         : tree_additions(samples(s), run, summed(s) ? run : s.b, s.reversed, blocks(s));
         },
     .zeroed_pads = [](const Shape& s, i64 e) -> i64 {
       return e % s.shards == 0 ? 0 : s.m * (s.fast ? 1 : block_sums(samples(s), s.b));
     },
     .first_updated = first_of_own_part});

}  // namespace
}  // namespace lockstep
