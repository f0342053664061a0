// Would this plan hang? Plays the traces of all ranks against each other with the strictest legal network:
// a send completes only once its receive is posted, a collective only once every member has started it.
#include <fmt/format.h>

#include <map>
#include <tuple>

#include "parallel/trace/trace.hpp"

namespace lockstep {
namespace {

struct Standing {
  std::size_t at = 0;
  std::map<int, std::size_t> open;  // request -> event of its start
  std::map<Axis, int> collectives;  // how many started, per axis
  std::map<int, int> number;        // request of a collective -> its place in that order
  std::map<int, int> occurrence;    // request of a send or receive -> how many equal ones before
};

using Channel = std::tuple<int, int, Axis, i64>;  // from, to, axis, tag

}  // namespace

std::string find_deadlock(const std::vector<Trace>& traces, const Mesh& mesh) {
  const int n = static_cast<int>(traces.size());
  std::vector<Standing> players(n);
  std::map<Channel, int> sent, received;  // started so far
  auto channel = [&](int rank, const Message& m) {
    const int other = mesh.group(m.axis, rank).ranks[m.peer];
    return m.verb == Verb::send ? Channel{rank, other, m.axis, m.tag} : Channel{other, rank, m.axis, m.tag};
  };
  auto finished = [&](int rank, int request) {
    Standing& p = players[rank];
    const Message& m = traces[rank].events[p.open.at(request)].message;
    if (m.verb == Verb::send) return received[channel(rank, m)] > p.occurrence.at(request);
    if (m.verb == Verb::recv) return sent[channel(rank, m)] > p.occurrence.at(request);
    for (const int peer : mesh.group(m.axis, rank).ranks)
      if (players[peer].collectives[m.axis] <= p.number.at(request)) return false;
    return true;
  };
  // Advances a rank until it blocks; true if it moved.
  auto advance = [&](int rank) {
    Standing& p = players[rank];
    const auto& events = traces[rank].events;
    const std::size_t before = p.at;
    for (; p.at < events.size(); ++p.at) {
      const Trace::Event& e = events[p.at];
      if (e.what == Trace::Event::start) {
        p.open[e.request] = p.at;
        if (e.message.verb == Verb::send || e.message.verb == Verb::recv) {
          auto& count = (e.message.verb == Verb::send ? sent : received)[channel(rank, e.message)];
          p.occurrence[e.request] = count++;
        } else {
          p.number[e.request] = p.collectives[e.message.axis]++;
        }
      } else if (e.what == Trace::Event::wait) {
        if (!p.open.count(e.request)) break;  // it is waited for already, or was never started
        if (!finished(rank, e.request)) break;
        p.open.erase(e.request);
      }
    }
    return p.at > before;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (int r = 0; r < n; ++r) moved |= advance(r);
  }
  std::string stuck;
  for (int r = 0; r < n; ++r) {
    const auto& events = traces[r].events;
    if (players[r].at == events.size()) continue;
    const auto waited = players[r].open.find(events[players[r].at].request);
    if (waited == players[r].open.end()) {
      stuck += place(mesh, r) + " waits for a message that it did not start, or a second time\n";
      continue;
    }
    const Message& m = events[waited->second].message;
    stuck += fmt::format("{} waits for {} of `{}`", place(mesh, r), verb_name(m.verb), m.what);
    if (m.microbatch >= 0) stuck += fmt::format(" microbatch {}", m.microbatch);
    if (m.verb == Verb::send || m.verb == Verb::recv)
      stuck += fmt::format(" {} rank {}", m.verb == Verb::send ? "to" : "from",
                           mesh.group(m.axis, r).ranks[m.peer]);
    stuck += fmt::format(" on {}\n", axis_name(m.axis));
  }
  return stuck;
}

}  // namespace lockstep
