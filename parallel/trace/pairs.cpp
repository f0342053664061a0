#include "parallel/trace/pairs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "parallel/comm/contract.hpp"

namespace lockstep {
namespace {

constexpr int kAxes = static_cast<int>(Axis::count);

// All starts of a rank: f(message, its group).
template <class F>
void each_start(const Trace& trace, const Mesh& mesh, int rank, const F& f) {
  std::vector<Group> groups;
  for (int a = 0; a < kAxes; ++a) groups.push_back(mesh.group(static_cast<Axis>(a), rank));
  for (const Trace::Event& e : trace.events)
    if (e.what == Trace::Event::start) f(e.message, groups[static_cast<std::size_t>(e.message.axis)]);
}

CommNeeds::Pair pair_of(const Message& m, const Group& group) {
  const int me = group.ranks[group.me], other = group.ranks[m.peer];
  return m.verb == Verb::send ? CommNeeds::Pair{m.axis, me, other} : CommNeeds::Pair{m.axis, other, me};
}

}  // namespace

CommNeeds channel_needs(CommNeeds needs, const std::vector<Trace>& traces, const Mesh& mesh) {
  needs.on_axis.assign(kAxes, {});
  std::set<CommNeeds::Pair> pairs;
  for (int rank = 0; rank < mesh.size(); ++rank)
    each_start(traces[rank], mesh, rank, [&](const Message& m, const Group& group) {
      if (is_transfer(m)) {
        pairs.insert(pair_of(m, group));
        return;
      }
      auto& axis = needs.on_axis[static_cast<std::size_t>(m.axis)];
      const i64 elements =
          std::max(in_elements(m, group.me, group.size()), out_elements(m, group.me, group.size()));
      axis.largest_bytes = std::max(axis.largest_bytes, elements * type_bytes(m.type));
      axis.in_blocks |= m.blocks > 1;
    });
  needs.pairs.assign(pairs.begin(), pairs.end());
  return needs;
}

void check_order(const std::vector<Trace>& traces, const Mesh& mesh) {
  struct Ends {
    std::vector<const Message*> sent, received;
  };
  std::map<CommNeeds::Pair, Ends> transfers;
  std::vector<std::vector<std::vector<const Message*>>> collectives(
      traces.size(), std::vector<std::vector<const Message*>>(kAxes));
  for (int rank = 0; rank < mesh.size(); ++rank)
    each_start(traces[rank], mesh, rank, [&](const Message& m, const Group& group) {
      if (!is_transfer(m)) return collectives[rank][static_cast<std::size_t>(m.axis)].push_back(&m);
      Ends& ends = transfers[pair_of(m, group)];
      (m.verb == Verb::send ? ends.sent : ends.received).push_back(&m);
    });
  for (const auto& [pair, ends] : transfers) {
    const Group group = mesh.group(pair.axis, pair.from);
    const int to = ends.sent.empty() ? 0 : ends.sent[0]->peer;
    if (ends.sent.size() != ends.received.size())
      throw CommError(fmt::format("on {} rank {} sends {} messages to rank {}, which receives {}",
                                  axis_name(pair.axis), pair.from, ends.sent.size(), pair.to,
                                  ends.received.size()));
    for (std::size_t k = 0; k < ends.sent.size(); ++k) {
      check_agreement(*ends.sent[k], group.me, *ends.received[k], to, group, mesh);
      if (ends.sent[k]->tag != ends.received[k]->tag)
        throw CommError(fmt::format("rank {} sends and rank {} receives in different orders: {}", pair.from,
                                    pair.to, describe(*ends.sent[k], group)));
    }
  }
  for (int rank = 0; rank < mesh.size(); ++rank)
    for (int a = 0; a < kAxes; ++a) {
      const Group group = mesh.group(static_cast<Axis>(a), rank);
      if (group.me == 0) continue;
      const auto &mine = collectives[rank][a], &first = collectives[group.ranks[0]][a];
      for (std::size_t k = 0; k < std::min(mine.size(), first.size()); ++k)
        check_agreement(*first[k], 0, *mine[k], group.me, group, mesh);
      if (mine.size() != first.size())
        throw CommError(fmt::format("on {} rank {} starts {} collectives, but rank {} starts {}",
                                    axis_name(group.axis), rank, mine.size(), group.ranks[0], first.size()));
    }
}

}  // namespace lockstep
