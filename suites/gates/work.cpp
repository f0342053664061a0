// What numbers, messages and peaks do not show: a kernel run once too often or on too much, a copy made
// twice, a message waited for before the work that should have hidden it.
#include "kernels/work.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "suites/gates/gates.hpp"

namespace lockstep {
namespace {

// What is under way, and whether a kernel has run since it started.
struct UnderWay {
  std::string name;
  bool hidden = false;
};

void note(const Trace::Event& run, StepWork::Runs& runs) {
  const Work work = work_of(run.name, run.numbers, 1);
  ++runs.times;
  runs.work += static_cast<i64>(work.kind == Work::rows ? work.bytes : work.flops);
}

StepWork work_of(const Trace& trace) {
  StepWork work;
  bool in_step = false;
  std::map<int, UnderWay> messages, copies;
  const auto arrived = [&](std::map<int, UnderWay>& open, int request) {
    const auto it = open.find(request);
    if (it == open.end()) return;
    if (in_step && it->second.hidden) work.hide(it->second.name, 1);
    open.erase(it);
  };
  for (const Trace::Event& e : trace.events) switch (e.what) {
      case Trace::Event::step:
        in_step = true;
        break;
      case Trace::Event::run:
        note(e, (in_step ? work.kernels : work.setup)[e.name]);
        for (auto* open : {&messages, &copies})
          for (auto& [request, one] : *open) one.hidden = true;
        break;
      case Trace::Event::start:
        messages[e.request].name = e.message.what;
        break;
      case Trace::Event::copy:
        copies[e.request].name = e.name;
        work.copy(e.name, 1, static_cast<i64>(e.numbers[0]) * type_bytes(e.views[0].type), 0);
        break;
      case Trace::Event::wait:
        arrived(messages, e.request);
        break;
      case Trace::Event::copied:
        arrived(copies, e.request);
        break;
      default:
        break;
    }
  return work;
}

std::string text(i64 times) { return fmt::format("{} x", times); }
std::string text(const StepWork::Runs& r) { return fmt::format("{} x (work {})", r.times, r.work); }
std::string text(const StepWork::Copies& c) { return fmt::format("{} x, {} bytes,", c.times, c.bytes); }

// The first name of which the trace has another number than the formula.
template <class Value>
std::string compare(const char* format, const std::map<std::string, Value>& formula,
                    const std::map<std::string, Value>& traced) {
  std::map<std::string, std::pair<Value, Value>> both;
  for (const auto& [name, value] : formula) both[name].first = value;
  for (const auto& [name, value] : traced) both[name].second = value;
  for (const auto& [name, values] : both)
    if (values.first != values.second)
      return fmt::format(fmt::runtime(format), name, text(values.first), text(values.second));
  return {};
}

}  // namespace

std::string judge_work(const Prepared& p) {
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    const StepWork formula = step_work(p.run.plan, p.run.model, p.run.settings, rank);
    const StepWork traced = work_of(p.traces[rank]);
    for (const std::string& wrong :
         {compare("kernel {}: the formula says {}, the trace {}", formula.kernels, traced.kernels),
          compare("kernel {} in set-up: the formula says {}, the trace {}", formula.setup, traced.setup),
          compare("copy `{}`: the formula says {} the trace {}", formula.copies, traced.copies),
          compare("`{}` under way beside kernels: the formula says {}, the trace {}", formula.hidden,
                  traced.hidden)})
      if (!wrong.empty()) return fmt::format("rank {}: work: {}", rank, wrong);
  }
  return "pass";
}

std::string judge_work(const Prepared& p, const std::vector<Ran>& by_rank) {
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    i64 kernels = 0, copies = 0;
    for (const Trace::Event& e : p.traces[rank].events) {
      if (e.what == Trace::Event::step) kernels = copies = 0;
      kernels += e.what == Trace::Event::run, copies += e.what == Trace::Event::copy;
    }
    if (by_rank[rank].kernels != kernels || by_rank[rank].copies != copies)
      return fmt::format("rank {}: work: {} kernels and {} copies in the trace's step, {} and {} ran", rank,
                         kernels, copies, by_rank[rank].kernels, by_rank[rank].copies);
    const Ran& ran = by_rank[rank];
    if (const i64 bytes = host_bytes(p.run.plan, p.run.model, p.run.settings, rank); ran.host_bytes != bytes)
      return fmt::format("rank {}: work: the program brings and takes {} bytes in a step, and {} is stated",
                         rank, ran.host_bytes, bytes);
    if (ran.fingerprint != p.fingerprints[rank])
      return fmt::format(
          "rank {}: work: the step that ran does the same number of things as its trace, in another "
          "order or of other sizes",
          rank);
  }
  return "pass";
}

}  // namespace lockstep
