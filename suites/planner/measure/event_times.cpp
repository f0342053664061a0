#include "suites/planner/measure/event_times.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "suites/planner/cost_model.hpp"
#include "suites/timing/stopwatch.hpp"

namespace lockstep {
namespace {

// Has all its memory before the step.
class Times final : public Onlooker {
 public:
  using Clock = std::chrono::steady_clock;
  explicit Times(std::size_t events) { at_.reserve(2 * events + 2); }
  void does() override { at_.push_back(Clock::now()); }
  void did() override { at_.push_back(Clock::now()); }
  double seconds(std::size_t from, std::size_t to) const {
    return std::chrono::duration<double>(at_[to] - at_[from]).count();
  }
  std::vector<Clock::time_point> at_;
};

bool takes_time(const Trace::Event& e) {
  return e.what == Trace::Event::run || e.what == Trace::Event::start || e.what == Trace::Event::wait ||
         e.what == Trace::Event::copy || e.what == Trace::Event::copied;
}

std::string said(const Message& m) {
  return fmt::format("{} {} {}", verb_name(m.verb), axis_name(m.axis), m.blocks * m.n);
}

}  // namespace

std::vector<EventTimes> event_times(const Run& run, const Launch& how, const Cluster& cluster, int rank) {
  constexpr int kSteps = 7;
  const Prepared p = prepare(run);
  std::vector<const Trace::Event*> events;
  std::map<int, const Trace::Event*> started;
  bool stepping = false;
  for (const Trace::Event& e : p.traces[rank].events) {
    stepping |= e.what == Trace::Event::step;
    if (stepping && takes_time(e)) events.push_back(&e);
    if (e.what == Trace::Event::start || e.what == Trace::Event::copy) started[e.request] = &e;
  }
  std::vector<std::vector<double>> seconds(events.size() + 1);  // the last: between the others
  launch(p, how, [&](RankView v) {
    v.executor.initialise({});
    v.executor.step(0);
    for (int k = 1; k <= kSteps; ++k) {
      Times times(events.size());
      if (v.rank == rank) v.device.set_onlooker(&times);
      const Times::Clock::time_point from = Times::Clock::now();
      v.executor.step(k);
      if (v.rank != rank) continue;
      v.device.set_onlooker(nullptr);
      double rest = std::chrono::duration<double>(Times::Clock::now() - from).count();
      for (std::size_t i = 0; i < events.size(); ++i) {
        seconds[i].push_back(times.seconds(2 * i, 2 * i + 1));
        rest -= seconds[i].back();
      }
      seconds.back().push_back(rest);
    }
  });

  const CostModel model(cluster, p.mesh);
  std::map<std::string, EventTimes> rows;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const Trace::Event& e = *events[i];
    std::string what;
    double predicted = 0;
    if (e.what == Trace::Event::run)
      what = fmt::format("{} {}", e.name, fmt::join(e.numbers, " ")), predicted = model.kernel(e);
    else if (e.what == Trace::Event::start)
      what = "start " + said(e.message), predicted = model.beginning(e.message);
    else if (e.what == Trace::Event::wait)
      what = "wait " + said(started.at(e.request)->message),
      predicted = model.message(started.at(e.request)->message);
    else if (e.what == Trace::Event::copy)
      what = fmt::format("copy {} {:.0f}", static_cast<int>(stream_of(e)), e.numbers[0]),
      predicted = model.copy(e);
    else
      what = fmt::format("copied {:.0f}", started.at(e.request)->numbers[0]);
    EventTimes& row = rows[what];
    row.what = what, ++row.times;
    row.predicted += predicted, row.measured += median(seconds[i]);
  }
  std::vector<EventTimes> all;
  for (auto& [what, row] : rows) all.push_back(row);
  std::stable_sort(all.begin(), all.end(), [](const EventTimes& a, const EventTimes& b) {
    return std::abs(a.predicted - a.measured) > std::abs(b.predicted - b.measured);
  });
  all.push_back({"between them", 1, 0, median(seconds.back())});
  return all;
}

}  // namespace lockstep
