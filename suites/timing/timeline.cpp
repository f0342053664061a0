#include "suites/timing/timeline.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace lockstep {
namespace {

constexpr double kParts = 10000;  // of a step, in the page's numbers

std::string stream_name(const Simulated::Bar& bar) {
  switch (bar.stream) {
    case Simulated::Bar::compute:
      return "compute";
    case Simulated::Bar::copy:
      return "copies";
    case Simulated::Bar::communication:
      break;
  }
  return axis_name(bar.axis);
}

std::vector<Timeline::Stream> streams_of(const Simulated& s) {
  // By rank, then what it computes, its axes, its copies.
  std::map<std::tuple<int, int, Axis>, Timeline::Stream> streams;
  for (const Simulated::Bar& bar : s.bars) {
    Timeline::Stream& stream = streams[{bar.rank, bar.stream, bar.axis}];
    stream.rank = bar.rank, stream.name = stream_name(bar);
    stream.bars.push_back({bar.from, bar.to, bar.pass, bar.chunk, bar.microbatch});
  }
  std::vector<Timeline::Stream> result;
  for (auto& [key, stream] : streams) result.push_back(std::move(stream));
  return result;
}

// A pipeline's axis has a stream each way, so bars of one may overlap.
void join_neighbours(std::vector<Timeline::Bar>& bars, double gap) {
  std::stable_sort(bars.begin(), bars.end(), [](const auto& a, const auto& b) { return a.from < b.from; });
  std::vector<Timeline::Bar> joined;
  for (const Timeline::Bar& bar : bars) {
    if (!joined.empty()) {
      Timeline::Bar& last = joined.back();
      if (last.pass == bar.pass && last.chunk == bar.chunk && last.microbatch == bar.microbatch &&
          bar.from - last.to <= gap) {
        last.to = std::max(last.to, bar.to);
        continue;
      }
    }
    joined.push_back(bar);
  }
  bars = std::move(joined);
}

// The first letter of a pass, or its microbatch's last digit where the pass is forward.
char letter(const Timeline::Bar& bar) {
  const char digit = static_cast<char>(bar.microbatch % 10);
  if (bar.pass == "update" || bar.microbatch < 0) return 'U';
  if (bar.pass == "forward") return static_cast<char>('0' + digit);
  return static_cast<char>((bar.pass == "weight gradients" ? 'A' : 'a') + digit);
}

}  // namespace

void close_gaps(Timeline& t) {
  for (Timeline::Stream& stream : t.streams) join_neighbours(stream.bars, t.seconds / 2000);
}

Timeline timeline_of(const Simulated& s) {
  Timeline t;
  t.seconds = s.seconds, t.streams = streams_of(s);
  close_gaps(t);
  const double n = static_cast<double>(s.ranks.size());
  for (const auto& [rank, r] : s.ranks) {
    t.parts["compute"] += r.compute / n;
    t.parts["update"] += r.update / n;
    t.parts["copies"] += r.copies / n;
    t.parts["bubble"] += r.bubble / n;
    for (const auto& [axis, seconds] : r.exposed) t.parts[axis_name(axis)] += seconds / n;
  }
  return t;
}

Timeline timeline_of(const Prepared& p, const Costs& costs) {
  std::vector<const Trace*> traces;
  for (const Trace& trace : p.traces) traces.push_back(&trace);
  return timeline_of(simulate(traces, p.mesh, one_of_each_stage(p.mesh), costs));
}

Timeline cut(const Timeline& whole, double from, double to) {
  Timeline part;
  part.seconds = to - from, part.from = from, part.step = whole.seconds;
  for (const Timeline::Stream& stream : whole.streams) {
    Timeline::Stream& kept = part.streams.emplace_back(Timeline::Stream{stream.rank, stream.name, {}});
    for (Timeline::Bar bar : stream.bars) {
      bar.from = std::max(bar.from, from) - from, bar.to = std::min(bar.to, to) - from;
      if (bar.from < bar.to) kept.bars.push_back(bar);
    }
  }
  for (const auto& [name, seconds] : whole.parts) part.parts[name] = seconds * part.seconds / whole.seconds;
  return part;
}

std::string json_of(const Timeline& t) {
  nlohmann::ordered_json json{{"seconds", t.seconds}, {"passes", nlohmann::json::array()}};
  if (t.step > 0) json["from"] = t.from, json["step"] = t.step;
  std::vector<std::string> passes;
  nlohmann::json streams = nlohmann::json::array();
  for (const Timeline::Stream& stream : t.streams) {
    std::vector<i64> numbers;
    for (const Timeline::Bar& bar : stream.bars) {
      auto pass = std::find(passes.begin(), passes.end(), bar.pass);
      if (pass == passes.end()) pass = passes.insert(pass, bar.pass);
      const i64 from = std::llround(bar.from / t.seconds * kParts),
                to = std::llround(bar.to / t.seconds * kParts);
      for (const i64 number :
           {from, to - from, static_cast<i64>(pass - passes.begin()), i64{bar.chunk}, i64{bar.microbatch}})
        numbers.push_back(number);
    }
    streams.push_back({stream.rank, stream.name, numbers});
  }
  json["passes"] = passes, json["streams"] = streams;
  for (const auto& [name, seconds] : t.parts) json["parts"][name] = seconds / t.seconds;
  return json.dump();
}

std::string text_of(const Timeline& t, int width) {
  std::string out;
  for (const Timeline::Stream& stream : t.streams) {
    std::string line(static_cast<std::size_t>(width), '.');
    for (const Timeline::Bar& bar : stream.bars) {
      const int first = static_cast<int>(bar.from / t.seconds * width);
      const int last = std::max(first + 1, static_cast<int>(bar.to / t.seconds * width));
      const char mark = stream.name == "compute" ? letter(bar) : '=';
      for (int i = first; i < std::min(last, width); ++i) line[static_cast<std::size_t>(i)] = mark;
    }
    out += fmt::format("rank {:<3} {:<8} {}\n", stream.rank, stream.name, line);
  }
  return out;
}

}  // namespace lockstep
