// A buffer that is longer than anything done in it is bytes for nothing, which no peak need show.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "kernels/extents.hpp"
#include "suites/gates/gates.hpp"

namespace lockstep {
namespace {

struct Life {
  const char* name;
  i64 bytes, touched = 0;
};

class Extent {
 public:
  Extent(const Mesh& mesh, int rank) : mesh_(mesh), rank_(rank) {}

  // The first buffer that ends with bytes nothing has touched.
  std::string judge(const Trace& trace) {
    bool in_step = false;
    for (const Trace::Event& e : trace.events) {
      if (e.what == Trace::Event::step) in_step = true;
      if (e.what == Trace::Event::take && in_step) lives_[e.block] = {e.name, e.bytes};
      touch(e);
      if (e.what != Trace::Event::give) continue;
      const auto it = lives_.find(e.block);
      if (it == lives_.end()) continue;
      const Life life = it->second;
      lives_.erase(it);
      if (life.touched != life.bytes)
        return fmt::format("buffer `{}` has {} bytes, of which the first {} are used", life.name, life.bytes,
                           life.touched);
    }
    return {};
  }

 private:
  void touch(const Trace::Event& e) {
    if (e.what == Trace::Event::run) {
      const std::vector<i64> extents = extents_of(e.name, e.numbers);
      for (std::size_t i = 0; i < e.views.size(); ++i)
        touch(e.views[i].block, e.views[i].first + extents[i], e.views[i].type);
    } else if (e.what == Trace::Event::copy) {
      for (const View& v : e.views) touch(v.block, v.first + static_cast<i64>(e.numbers[0]), v.type);
    } else if (e.what == Trace::Event::start) {
      const Group group = mesh_.group(e.message.axis, rank_);
      const i64 in = in_elements(e.message, group.me, group.size()),
                out = out_elements(e.message, group.me, group.size());
      if (in) touch(e.ends[0], e.firsts[0] + in, e.message.type);
      if (out) touch(e.ends[1], e.firsts[1] + out, e.message.type);
    }
  }
  void touch(int block, i64 elements, Type type) {
    const auto it = lives_.find(block);
    if (it != lives_.end()) it->second.touched = std::max(it->second.touched, elements * type_bytes(type));
  }

  const Mesh& mesh_;
  const int rank_;
  std::map<int, Life> lives_;  // by block, of those taken in the step
};

}  // namespace

std::string judge_extents(const Prepared& p) {
  for (int rank = 0; rank < p.mesh.size(); ++rank)
    if (const std::string wrong = Extent(p.mesh, rank).judge(p.traces[rank]); !wrong.empty())
      return fmt::format("rank {}: {}", rank, wrong);
  return "pass";
}

}  // namespace lockstep
