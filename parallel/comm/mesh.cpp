#include "parallel/mesh.hpp"

#include <algorithm>
#include <stdexcept>

namespace lockstep {

const char* axis_name(Axis axis) {
  switch (axis) {
    case Axis::world:
      return "world";
    case Axis::dp:
      return "dp";
    case Axis::tp:
      return "tp";
    case Axis::pp:
      return "pp";
    case Axis::cp:
      return "cp";
    case Axis::kv:
      return "kv";
    case Axis::tie:
      return "tie";
    case Axis::shard:
      return "shard";
    case Axis::replica:
      return "replica";
    case Axis::count:
      break;
  }
  return "?";
}

Group Mesh::group(Axis axis, int rank) const {
  const int d = dp_of(rank), t = tp_of(rank), p = pp_of(rank);
  Group g{axis, {}, 0};
  switch (axis) {
    case Axis::world:
      for (int r = 0; r < size(); ++r) g.ranks.push_back(r);
      break;
    case Axis::dp:
      for (int i = 0; i < dp; ++i) g.ranks.push_back(rank_of(i, t, p));
      break;
    case Axis::tp:
      for (int i = 0; i < tp; ++i) g.ranks.push_back(rank_of(d, i, p));
      break;
    case Axis::pp:
      for (int i = 0; i < pp; ++i) g.ranks.push_back(rank_of(d, t, i));
      break;
    case Axis::cp:
      for (int i = 0; i < cp; ++i) g.ranks.push_back(rank_of(i * (dp / cp) + d % (dp / cp), t, p));
      break;
    case Axis::kv: {
      if (kv_replicas < 1 || tp % kv_replicas != 0)
        throw std::invalid_argument("mesh: kv_replicas must divide tp");
      const int first = t / kv_replicas * kv_replicas;
      for (int i = first; i < first + kv_replicas; ++i) g.ranks.push_back(rank_of(d, i, p));
      break;
    }
    case Axis::tie:
      if (pp > 1 && (p == 0 || p == pp - 1))
        g.ranks = {rank_of(d, t, 0), rank_of(d, t, pp - 1)};
      else
        g.ranks = {rank};  // one stage holds both ends; a middle stage holds neither
      break;
    case Axis::shard:
      for (int i = 0; i < shards(); ++i) g.ranks.push_back(rank_of(replica_of(rank) * shards() + i, t, p));
      break;
    case Axis::replica:
      for (int i = 0; i < replicas; ++i) g.ranks.push_back(rank_of(i * shards() + shard_of(rank), t, p));
      break;
    case Axis::count:
      throw std::invalid_argument("mesh: Axis::count is not an axis");
  }
  g.me = static_cast<int>(std::find(g.ranks.begin(), g.ranks.end(), rank) - g.ranks.begin());
  return g;
}

}  // namespace lockstep
