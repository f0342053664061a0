#include "suites/mutants/equivalent.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <vector>

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

// What an event reads or writes. Of a copy its extent is known; a kernel or message has all of a buffer.
struct Extent {
  int block;
  const std::byte *from, *to;  // null: all
  bool written;
  bool meets(const Extent& other) const {
    if (block != other.block || !(written || other.written)) return false;
    return !from || !other.from || (from < other.to && other.from < to);
  }
};

std::vector<Extent> extents(const Event& e) {
  std::vector<Extent> all;
  if (e.what == Event::start)
    for (const int block : e.ends) all.push_back({block, nullptr, nullptr, true});
  if (e.what == Event::run)
    for (const View& v : e.views) all.push_back({v.block, nullptr, nullptr, true});
  if (e.what == Event::copy)
    for (const View& v : e.views) {
      const auto* from = static_cast<const std::byte*>(v.at);
      const i64 bytes = static_cast<i64>(e.numbers[0]) * type_bytes(v.type);
      all.push_back({v.block, from, from + bytes, &v == e.views.data()});
    }
  std::erase_if(all, [](const Extent& x) { return x.block < 0; });
  return all;
}

// Does anything else touch what this message or copy moves while it is under way?
bool touched_while_under_way(const Trace& trace, Event::What starts, const std::string& name) {
  std::map<int, std::vector<Extent>> open;  // by request
  const Event::What ends = starts == Event::start ? Event::wait : Event::copied;
  for (const Event& e : trace.events) {
    for (const Extent& x : extents(e))
      for (const auto& [request, held] : open)
        if (std::any_of(held.begin(), held.end(), [&](const Extent& h) { return h.meets(x); })) return true;
    if (e.what == starts && name == (starts == Event::start ? e.message.what : e.name))
      open[e.request] = extents(e);
    if (e.what == ends) open.erase(e.request);
  }
  return false;
}

bool never_touched_while_under_way(const Mutant& m, const Prepared& p) {
  const Event::What starts = m.mutation.door == Mutation::Door::start ? Event::start : Event::copy;
  return std::none_of(p.traces.begin(), p.traces.end(),
                      [&](const Trace& t) { return touched_while_under_way(t, starts, m.mutation.name); });
}

}  // namespace

std::string equivalence(const Mutant& m, const Prepared& sound, const Prepared& mutated) {
  const Mutation& x = m.mutation;
  if (x.change == Change::longer && same_peaks(sound, mutated))
    return "beside the peak: every kind, all together and every arena's live bytes peak as before, and "
           "nothing "
           "reads what is more";
  if (x.change == Change::waited_late && never_touched_while_under_way(m, mutated))
    return "nothing touches either end while it is under way: a later wait hides more and changes nothing";
  const bool pads = x.name == "zero" && (x.tensor == "gradients" || x.tensor == "microbatch gradients");
  if (pads && x.change != Change::dropped && x.change != Change::doubled)
    return "pads of shards: they are added up with everything else, and pieces end before them";
  if (x.name == "add_squares" && x.change == Change::late) return "an exact sum has no order";
  const bool zeros = x.setup && (x.tensor == "first moment block" || x.name.ends_with("moment yet"));
  if (zeros && (x.change == Change::number || x.change == Change::place))
    return "zeros are taken from another place of a block of zeros, or from its part that is used alone";
  return {};
}

}  // namespace lockstep
