#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "suites/gates/gates.hpp"

namespace lockstep {
namespace {

// Compared one by one, not as a sum in which faults cancel.
// Tensor, microbatch, axis, operation, elements, their type, the reduction, the other's place on the axis.
using Key = std::tuple<std::string, int, Axis, Verb, i64, Type, Reduce, int>;
using Bag = std::map<Key, int>;

std::string text(const Key& k) {
  const auto& [what, microbatch, axis, verb, elements, type, reduce, peer] = k;
  const std::string to = verb == Verb::send ? fmt::format(" to {}", peer) : fmt::format(" from {}", peer);
  return fmt::format("{} of `{}`{} on {}{}, {} elements of {}{}", verb_name(verb), what,
                     microbatch < 0 ? "" : fmt::format(" microbatch {}", microbatch), axis_name(axis),
                     peer < 0 ? "" : to, elements, type_name(type),
                     reduce == Reduce::none  ? ""
                     : reduce == Reduce::sum ? ", sum"
                                             : ", max");
}

std::string compare(const Bag& expected, const Bag& found, const std::string& source) {
  for (const auto& [key, count] : expected) {
    const auto it = found.find(key);
    const int have = it == found.end() ? 0 : it->second;
    if (have != count) return fmt::format("{} says {} x {}, found {}", source, count, text(key), have);
  }
  for (const auto& [key, count] : found)
    if (!expected.count(key)) return fmt::format("{} knows no {}, found {}", source, text(key), count);
  return {};
}

Bag bag_of(const std::vector<Posted>& posted) {
  Bag bag;
  for (const Posted& m : posted)
    ++bag[{m.what, m.microbatch, m.axis, m.verb, m.elements, m.type, m.reduce, m.peer}];
  return bag;
}

}  // namespace

std::string never_waited_for(const Prepared& p) {
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    std::map<int, const Message*> open;
    std::map<int, const char*> copies;
    for (const Trace::Event& e : p.traces[rank].events)
      if (e.what == Trace::Event::start)
        open[e.request] = &e.message;
      else if (e.what == Trace::Event::wait)
        open.erase(e.request);
      else if (e.what == Trace::Event::copy)
        copies[e.request] = e.name;
      else if (e.what == Trace::Event::copied)
        copies.erase(e.request);
    if (!copies.empty())
      return fmt::format("rank {} never waits for its copy `{}`", rank, copies.begin()->second);
    if (open.empty()) continue;
    const Message& m = *open.begin()->second;
    return fmt::format("rank {} never waits for its {} of `{}`{} on {}", rank, verb_name(m.verb), m.what,
                       m.microbatch < 0 ? "" : fmt::format(" microbatch {}", m.microbatch),
                       axis_name(m.axis));
  }
  return {};
}

std::vector<Posted> lasting(const Prepared& p, std::vector<Posted> posted) {
  for (Posted& m : posted) {
    const auto it = p.names.find(m.what);
    m.what = it == p.names.end() ? "(a tensor the trace does not know)" : it->c_str();
  }
  return posted;
}

namespace {

std::string first_wrong(const Prepared& p, const std::vector<std::vector<Posted>>& posted) {
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    Bag formula;
    for (const Price::Line& line : price(p.run.plan, p.run.model, p.run.settings, rank).messages)
      ++formula[{line.what, line.microbatch, line.said.axis, line.said.verb, line.said.elements, line.type,
                 line.reduce, line.peer}];
    const Bag traced = bag_of(p.posted[rank]);
    std::string wrong = compare(formula, traced, "the formula");
    if (wrong.empty()) wrong = compare(traced, bag_of(posted[rank]), "the trace");
    if (!wrong.empty()) return fmt::format("rank {}: {}", rank, wrong);
  }
  return judge_work(p);
}

}  // namespace

// Where it hangs is not where it went wrong: the first message that is not as it should be says that.
std::string judge_messages(const Prepared& p, const std::vector<std::vector<Posted>>& posted) {
  const std::string wrong = first_wrong(p, posted);
  if (p.deadlock.empty()) return wrong;
  return "deadlock: " + p.deadlock + (wrong == "pass" ? "" : "; " + wrong);
}

std::string wrong_in_the_trace(const Prepared& p) {
  if (!p.deadlock.empty()) return judge_messages(p, p.posted);
  const std::string waits = never_waited_for(p);
  return waits.empty() ? races(p) : waits;
}

}  // namespace lockstep
