#include "parallel/trace/simulate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "parallel/strategy_error.hpp"

namespace lockstep {
namespace {

// One message between ranks: a collective, or a send and its receive.
struct Meeting {
  double latest = 0;  // start of the last one to come
  int came = 0;
  bool done = false;
  double from = 0, to = 0;
  int first = -1;                 // of the ranks that it is between
  std::vector<std::size_t> bars;  // of all of them
};

using Letter = std::tuple<int, int, Axis, i64, int>;  // from, to, axis, tag, how many equal ones before
using Gathering = std::tuple<Axis, int, int>;         // axis, first rank of the group, how many before

struct Player {
  std::size_t at = 0;
  double now = 0;
  int chunk = -1, microbatch = -1;
  const char* pass = "";
  std::map<int, Meeting*> open;  // by request
  std::map<int, const Message*> of_request;
  std::map<Axis, int> collectives;  // started, by axis
  std::map<std::tuple<int, int, Axis, i64>, int> letters;
  std::map<std::tuple<Axis, int, int>, double> free;  // stream of an axis; of a link for sends and receives
  std::map<int, double> copied, copies_free;          // when a copy is done, by request; by stream
  bool updating = false;
};

class Simulation {
 public:
  Simulation(const std::vector<const Trace*>& traces, const Mesh& mesh, const std::vector<int>& ranks,
             const Costs& costs)
      : traces_(traces), mesh_(mesh), ranks_(ranks), costs_(costs) {
    for (const int r : ranks_) players_[r];
  }

  Simulated run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (const int r : ranks_) moved |= advance(r);
    }
    for (const int r : ranks_) {
      if (players_[r].at < traces_[r]->events.size())
        throw StrategyError(fmt::format("simulate: the plan would hang: rank {} waits for ever", r));
      out_.seconds = std::max(out_.seconds, players_[r].now);
    }
    for (const int r : ranks_) out_.ranks[r].bubble += out_.seconds - players_[r].now;
    std::erase_if(out_.bars, [](const Simulated::Bar& bar) { return bar.rank < 0; });
    return std::move(out_);
  }

 private:
  // Who stands for a rank.
  int actor(int rank) const {
    if (players_.count(rank)) return rank;
    return mesh_.rank_of(0, 0, mesh_.pp_of(rank));
  }

  bool advance(int rank) {
    Player& p = players_[rank];
    const auto& events = traces_[rank]->events;
    const std::size_t before = p.at;
    for (; p.at < events.size(); ++p.at) {
      const Trace::Event& e = events[p.at];
      if (e.what == Trace::Event::step) {
        p.now = 0, p.copies_free.clear(), out_.ranks[rank] = {};  // what set-up did does not count
        for (Simulated::Bar& bar : out_.bars)
          if (bar.rank == rank) bar.rank = -1;
      } else if (e.what == Trace::Event::action) {
        p.chunk = e.chunk, p.microbatch = e.microbatch, p.updating = e.chunk < 0;
        p.pass = e.name;
      } else if (e.what == Trace::Event::run) {
        const double seconds = costs_.kernel(e);
        if (seconds > 0)
          out_.bars.push_back({rank, Simulated::Bar::compute, Axis::count, p.now, p.now + seconds, e.name,
                               p.chunk, p.microbatch, p.pass});
        p.now += seconds;
        (p.updating ? out_.ranks[rank].update : out_.ranks[rank].compute) += seconds;
      } else if (e.what == Trace::Event::copy) {
        copy(rank, e);
      } else if (e.what == Trace::Event::copied) {
        const double stall = std::max(0.0, p.copied.at(e.request) - p.now);
        out_.ranks[rank].copies += stall, p.now += stall;
      } else if (e.what == Trace::Event::start) {
        start(rank, e);
      } else if (e.what == Trace::Event::wait && !wait(rank, e.request)) {
        break;
      }
    }
    return p.at > before;
  }

  void copy(int rank, const Trace::Event& e) {
    Player& p = players_[rank];
    double& free = p.copies_free[costs_.copy_stream(e)];
    const double seconds = costs_.copy(e), from = costs_.copies_block ? p.now : std::max(p.now, free);
    free = p.copied[e.request] = from + seconds;
    if (costs_.copies_block) p.now = free, out_.ranks[rank].copies += seconds;
    if (seconds > 0)
      out_.bars.push_back(
          {rank, Simulated::Bar::copy, Axis::count, from, free, e.name, p.chunk, p.microbatch, p.pass});
  }

  void start(int rank, const Trace::Event& e) {
    Player& p = players_[rank];
    const Message& m = e.message;
    const Group group = mesh_.group(m.axis, rank);
    if (costs_.messages_block) carry(rank, m, costs_.beginning(m));
    const bool pair = m.verb == Verb::send || m.verb == Verb::recv;
    std::vector<int> members;  // who must come, each once
    Meeting* meeting;
    if (pair) {
      const int other = actor(group.ranks[m.peer]);
      const int from = m.verb == Verb::send ? rank : other, to = m.verb == Verb::send ? other : rank;
      const int before = p.letters[{from, to, m.axis, m.tag}]++;
      meeting = &letters_[{from, to, m.axis, m.tag, before}];
      members = {from, to};
    } else {
      for (const int r : group.ranks) members.push_back(actor(r));
      std::sort(members.begin(), members.end());
      members.erase(std::unique(members.begin(), members.end()), members.end());
      meeting = &gatherings_[{m.axis, members.front(), p.collectives[m.axis]++}];
    }
    p.open[e.request] = meeting;
    p.of_request[e.request] = &m;
    meeting->latest = std::max(meeting->latest, p.now);
    if (costs_.sends_block && m.verb == Verb::send) {
      const double seconds = costs_.message(m, group);
      p.now += seconds, out_.ranks[rank].exposed[m.axis] += seconds;
    }
    if (++meeting->came < static_cast<int>(members.size())) return;
    meeting->done = true;
    if (costs_.messages_block) return void(meeting->to = meeting->latest);
    // A link has a stream for each direction; the other axes have one.
    const Axis axis = in_one_queue(m.axis);
    const auto stream = pair ? std::tuple{axis, members[0], members[1]} : std::tuple{axis, -1, -1};
    meeting->from = meeting->latest;
    for (const int r : members) meeting->from = std::max(meeting->from, players_[r].free[stream]);
    meeting->to = meeting->from + costs_.message(m, group);
    meeting->first = members.front();
    for (const int r : members) {
      players_[r].free[stream] = meeting->to;
      if (meeting->to > meeting->from) {
        meeting->bars.push_back(out_.bars.size());
        out_.bars.push_back({r, Simulated::Bar::communication, m.axis, meeting->from, meeting->to, m.what,
                             p.chunk, m.microbatch, p.pass});
      }
    }
    if (const double late = costs_.delay(m); late > 0)
      for (const int r : members) delay(r, meeting->from, late);
  }

  // Messages of dp's that are under way, of each once.
  void delay(int rank, double now, double seconds) {
    Player& p = players_[rank];
    double& free = p.free[{Axis::dp, -1, -1}];
    if (free > now) free += seconds;
    for (const auto& [request, meeting] : p.open) {
      if (!meeting->done || meeting->first != rank || meeting->to <= now) continue;
      if (!along_dp(p.of_request.at(request)->axis)) continue;
      meeting->to += seconds;
      for (const std::size_t bar : meeting->bars) {
        if (out_.bars[bar].from > now) out_.bars[bar].from += seconds;
        out_.bars[bar].to += seconds;
      }
    }
  }

  // A rank's own work for a message.
  void carry(int rank, const Message& m, double seconds) {
    Player& p = players_[rank];
    if (seconds > 0)
      out_.bars.push_back({rank, Simulated::Bar::communication, m.axis, p.now, p.now + seconds, m.what,
                           p.chunk, p.microbatch, p.pass});
    p.now += seconds;
    out_.ranks[rank].exposed[m.axis] += seconds;
  }

  bool wait(int rank, int request) {
    Player& p = players_[rank];
    const Meeting& meeting = *p.open.at(request);
    if (!meeting.done) return false;
    const double stall = meeting.to - p.now;
    if (stall > 0) {
      const double others = std::clamp(meeting.latest - p.now, 0.0, stall);
      out_.ranks[rank].exposed[p.of_request.at(request)->axis] += stall - others;
      out_.ranks[rank].bubble += others;
      p.now = meeting.to;
    }
    if (costs_.messages_block) {
      const Message& m = *p.of_request.at(request);
      carry(rank, m, costs_.message(m, mesh_.group(m.axis, rank)));
    }
    p.open.erase(request), p.of_request.erase(request);
    return true;
  }

  const std::vector<const Trace*>& traces_;
  const Mesh& mesh_;
  const std::vector<int>& ranks_;
  const Costs& costs_;
  std::map<int, Player> players_;
  std::map<Letter, Meeting> letters_;
  std::map<Gathering, Meeting> gatherings_;
  Simulated out_;
};

}  // namespace

std::vector<int> one_of_each_stage(const Mesh& mesh) {
  std::vector<int> ranks;
  for (int p = 0; p < mesh.pp; ++p) ranks.push_back(mesh.rank_of(0, 0, p));
  return ranks;
}

Simulated simulate(const std::vector<const Trace*>& by_rank, const Mesh& mesh, const std::vector<int>& ranks,
                   const Costs& costs) {
  return Simulation(by_rank, mesh, ranks, costs).run();
}

}  // namespace lockstep
