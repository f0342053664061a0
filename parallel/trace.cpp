#include "parallel/trace.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

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
  std::map<int, std::pair<Kind, i64>> alive;
  auto add = [&](Kind kind, i64 bytes) {
    const auto k = static_cast<std::size_t>(kind);
    now[k] += bytes;
    peak.by_kind[k] = std::max(peak.by_kind[k], now[k]);
  };
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::take) {
      alive[e.block] = {e.kind, e.bytes};
      add(e.kind, e.bytes);
      if (medium_of(e.kind) == Medium::memory) total += e.bytes;
      peak.total = std::max(peak.total, total);
    } else if (e.what == Trace::Event::give) {
      const auto [kind, bytes] = alive.at(e.block);
      alive.erase(e.block);
      add(kind, -bytes);
      if (medium_of(kind) == Medium::memory) total -= bytes;
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
  i64 bytes;     // rounded up to a cache line
  int from, to;  // events in which it is alive
  i64 offset = -1;
};

i64 round_up(i64 bytes) { return (bytes + 63) / 64 * 64; }

std::vector<Span> spans_of(const Trace& trace, Medium medium, int* setup, std::vector<i64>* exact) {
  std::vector<Span> spans;
  std::map<int, std::size_t> of_block;
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
  std::vector<int> order(spans.size());
  std::iota(order.begin(), order.end(), 0);
  auto by_lifetime = [&](int a, int b) {
    return std::pair{spans[b].to - spans[b].from, spans[b].bytes} <
           std::pair{spans[a].to - spans[a].from, spans[a].bytes};
  };
  auto by_area = [&](int a, int b) {
    return spans[b].bytes * (spans[b].to - spans[b].from) < spans[a].bytes * (spans[a].to - spans[a].from);
  };
  auto by_turn = [&](int a, int b) { return spans[a].from < spans[b].from; };
  auto by_size = [&](int a, int b) {
    return std::pair{spans[b].bytes, spans[b].to - spans[b].from} <
           std::pair{spans[a].bytes, spans[a].to - spans[a].from};
  };
  // What set-up takes stays for good and lies at the bottom. The step's buffers are packed above,
  // longest-lived first; where that leaves gaps by size, by both, and in the order in which they are taken.
  // If gaps are still too many, whoever lies on top goes first next time.
  std::vector<Span> best;
  plan.bytes = -1;
  const auto dense = [&](i64 parts) {
    return plan.bytes >= 0 && plan.bytes <= plan.live + plan.live / parts;
  };
  const auto attempt = [&](const std::vector<int>& tried) {
    const i64 bytes = pack(spans, tried);
    if (plan.bytes < 0 || bytes < plan.bytes) plan.bytes = bytes, best = spans;
  };
  std::vector<std::vector<int>> orders;
  for (const std::function<bool(int, int)>& before :
       {std::function<bool(int, int)>(by_lifetime), std::function<bool(int, int)>(by_size),
        std::function<bool(int, int)>(by_area), std::function<bool(int, int)>(by_turn)}) {
    if (dense(50)) break;
    orders.push_back(order);
    std::stable_sort(orders.back().begin() + plan.setup, orders.back().end(), before);
    attempt(orders.back());
  }
  const auto end = [&](int i) { return spans[i].offset + spans[i].bytes; };
  for (std::vector<int>& tried : orders)
    for (int again = 0; again < 40 && !dense(25); ++again) {
      attempt(tried);
      const auto top = std::max_element(tried.begin() + plan.setup, tried.end(),
                                        [&](int a, int b) { return end(a) < end(b); });
      std::rotate(tried.begin() + plan.setup, top, top + 1);
    }
  for (std::size_t i = 0; i < best.size(); ++i) plan.places.push_back({best[i].offset, exact[i]});
  return plan;
}

CommNeeds comm_needs(const Trace& trace, const Mesh& mesh, int rank) {
  CommNeeds needs;
  std::map<int, Axis> open;
  std::map<Axis, int> under_way;
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::start) {
      const Message& m = e.message;
      const Group group = mesh.group(m.axis, rank);
      const i64 elements =
          std::max(in_elements(m, group.me, group.size()), out_elements(m, group.me, group.size()));
      needs.largest_bytes = std::max(needs.largest_bytes, elements * type_bytes(m.type));
      open[e.request] = m.axis;
      needs.outstanding = std::max(needs.outstanding, ++under_way[m.axis]);
    } else if (e.what == Trace::Event::wait) {
      --under_way[open.at(e.request)];
    }
  }
  return needs;
}

}  // namespace lockstep
