#include "suites/planner/chunk_programs.hpp"

#include <algorithm>

#include "suites/planner/chunk_bench.hpp"

namespace lockstep {
namespace {

bool same(const Program& a, const Program& b, int more) {
  const auto alike = [&](const Operation& x, const Operation& y) {
    const int request = x.request < 0 ? x.request : x.request + more;
    return x.what == y.what && x.stream == y.stream && x.seconds == y.seconds && request == y.request;
  };
  return a.live.now == b.live.now && a.live.most == b.live.most &&
         std::equal(a.operations.begin(), a.operations.end(), b.operations.begin(), b.operations.end(),
                    alike);
}

// Whether items [a, a + n) are items [b, b + n), but for the numbers of requests.
bool same(const PassScript& s, std::size_t a, std::size_t b, std::size_t n, int more) {
  for (std::size_t i = 0; i < n; ++i) {
    const PassScript::Item &x = s.items[a + i], &y = s.items[b + i];
    if (x.what != y.what || x.index != y.index || x.adds != y.adds || !same(x.program, y.program, more))
      return false;
  }
  return true;
}

// Visits the programs of parts, hooks and shelf, with what is to be added to the hooks' requests.
template <class Visit>
void each_program(const PassScript& s, const ShelfScript& shelf, const LayerPrograms& parts,
                  const ChunkShape& shape, Pass pass, const Visit& visit) {
  const int layers = static_cast<int>(shape.classes.size());
  const auto at_shelf = [&](int position) {
    if (shelf.programs.empty()) return;
    const int again = std::clamp(position - 2, 0, shelf.times - 1);
    visit(shelf.programs[static_cast<std::size_t>(1 + position - again)],
          s.all_requests + (s.times - 1) * s.requests + again * shelf.requests);
  };
  const auto item = [&](const PassScript::Item& i, int position, int more) {
    if (i.what == PassScript::Item::hook) return visit(i.program, more);
    if (i.what == PassScript::Item::shelf) return at_shelf(position);
    const int layer = pass == Pass::forward ? position : layers - 1 - position;
    const PartPrograms& part = i.what == PassScript::Item::embedding ? parts.embedding
                               : i.what == PassScript::Item::head
                                   ? parts.head
                                   : parts.classes[static_cast<std::size_t>(shape.classes[layer])];
    const PartPass& of = pass == Pass::forward       ? part.forward
                         : pass == Pass::weight_grad ? part.weights[i.adds]
                                                     : part.backward[i.adds];
    visit(of.programs[static_cast<std::size_t>(i.index)], 0);
  };
  for (std::size_t i = 0; i < s.from; ++i) item(s.items[i], s.items[i].position, 0);
  for (int t = 0; t < s.times; ++t)
    for (std::size_t i = s.from; i < s.to; ++i) item(s.items[i], s.items[i].position + t, t * s.requests);
  for (std::size_t i = s.to; i < s.items.size(); ++i)
    item(s.items[i], s.items[i].position + s.times - 1, (s.times - 1) * s.requests);
}

}  // namespace

PassScript pass_script(const Run& run, const Costs& costs, int layers, bool first, bool last,
                       const PassShape& pass) {
  if (layers > kBlocks) {
    ChunkBench bench(run, costs, kBlocks, first, last, {}, pass.pending);
    PassScript script = bench.pass(pass);
    const auto& at = bench.blocks();
    const std::size_t items = at[3].first - at[2].first;
    const int requests = at[3].second - at[2].second;
    if (at[2].first - at[1].first == items && same(script, at[1].first, at[2].first, items, requests)) {
      script.from = at[2].first, script.to = at[3].first;
      script.times = layers - kBlocks + 1, script.requests = requests;
      return script;
    }
  }
  return ChunkBench(run, costs, layers, first, last, {}, pass.pending).pass(pass);
}

ShelfScript shelf_script(const Run& run, const Costs& costs,
                         const std::vector<const std::vector<KeptPart>*>& kept, const PassShape& pass) {
  const auto of = [&](const ChunkBench::Kept& some) {
    return ChunkBench(run, costs, static_cast<int>(some.size()), false, false, some, Pending::nothing)
        .shelf_pass(pass);
  };
  const bool alike = std::all_of(kept.begin(), kept.end(), [&](const auto* k) { return k == kept.front(); });
  if (alike && kept.size() > kBlocks && pass.pass != Pass::weight_grad) {
    ShelfScript script = of({kept.begin(), kept.begin() + kBlocks});
    const std::vector<Program>& p = script.programs;
    script.requests = p[1 + 2].requests - p[1 + 1].requests;
    if (same(p[1 + 1], p[1 + 2], script.requests)) {
      script.times = static_cast<int>(kept.size()) - kBlocks + 1;
      return script;
    }
  }
  return of(kept);
}

Program whole_program(const PassScript& script, const ShelfScript& shelf, const LayerPrograms& parts,
                      const ChunkShape& shape, Pass pass) {
  Program whole;
  each_program(script, shelf, parts, shape, pass, [&](const Program& p, int more) {
    for (Operation o : p.operations) {
      if (o.request >= 0) o.request += more, whole.requests = std::max(whole.requests, o.request + 1);
      whole.operations.push_back(o);
    }
    whole.live.then(p.live);
  });
  return whole;
}

QuickProgram quick_program(const PassScript& script, const ShelfScript& shelf, const LayerPrograms& parts,
                           const ChunkShape& shape, Pass pass) {
  QuickProgram quick;
  each_program(script, shelf, parts, shape, pass, [&](const Program& p, int more) {
    for (const Operation& o : p.operations) {
      const int request = o.request < 0 ? o.request : o.request + more;
      if (o.what == Operation::work)
        quick.transit.work(o.seconds);
      else if (o.what == Operation::start)
        quick.transit.start(o.stream, request, o.seconds);
      else
        quick.transit.wait(o.stream, request);
    }
    quick.live.then(p.live);
    quick.issue += p.issue;
  });
  return quick;
}

}  // namespace lockstep
