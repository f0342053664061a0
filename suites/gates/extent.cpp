// A buffer that is longer than anything done in it is bytes for nothing, which no peak need show.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "kernels/extents.hpp"
#include "suites/gates/gates.hpp"

namespace lockstep {
namespace {

struct Life {
  const char* name;
  i64 bytes;
  Kind kind;
  i64 touched = 0;
};
// Of buffers of one name and size together: one may be as long as another microbatch or rank needs it.
struct Use {
  int rank;
  Kind kind;
  i64 touched = 0;
};
using Uses = std::map<std::pair<std::string, i64>, Use>;

class Extent {
 public:
  Extent(const Mesh& mesh, int rank, Uses& uses) : mesh_(mesh), rank_(rank), uses_(uses) {}

  void see(const Trace& trace) {
    bool in_step = false;
    for (const Trace::Event& e : trace.events) {
      if (e.what == Trace::Event::step) in_step = true;
      if (e.what == Trace::Event::take && in_step) lives_[e.block] = {e.name, e.bytes, e.kind};
      touch(e);
      if (e.what != Trace::Event::give) continue;
      const auto it = lives_.find(e.block);
      if (it == lives_.end()) continue;
      Use& use =
          uses_.try_emplace({it->second.name, it->second.bytes}, Use{rank_, it->second.kind}).first->second;
      use.touched = std::max(use.touched, it->second.touched);
      lives_.erase(it);
    }
  }
  // A buffer that the step took and did not give back: the next step would begin with it.
  const Life* left() const { return lives_.empty() ? nullptr : &lives_.begin()->second; }

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
  Uses& uses_;
  std::unordered_map<int, Life> lives_;  // by block, of those taken in the step
};

}  // namespace

std::string judge_extents(const Prepared& p) {
  Uses uses;
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    Extent extent(p.mesh, rank, uses);
    extent.see(p.traces[rank]);
    if (const Life* left = extent.left())
      return fmt::format("rank {}: buffer `{}` of {} bytes outlives the step", rank, left->name, left->bytes);
  }
  // A partial sum on its way to shards ends with a pad that only the one that is sent has to fill.
  const i64 pad = (p.mesh.shards() - 1) * type_bytes(Type::f32);
  for (const auto& [buffer, use] : uses)
    if (use.touched + (use.kind == Kind::reducing ? pad : 0) < buffer.second)
      return fmt::format("rank {}: buffer `{}` has {} bytes, of which the first {} are used", use.rank,
                         buffer.first, buffer.second, use.touched);
  return "pass";
}

}  // namespace lockstep
