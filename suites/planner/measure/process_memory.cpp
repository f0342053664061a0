#include "suites/planner/measure/process_memory.hpp"

#include <algorithm>
#include <map>
#include <numeric>

namespace lockstep {
namespace {

// A rank's slots on one axis: the last one given back is taken first.
struct Slots {
  std::vector<i64> largest;  // by slot
  std::vector<int> spare;
  int take(i64 bytes) {
    if (spare.empty()) spare.push_back(static_cast<int>(largest.size())), largest.push_back(0);
    const int slot = spare.back();
    spare.pop_back();
    largest[static_cast<std::size_t>(slot)] = std::max(largest[static_cast<std::size_t>(slot)], bytes);
    return slot;
  }
};

}  // namespace

i64 staging_bytes(const Trace& trace, const Mesh& mesh, int rank) {
  std::map<Axis, Slots> axes;
  std::map<int, std::pair<Axis, int>> under_way;
  // A step may leave the slots in another order than it found them. They come round in as many steps as there
  // are slots, and what a slot is at the place of the largest message in one of them, it holds.
  std::size_t slots = 1;
  for (std::size_t step = 0; step < slots; ++step) {
    for (const Trace::Event& e : trace.events) {
      if (e.what == Trace::Event::start) {
        const Group group = mesh.group(e.message.axis, rank);
        const Message& m = e.message;
        if (group.size() < 2 || m.verb == Verb::recv || (m.verb == Verb::broadcast && m.peer != group.me))
          continue;
        const i64 bytes = in_elements(m, group.me, group.size()) * type_bytes(m.type);
        under_way[e.request] = {m.axis, axes[m.axis].take(bytes)};
      } else if (e.what == Trace::Event::wait) {
        const auto it = under_way.find(e.request);
        if (it == under_way.end()) continue;
        axes[it->second.first].spare.push_back(it->second.second);
        under_way.erase(it);
      }
    }
    for (const auto& [axis, of_axis] : axes) slots = std::max(slots, of_axis.largest.size());
  }
  i64 all = 0;
  for (const auto& [axis, of_axis] : axes)
    all += std::accumulate(of_axis.largest.begin(), of_axis.largest.end(), i64{0});
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
