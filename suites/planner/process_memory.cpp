#include "suites/planner/process_memory.hpp"

#include <algorithm>
#include <map>

namespace lockstep {
namespace {

// The places of one axis: the last one given back is taken first. One is given back when all have finished
// with it; a rank may by then have started its next message, in another place.
struct Slots {
  std::vector<i64> largest;  // by place
  std::vector<int> spare, finishing;
  int take(i64 bytes) {
    if (spare.empty()) spare.push_back(static_cast<int>(largest.size())), largest.push_back(0);
    const int place = spare.back();
    spare.pop_back();
    largest[static_cast<std::size_t>(place)] = std::max(largest[static_cast<std::size_t>(place)], bytes);
    spare.insert(spare.end(), finishing.begin(), finishing.end());
    finishing.clear();
    return place;
  }
};

}  // namespace

i64 staging_bytes(const Trace& trace, const Mesh& mesh, int rank) {
  std::map<Axis, Slots> axes;
  std::map<int, std::pair<Axis, int>> under_way;
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::start) {
      const Group group = mesh.group(e.message.axis, rank);
      if (group.size() < 2) continue;
      const bool gives =
          e.message.verb != Verb::recv && (e.message.verb != Verb::broadcast || e.message.peer == group.me);
      const i64 bytes =
          gives ? in_elements(e.message, group.me, group.size()) * type_bytes(e.message.type) : 0;
      under_way[e.request] = {e.message.axis, axes[e.message.axis].take(bytes)};
    } else if (e.what == Trace::Event::wait) {
      const auto it = under_way.find(e.request);
      if (it == under_way.end()) continue;
      axes[it->second.first].finishing.push_back(it->second.second);
      under_way.erase(it);
    }
  }
  i64 all = 0;
  for (const auto& [axis, places] : axes)
    all += static_cast<i64>(places.largest.size()) *
           *std::max_element(places.largest.begin(), places.largest.end());
  return all;
}

ProcessMemory process_memory(const Prepared& p, const Cluster& c) {
  ProcessMemory m;
  m.beside = c.context;
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    const double arena = static_cast<double>(p.layout(rank, Medium::device).bytes);
    m.arenas += arena + static_cast<double>(p.layout(rank, Medium::host).bytes);
    m.staging += static_cast<double>(staging_bytes(p.traces[rank], p.mesh, rank));
    m.beside += c.workspace + c.fragmentation * arena;
  }
  return m;
}

}  // namespace lockstep
