#include "suites/planner/chunks/chunk_programs.hpp"

#include <algorithm>

#include "suites/planner/chunks/chunk_bench.hpp"

namespace lockstep {
namespace {

bool same(const Program& a, const Program& b, int more) {
  const auto alike = [&](const Instruction& x, const Instruction& y) {
    const int request = x.request < 0 ? x.request : x.request + more;
    return x.what == y.what && x.stream == y.stream && x.seconds == y.seconds && x.delay == y.delay &&
           request == y.request;
  };
  return a.live.now == b.live.now && a.live.most == b.live.most &&
         std::equal(a.instructions.begin(), a.instructions.end(), b.instructions.begin(),
                    b.instructions.end(), alike);
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

// A pass's programs in their order: of parts, hooks and shelf.
struct PassParts {
  const PassScript& script;
  const ShelfScript& shelf;
  const LayerPrograms& parts;
  const ChunkShape& shape;
  Pass pass;

  // Visits those of the items [from, to), a repeated layer for the t-th time, with what is to be added to the
  // hooks' requests.
  template <class Visit>
  void visit(std::size_t from, std::size_t to, int t, const Visit& visit) const {
    for (std::size_t i = from; i < to; ++i) {
      const PassScript::Item& item = script.items[i];
      const int position = item.position + t;
      if (item.what == PassScript::Item::hook)
        visit(item.program, t * script.requests);
      else if (item.what == PassScript::Item::shelf)
        at_shelf(position, visit);
      else
        visit(program(item, position), 0);
    }
  }
  template <class Visit>
  void visit_all(const Visit& each) const {
    visit(0, script.from, 0, each);
    for (int t = 0; t < script.times; ++t) visit(script.from, script.to, t, each);
    visit(script.to, script.items.size(), script.times - 1, each);
  }
  // Whether the repeated layer is the same each time, but for requests.
  bool repeats() const {
    if (!shelf.programs.empty() && shelf.times != script.times) return false;
    return std::equal(shape.classes.begin() + 1, shape.classes.end(), shape.classes.begin());
  }

 private:
  template <class Visit>
  void at_shelf(int position, const Visit& visit) const {
    if (shelf.programs.empty()) return;
    const int again = std::clamp(position - 2, 0, shelf.times - 1);
    visit(shelf.programs[static_cast<std::size_t>(1 + position - again)],
          script.all_requests + (script.times - 1) * script.requests + again * shelf.requests);
  }
  const Program& program(const PassScript::Item& i, int position) const {
    const int layers = static_cast<int>(shape.classes.size());
    const int layer = pass == Pass::forward ? position : layers - 1 - position;
    const PartPrograms& part = i.what == PassScript::Item::embedding ? parts.embedding
                               : i.what == PassScript::Item::head
                                   ? parts.head
                                   : parts.classes[static_cast<std::size_t>(shape.classes[layer])];
    const PartPass& of = pass == Pass::forward       ? part.forward
                         : pass == Pass::weight_grad ? part.weights[i.adds]
                                                     : part.backward[i.adds];
    return of.programs[static_cast<std::size_t>(i.index)];
  }
};

}  // namespace

PassScript pass_script(const Run& run, const Costs& costs, int layers, bool first, bool last,
                       const PassShape& pass) {
  const Shape shape = shape_of(run.plan, run.model, run.settings, 0);
  const bool apart = chosen<Store>(run.plan).price.reduced_together(shape) == 1;
  if (layers > kBlocks && apart) {
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

std::optional<PassScript> with_layers(const PassScript& script, int layers) {
  if (script.to == script.from || layers <= kBlocks) return {};
  PassScript other = script;
  other.times = layers - kBlocks + 1;
  return other;
}

std::optional<ShelfScript> with_layers(const ShelfScript& script, int layers) {
  if (script.requests < 0 || layers <= kBlocks) return {};
  ShelfScript other = script;
  other.times = layers - kBlocks + 1;
  return other;
}

ShelfScript shelf_script(const Run& run, const Costs& costs,
                         const std::vector<const std::vector<KeptPart>*>& kept, const PassShape& pass,
                         const std::vector<KeptPart>* leaving) {
  const auto of = [&](const ChunkBench::Kept& some) {
    return ChunkBench(run, costs, static_cast<int>(some.size()), false, false, some, Pending::nothing)
        .shelf_pass(pass, leaving);
  };
  const bool alike = std::all_of(kept.begin(), kept.end(), [&](const auto* k) { return k == kept.front(); });
  if (alike && kept.size() > kBlocks && pass.pass != Pass::weight_grad) {
    ShelfScript script = of({kept.begin(), kept.begin() + kBlocks});
    const std::vector<Program>& p = script.programs;
    const int requests = p[1 + 2].requests - p[1 + 1].requests;
    if (same(p[1 + 1], p[1 + 2], requests)) {
      script.requests = requests;
      script.times = static_cast<int>(kept.size()) - kBlocks + 1;
      return script;
    }
  }
  return of(kept);
}

Program whole_program(const PassScript& script, const ShelfScript& shelf, const LayerPrograms& parts,
                      const ChunkShape& shape, Pass pass) {
  Program whole;
  PassParts{script, shelf, parts, shape, pass}.visit_all([&](const Program& p, int more) {
    for (Instruction o : p.instructions) {
      if (o.request >= 0) o.request += more, whole.requests = std::max(whole.requests, o.request + 1);
      whole.instructions.push_back(o);
    }
    whole.live.then(p.live);
  });
  return whole;
}

void Total::then(const Live& next, double seconds) { live.then(next), work += seconds; }

Total repeated(const Total& one, i64 times) {
  return {repeated(one.live, times), static_cast<double>(times) * one.work};
}

Total total_of(const PassScript& script, const ShelfScript& shelf, const LayerPrograms& parts,
               const ChunkShape& shape, Pass pass) {
  const PassParts all{script, shelf, parts, shape, pass};
  const auto of = [&](std::size_t from, std::size_t to, int t) {
    Total total;
    all.visit(from, to, t, [&](const Program& p, int) { total.then(p.live, p.work); });
    return total;
  };
  Total total = of(0, script.from, 0);
  if (script.times > 1 && all.repeats())
    total.then(repeated(of(script.from, script.to, 0), script.times));
  else
    for (int t = 0; t < script.times; ++t) total.then(of(script.from, script.to, t));
  total.then(of(script.to, script.items.size(), script.times - 1));
  return total;
}

QuickProgram quick_program(const PassScript& script, const ShelfScript& shelf, const LayerPrograms& parts,
                           const ChunkShape& shape, Pass pass) {
  QuickProgram quick;
  PassParts{script, shelf, parts, shape, pass}.visit_all([&](const Program& p, int more) {
    for (const Instruction& o : p.instructions) {
      const int request = o.request < 0 ? o.request : o.request + more;
      if (o.what == Instruction::work)
        quick.transit.work(o.seconds, o.delay);
      else if (o.what == Instruction::start)
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
