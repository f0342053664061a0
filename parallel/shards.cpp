#include "parallel/shards.hpp"

#include <algorithm>

namespace lockstep {

Shards::Shards(const Context& c)
    : params_(*c.params), dp_(c.mesh.dp), me_(c.mesh.dp_of(c.rank)), lengths_(params_.unit_elements.size()) {
  for (const int u : params_.units) lengths_[u] = (params_.unit_elements[u] + dp_ - 1) / dp_;
}

Shards::Range Shards::owned(int local) const {
  const LocalParam& p = params_.all[local];
  const i64 begin = mine(p.unit) - p.first;
  return {std::max<i64>(0, begin), std::min(p.count(), begin + length(p.unit))};
}

ShardedWeights::ShardedWeights(const Context& c, const Shards& shards, Kept kept)
    : device_(c.device),
      params_(*c.params),
      shards_(shards),
      kept_(kept),
      units_(params_.unit_elements.size()) {
  for (const int u : params_.units) {
    units_[u].name = "unit" + std::to_string(u) + ".weights";
    if (params_.unit_weights[u])
      units_[u].kept =
          device_.take("weights", Kind::weights, resident() ? shards_.padded(u) : shards_.length(u));
  }
}

void ShardedWeights::load(int local, const float* values) {
  if (resident()) return device_.upload(weight(local), values, params_.all[local].count());
  const Shards::Range r = shards_.owned(local);
  if (!r.empty()) device_.upload(own(local, r.from), values + r.from, r.to - r.from);
}

void ShardedWeights::prefetch(int unit) {
  Unit& u = units_[of(unit)];
  if (resident() || u.gathered) return;
  u.gathered = device_.take("gathered", Kind::gathered, shards_.padded(of(unit)));
  u.coming = gather(of(unit), u.kept, u.kept, u.gathered);
}

void ShardedWeights::acquire(int unit) {
  if (resident()) return;
  prefetch(unit);
  Unit& u = units_[of(unit)];
  if (u.coming) device_.wait(u.coming);
  ++u.users;
}

void ShardedWeights::release(int unit) {
  if (resident()) return;
  Unit& u = units_[of(unit)];
  if (--u.users == 0) u.gathered.free();
}

View ShardedWeights::weight(int local) const {
  const LocalParam& p = params_.all[local];
  if (p.alias >= 0) return weight(p.alias);
  const Unit& u = units_[p.unit];
  return (resident() ? u.kept : u.gathered).from(p.first);
}

View ShardedWeights::own(int local, i64 first) const {
  const LocalParam& p = params_.all[local];
  return units_[p.unit].kept.from(p.first + first - (resident() ? 0 : shards_.mine(p.unit)));
}

void ShardedWeights::republish() {
  if (!resident()) return;  // whoever acquires them next gathers the new ones
  for (const int unit : params_.units) {
    const Buf& whole = units_[unit].kept;
    if (!whole) continue;
    Request r = gather(unit, whole.from(shards_.mine(unit)), whole, whole);
    device_.wait(r);
  }
}

Request ShardedWeights::gather(int unit, View mine, const Buf& in, const Buf& out) {
  Message m;
  m.verb = Verb::all_gather;
  m.axis = Axis::dp;
  m.n = shards_.length(unit);
  m.what = units_[unit].name.c_str();
  return device_.start(m, in, mine, out, out);
}

std::vector<Piece> own_pieces(const Context& c, const Shards& shards, const ShardedWeights& weights,
                              const std::function<View(int local, i64 first)>& gradient) {
  std::vector<Piece> pieces;
  for (int l = 0; l < static_cast<int>(c.params->all.size()); ++l) {
    if (c.params->all[l].alias >= 0) continue;
    const Shards::Range r = shards.owned(l);
    if (r.empty()) continue;
    pieces.push_back({l, r.from, r.to - r.from, weights.own(l, r.from), gradient(l, r.from),
                      counts_in_norm(*c.params, l, c.mesh, c.rank)});
  }
  return pieces;
}

}  // namespace lockstep
