#include "parallel/trace/trace.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <unordered_map>

namespace lockstep {

void Trace::take(int block, const char* name, Kind kind, i64 bytes) {
  Event e{Event::take};
  e.block = block;
  e.name = name;
  e.kind = kind;
  e.bytes = bytes;
  events.push_back(std::move(e));
}
void Trace::give(int block) {
  if (closed) return;
  Event e{Event::give};
  e.block = block;
  events.push_back(std::move(e));
}
void Trace::relabel(int block, Kind kind) {
  Event e{Event::relabel};
  e.block = block;
  e.kind = kind;
  events.push_back(std::move(e));
}

Peaks peaks(const Trace& trace) {
  Peaks peak;
  KindBytes now{};
  i64 total = 0;
  std::unordered_map<int, std::pair<Kind, i64>> alive;
  auto add = [&](Kind kind, i64 bytes) {
    const auto k = static_cast<std::size_t>(kind);
    now[k] += bytes;
    peak.by_kind[k] = std::max(peak.by_kind[k], now[k]);
  };
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::take) {
      alive[e.block] = {e.kind, e.bytes};
      add(e.kind, e.bytes);
      if (medium_of(e.kind) != Medium::disk) total += e.bytes;
      peak.total = std::max(peak.total, total);
    } else if (e.what == Trace::Event::give) {
      const auto [kind, bytes] = alive.at(e.block);
      alive.erase(e.block);
      add(kind, -bytes);
      if (medium_of(kind) != Medium::disk) total -= bytes;
    } else if (e.what == Trace::Event::relabel) {
      auto& [kind, bytes] = alive.at(e.block);
      add(kind, -bytes);
      kind = e.kind;
      add(kind, bytes);
    }
  }
  return peak;
}

namespace {

struct Span {
  i64 bytes;           // rounded up to a cache line
  int from, to;        // events in which it is alive
  bool waits = false;  // for a later pass
  i64 offset = -1;
};

i64 round_up(i64 bytes) { return (bytes + 63) / 64 * 64; }

std::vector<Span> spans_of(const Trace& trace, Medium medium, int* setup, std::vector<i64>* exact) {
  std::vector<Span> spans;
  std::unordered_map<int, std::size_t> of_block;
  const int end = static_cast<int>(trace.events.size());
  *setup = -1;
  for (int t = 0; t < end; ++t) {
    const Trace::Event& e = trace.events[t];
    if (e.what == Trace::Event::take && medium_of(e.kind) == medium) {
      of_block[e.block] = spans.size();
      spans.push_back({round_up(e.bytes), t, end});
      exact->push_back(e.bytes);
    } else if (e.what == Trace::Event::give && of_block.count(e.block)) {
      spans[of_block[e.block]].to = t;
    } else if (e.what == Trace::Event::relabel && e.kind == Kind::waiting && of_block.count(e.block)) {
      spans[of_block[e.block]].waits = true;
    } else if (e.what == Trace::Event::step && *setup < 0) {
      *setup = static_cast<int>(spans.size());
    }
  }
  if (*setup < 0) *setup = static_cast<int>(spans.size());
  return spans;
}

// Lowest offset at which `s` meets nobody placed and alive at the same time. `placed` is sorted by offset.
i64 place(const Span& s, const std::vector<const Span*>& placed) {
  i64 at = 0;
  for (const Span* p : placed) {
    if (p->to <= s.from || s.to <= p->from) continue;
    if (at + s.bytes <= p->offset) break;
    at = std::max(at, p->offset + p->bytes);
  }
  return at;
}

i64 pack(std::vector<Span>& spans, const std::vector<int>& order) {
  std::vector<const Span*> placed;
  i64 top = 0;
  for (const int i : order) {
    Span& s = spans[i];
    s.offset = place(s, placed);
    top = std::max(top, s.offset + s.bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), &s,
                                   [](const Span* a, const Span* b) { return a->offset < b->offset; }),
                  &s);
  }
  return top;
}

}  // namespace

ArenaPlan lay_out(const Trace& trace, Medium medium) {
  ArenaPlan plan;
  std::vector<i64> exact;
  std::vector<Span> spans = spans_of(trace, medium, &plan.setup, &exact);
  std::map<int, i64> change;  // of live bytes, by event
  for (const Span& s : spans) change[s.from] += s.bytes, change[s.to] -= s.bytes;
  i64 now = 0;
  for (const auto& [event, bytes] : change) plan.live = std::max(plan.live, now += bytes);
  auto by_lifetime = [&](int a, int b) {
    return std::pair{spans[b].to - spans[b].from, spans[b].bytes} <
           std::pair{spans[a].to - spans[a].from, spans[a].bytes};
  };
  auto by_area = [&](int a, int b) {
    return spans[b].bytes * (spans[b].to - spans[b].from) < spans[a].bytes * (spans[a].to - spans[a].from);
  };
  auto by_turn = [&](int a, int b) { return spans[a].from < spans[b].from; };
  // What waits for a later pass comes and goes as a queue: a ring below all that comes and goes as a stack.
  auto by_pass = [&](int a, int b) {
    if (spans[a].waits != spans[b].waits) return spans[a].waits;
    return spans[a].waits ? by_turn(a, b) : by_lifetime(a, b);
  };
  auto by_size = [&](int a, int b) {
    return std::pair{spans[b].bytes, spans[b].to - spans[b].from} <
           std::pair{spans[a].bytes, spans[a].to - spans[a].from};
  };
  // What set-up takes stays for good and lies at the bottom. The step's buffers are packed above,
  // longest-lived first; where that leaves gaps by size, by both, and in the order in which they are taken.
  std::vector<Span> best;
  std::vector<int> best_order;
  plan.bytes = -1;
  const auto attempt = [&](const std::vector<int>& tried) {
    const i64 bytes = pack(spans, tried);
    if (plan.bytes < 0 || bytes <= plan.bytes) plan.bytes = bytes, best = spans, best_order = tried;
  };
  const auto gaps = [&](i64 percent) {
    return plan.bytes < 0 || plan.bytes * 100 > plan.live * (100 + percent);
  };
  const auto sorted = [&](const auto& before) {
    std::vector<int> order(spans.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin() + plan.setup, order.end(), before);
    return order;
  };
  const std::function<bool(int, int)> sortings[] = {by_lifetime, by_pass, by_area, by_size, by_turn};
  for (const auto& before : sortings)
    if (gaps(2)) attempt(sorted(before));
  // If gaps are still too many, who ended above the live bytes was placed too late and goes earlier by a
  // random part of the way (the same every time), again and again: squeaky wheel optimization (Joslin and
  // Clements 1999).
  std::minstd_rand random(1);
  std::vector<double> place_in_line(spans.size());
  for (int again = 0; again < 1200 && gaps(again < 600 ? 4 : 5); ++again) {
    if (again % 200 == 0) {
      const std::vector<int> order = sorted(sortings[again / 200 % 3]);
      for (std::size_t i = 0; i < order.size(); ++i) place_in_line[order[i]] = static_cast<double>(i);
    }
    attempt(sorted([&](int a, int b) { return place_in_line[a] < place_in_line[b]; }));
    for (std::size_t i = 0; i < spans.size(); ++i)
      if (spans[i].offset + spans[i].bytes > plan.live)
        place_in_line[i] -= static_cast<double>(spans.size()) * (1 + static_cast<double>(random() % 4)) / 100;
  }
  // The last few: whoever lies on top, or anybody, goes before somebody else where that makes it no worse.
  const auto end = [&](int i) { return best[i].offset + best[i].bytes; };
  for (int again = 0; again < 5000 && gaps(5); ++again) {
    std::vector<int> tried = best_order;
    const auto first = tried.begin() + plan.setup;
    const auto one =
        again % 2 == 0
            ? std::max_element(first, tried.end(), [&](int x, int y) { return end(x) < end(y); })
            : first + static_cast<std::ptrdiff_t>(random() % static_cast<std::size_t>(tried.end() - first));
    std::rotate(first + static_cast<std::ptrdiff_t>(random() % (static_cast<std::size_t>(one - first) + 1)),
                one, one + 1);
    attempt(tried);
  }
  for (std::size_t i = 0; i < best.size(); ++i) plan.places.push_back({best[i].offset, exact[i]});
  return plan;
}

CommNeeds comm_needs(const Trace& trace, const Mesh& mesh, int rank) {
  CommNeeds needs;
  needs.by_axis.resize(static_cast<std::size_t>(Axis::count));
  std::map<int, std::pair<Axis, std::size_t>> open;  // its place in `in_flight`
  std::map<Axis, int> under_way;
  std::vector<bool> taken;
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::start) {
      const Message& m = e.message;
      const Group group = mesh.group(m.axis, rank);
      const i64 elements =
          std::max(in_elements(m, group.me, group.size()), out_elements(m, group.me, group.size()));
      const i64 bytes = elements * type_bytes(m.type);
      needs.largest_bytes = std::max(needs.largest_bytes, bytes);
      CommNeeds::OfAxis& axis = needs.by_axis[static_cast<std::size_t>(m.axis)];
      axis.largest_bytes = std::max(axis.largest_bytes, bytes);
      axis.outstanding = std::max(axis.outstanding, ++under_way[m.axis]);
      needs.outstanding = std::max(needs.outstanding, axis.outstanding);
      const auto place =
          static_cast<std::size_t>(std::find(taken.begin(), taken.end(), false) - taken.begin());
      if (place == taken.size()) taken.push_back(false), needs.in_flight.push_back(0);
      taken[place] = true;
      needs.in_flight[place] = std::max(needs.in_flight[place], bytes);
      open[e.request] = {m.axis, place};
    } else if (e.what == Trace::Event::wait) {
      // One that is not open is waited for twice: find_deadlock() says so.
      if (const auto it = open.find(e.request); it != open.end()) {
        --under_way[it->second.first], taken[it->second.second] = false;
        open.erase(it);
      }
    }
  }
  return needs;
}

}  // namespace lockstep
