// Between the start and the wait of a message or copy its input must not change, and its output not be looked
// at. The guarded run shows that by its numbers; fast mode, accelerators and jobs have none.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "kernels/extents.hpp"
#include "suites/gates/gates.hpp"

namespace lockstep {
namespace {

struct Touch {
  int block;
  i64 from, to;  // bytes
  bool writes;
};
struct Pending {
  int request;
  std::string name;
  std::vector<Touch> touches;
};

bool clash(const Touch& a, const Touch& b) {
  return a.block == b.block && (a.writes || b.writes) && a.from < b.to && b.from < a.to;
}

// What an event reads and writes.
std::vector<Touch> touches_of(const Trace::Event& e, const Mesh& mesh, int rank) {
  std::vector<Touch> all;
  const auto touch = [&](int block, i64 first, i64 elements, Type type, bool writes) {
    const i64 each = type_bytes(type);
    if (block >= 0 && elements > 0) all.push_back({block, first * each, (first + elements) * each, writes});
  };
  if (e.what == Trace::Event::run) {
    const std::vector<i64> extents = extents_of(e.name, e.numbers);
    for (std::size_t i = 0; i < e.views.size(); ++i)
      touch(e.views[i].block, e.views[i].first, extents[i], e.views[i].type, e.writes >> i & 1);
  } else if (e.what == Trace::Event::copy) {
    for (std::size_t i = 0; i < 2; ++i)  // to, from
      touch(e.views[i].block, e.views[i].first, static_cast<i64>(e.numbers[0]), e.views[i].type, i == 0);
  } else if (e.what == Trace::Event::start) {
    const Message& m = e.message;
    const Group group = mesh.group(m.axis, rank);
    touch(e.ends[0], e.firsts[0], in_elements(m, group.me, group.size()), m.type, false);
    touch(e.ends[1], e.firsts[1], out_elements(m, group.me, group.size()), m.type, true);
  }
  return all;
}

std::string race(const Trace& trace, const Mesh& mesh, int rank) {
  std::vector<Pending> open;
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::wait || e.what == Trace::Event::copied) {
      std::erase_if(open, [&](const Pending& u) { return u.request == e.request; });
      continue;
    }
    const std::vector<Touch> touches = touches_of(e, mesh, rank);
    for (const Pending& u : open)
      for (const Touch& mine : touches)
        for (const Touch& theirs : u.touches)
          if (clash(mine, theirs))
            return fmt::format("rank {}: `{}` {} what `{}`, which is under way, {}", rank,
                               e.what == Trace::Event::start ? e.message.what : e.name,
                               mine.writes ? "writes to" : "reads", u.name,
                               theirs.writes ? "brings" : "takes");
    if (e.what == Trace::Event::start || e.what == Trace::Event::copy)
      open.push_back({e.request, e.what == Trace::Event::start ? e.message.what : e.name, touches});
  }
  return {};
}

}  // namespace

std::string races(const Prepared& p) {
  for (int rank = 0; rank < p.mesh.size(); ++rank)
    if (std::string wrong = race(p.traces[rank], p.mesh, rank); !wrong.empty()) return wrong;
  return {};
}

}  // namespace lockstep
