#include "suites/mutants/equivalent.hpp"

#include <algorithm>
#include <map>

namespace lockstep {
namespace {

using Event = Trace::Event;
using Change = Mutation::Change;

bool same_peaks(const Prepared& a, const Prepared& b) {
  for (int rank = 0; rank < a.mesh.size(); ++rank) {
    const Peaks x = peaks(a.traces[rank]), y = peaks(b.traces[rank]);
    if (x.by_kind != y.by_kind || x.total != y.total) return false;
    for (int m = 0; m < 3; ++m)
      if (a.layouts[rank][m].live != b.layouts[rank][m].live) return false;
  }
  return true;
}

// Does a kernel, message or copy touch a buffer of this message or copy while it is under way?
bool touched_while_under_way(const Trace& trace, Event::What starts, const std::string& name) {
  std::map<int, std::vector<int>> open;  // blocks by request
  const Event::What ends = starts == Event::start ? Event::wait : Event::copied;
  const auto blocks = [](const Event& e) {
    std::vector<int> found;
    for (const View& v : e.views) found.push_back(v.block);
    if (e.what == Event::start) found.assign(e.ends.begin(), e.ends.end());
    std::erase(found, -1);
    return found;
  };
  for (const Event& e : trace.events) {
    if (e.what == Event::run || e.what == Event::start || e.what == Event::copy)
      for (const int block : blocks(e))
        for (const auto& [request, held] : open)
          if (std::count(held.begin(), held.end(), block)) return true;
    if (e.what == starts && name == (starts == Event::start ? e.message.what : e.name)) open[e.request] = blocks(e);
    if (e.what == ends) open.erase(e.request);
  }
  return false;
}

bool never_touched_while_under_way(const Mutant& m, const Prepared& p) {
  const Event::What starts = m.mutation.door == Mutation::Door::start ? Event::start : Event::copy;
  return std::none_of(p.traces.begin(), p.traces.end(), [&](const Trace& t) {
    return touched_while_under_way(t, starts, m.mutation.name);
  });
}

}  // namespace

std::string equivalence(const Mutant& m, const Prepared& sound, const Prepared& mutated) {
  const Mutation& x = m.mutation;
  if ((x.change == Change::longer || x.change == Change::never) && same_peaks(sound, mutated))
    return "beside the peak: every kind, all together and every arena's live bytes peak as before, and nothing "
           "reads what is more";
  if (x.change == Change::waited_late && never_touched_while_under_way(m, mutated))
    return "nothing touches either end while it is under way: a later wait hides more and changes nothing";
  const bool pads = x.name == "zero" && (x.tensor == "gradients" || x.tensor == "microbatch gradients");
  if (pads && x.change != Change::dropped && x.change != Change::doubled)
    return "pads of shards: they are added up with everything else, and pieces end before them";
  if (x.name == "add_squares" && x.change == Change::late)
    return "an exact sum has no order";
  const bool zeros = x.setup && (x.tensor == "first moment block" || x.name.ends_with("moment yet"));
  if (zeros && (x.change == Change::number || x.change == Change::place))
    return "zeros are taken from another place of a block of zeros, or from its part that is used alone";
  return {};
}

}  // namespace lockstep
