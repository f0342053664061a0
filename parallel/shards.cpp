#include "parallel/shards.hpp"

#include <algorithm>

namespace lockstep {

Shards::Shards(const Context& c)
    : params_(*c.params),
      ranks_(c.mesh.shards()),
      me_(c.mesh.shard_of(c.rank)),
      lengths_(params_.unit_elements.size()) {
  for (const int u : params_.units) lengths_[u] = (params_.unit_elements[u] + ranks_ - 1) / ranks_;
}

Shards::Range Shards::owned(int local) const {
  const LocalParam& p = params_.all[local];
  const i64 begin = mine(p.unit) - p.first;
  return {std::max<i64>(0, begin), std::min(p.count(), begin + length(p.unit))};
}

namespace {
std::vector<i64> lengths(const LocalParams& params, const Shards& shards, bool whole) {
  std::vector<i64> by_unit(params.unit_elements.size());
  for (const int u : params.units)
    if (params.unit_weights[u]) by_unit[u] = whole ? shards.padded(u) : shards.length(u);
  return by_unit;
}
}  // namespace

ShardedWeights::ShardedWeights(const Context& c, const Shards& shards, Kept kept)
    : device_(c.device),
      params_(*c.params),
      shards_(shards),
      sharing_(c.mesh.sharing()),
      kept_(kept),
      rest_(c, lengths(params_, shards, kept == Kept::whole)),
      units_(params_.unit_elements.size()) {
  for (const int u : params_.units) units_[u].name = "unit" + std::to_string(u) + ".weights";
}

void ShardedWeights::load(int local, const float* values) {
  if (resident()) return put(device_, kept(local), values, params_.all[local].count());
  const Shards::Range r = shards_.owned(local);
  if (!r.empty()) put(device_, own(local, r.from), values + r.from, r.to - r.from);
}

// A shard that rests below the device is fetched first, and can be gathered only then: at acquire.
void ShardedWeights::prefetch(int number) {
  const int unit = of(number);
  Unit& u = units_[unit];
  if (u.gathered) return;
  if (resident() || rest_.below()) return rest_.prefetch(unit);
  u.gathered = device_.take("gathered", Kind::gathered, shards_.padded(unit));
  u.coming = gather(unit, rest_.here(unit), rest_.here(unit), u.gathered);
}

void ShardedWeights::acquire(int number) {
  const int unit = of(number);
  if (resident()) return rest_.acquire(unit);
  prefetch(unit);
  Unit& u = units_[unit];
  if (!u.gathered) {
    rest_.acquire(unit);
    u.gathered = device_.take("gathered", Kind::gathered, shards_.padded(unit));
    u.coming = gather(unit, rest_.here(unit), rest_.here(unit), u.gathered);
    device_.wait(u.coming);
    rest_.release(unit);
  }
  if (u.coming) device_.wait(u.coming);
  ++u.users;
}

void ShardedWeights::release(int number) {
  const int unit = of(number);
  if (resident()) return rest_.release(unit);
  Unit& u = units_[unit];
  if (--u.users == 0) u.gathered.free();
}

View ShardedWeights::weight(int local) const {
  const LocalParam& p = params_.all[local];
  if (p.alias >= 0) return weight(p.alias);
  return (resident() ? rest_.here(p.unit) : units_[p.unit].gathered).from(p.first);
}

View ShardedWeights::kept(int local) const {
  const LocalParam& p = params_.all[local];
  return p.alias >= 0 ? kept(p.alias) : rest_.at_rest(p.unit).from(p.first);
}

View ShardedWeights::own(int local, i64 first) const {
  const LocalParam& p = params_.all[local];
  return rest_.at_rest(p.unit).from(p.first + first - (resident() ? 0 : shards_.mine(p.unit)));
}

void ShardedWeights::republish() {
  if (!resident()) return;  // whoever acquires them next gathers the new ones
  for (const int unit : params_.units)
    if (params_.unit_weights[unit]) republish(unit);
}

// Each rank's shard of a unit to all; by way of the device where they rest below it.
void ShardedWeights::republish(int unit) {
  const i64 mine = shards_.mine(unit), n = shards_.length(unit), all = shards_.padded(unit);
  const Buf& rest = rest_.at_rest(unit);
  const Buf whole = rest_.below() ? device_.take("gathered", Kind::gathered, all) : rest;
  if (rest_.below()) {
    Request up = device_.start_copy(whole, whole.from(mine), rest, rest.from(mine), n, "weights to device");
    device_.wait_copy(up);
  }
  Request r = gather(unit, whole.from(mine), whole, whole);
  device_.wait(r);
  if (rest_.below()) {
    Request down = device_.start_copy(rest, rest, whole, whole, all, "weights to rest");
    device_.wait_copy(down);
  }
}

Request ShardedWeights::gather(int unit, View mine, const Buf& in, const Buf& out) {
  Message m;
  m.verb = Verb::all_gather;
  m.axis = sharing_;
  m.n = shards_.length(unit);
  m.what = units_[unit].name.c_str();
  return device_.start(m, in, mine, out, out);
}

AcrossReplicas::AcrossReplicas(const Context& c)
    : device_(c.device), alone_(c.mesh.replicas == 1), names_(c.params->unit_elements.size()) {
  for (const int u : c.params->units) names_[u] = replicas_name(u);
}

void AcrossReplicas::start(int unit, const Buf& gradients, View shard, i64 n) {
  if (alone_) return;
  finish();
  Message m;
  m.verb = Verb::all_reduce;
  m.axis = Axis::replica;
  m.reduce = Reduce::sum;
  m.n = n;
  m.what = names_[unit].c_str();
  under_way_ = device_.start(m, gradients, shard, gradients, shard);
}

void AcrossReplicas::finish() {
  if (under_way_) device_.wait(under_way_);
}

Maybe over_replicas(const Shape& s, i64 e) {
  return s.replicas > 1 ? Maybe{{Axis::replica, Verb::all_reduce, shard(s, e)}} : std::nullopt;
}

std::vector<Piece> own_pieces(const Context& c, const Shards& shards, const ShardedWeights& weights,
                              const std::function<View(int local, i64 first)>& gradient) {
  std::vector<Piece> pieces;
  for (int l = 0; l < static_cast<int>(c.params->all.size()); ++l) {
    if (c.params->all[l].alias >= 0) continue;
    const Shards::Range r = shards.owned(l);
    if (r.empty()) continue;
    pieces.push_back({l, r.from, r.to - r.from, weights.own(l, r.from), gradient(l, r.from),
                      c.mesh.replica_of(c.rank) == 0 && counts_in_norm(*c.params, l, c.mesh, c.rank)});
  }
  return pieces;
}

}  // namespace lockstep
