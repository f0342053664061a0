// A stage's update, as parallel/executor.cpp has it.
#include <algorithm>

#include "suites/planner/chunks/chunk_bench.hpp"

namespace lockstep {
UpdateProgram ChunkBench::update(bool first_microbatch, int pp, OptimizerSteps& known) {
  UpdateProgram u;
  const std::vector<Piece>& pieces = store_->pieces();
  home_->prepare(pieces, params_);
  u.kept = taken();
  for (const i64 n : params_.unit_weights) u.weights += n;
  j_ = first_microbatch ? 0 : 1;
  for (auto unit = params_.units.rbegin(); unit != params_.units.rend(); ++unit) {
    store_->leaf(locals_[*unit], store_->sample(j_, 0));
    store_->ready(*unit, j_, true);
  }
  skip();
  writer_.updating = true;
  hook([&] { store_->finish(); });
  join_tied(pieces, pp, u);
  u.arrive = writer_.take();
  hook([&] {
    for (const Piece& p : pieces)
      if (p.counted) device_.run(device_.ops().add_squares, View{}, p.gradient, p.n);
  });
  u.norm = writer_.take();
  step(pieces, known);
  hook([&] { store_->republish(); });
  u.update = writer_.take();
  u.update.instructions.insert(u.update.instructions.begin(), optimizer_.begin(), optimizer_.end());
  return u;
}

void ChunkBench::join_tied(const std::vector<Piece>& pieces, int pp, UpdateProgram& u) {
  const int last = static_cast<int>(params_.table.size()) - 1;
  if (params_.table[last].tied_to < 0) return;
  const int embedding = params_.local(0), head = params_.local(last);
  for (const Piece& p : pieces) {
    if (p.local != embedding && p.local != head) continue;
    if (pp == 1) {
      hook([&] {
        device_.run(device_.ops().add, p.gradient, p.gradient, store_->gradient(head, p.first), p.n);
      });
    } else {
      Message m;
      m.verb = Verb::all_reduce, m.axis = Axis::tie, m.type = p.gradient.type, m.n = p.n;
      u.tied += costs_.beginning(m) + costs_.message(m, {});
    }
  }
}

// The optimizer. One that works through blocks on their way between memories is traced on shorter pieces:
// what remains of each beyond whole beginnings, and one beginning more. From there on the same blocks follow
// each other; what a beginning adds, a piece of three and one of six show (their blocks may take turns by
// three). Neither depends on the mesh but by the pieces' sizes.
void ChunkBench::step(const std::vector<Piece>& pieces, OptimizerSteps& known) {
  constexpr i64 kBeginning = 1 << 18, kWhole = 1 << 22;
  const auto& home = chosen<Home>(run_.plan);
  i64 all = 0;
  for (const Piece& p : pieces) all += p.n;
  if (!home.wants || all <= kWhole) return hook([&] { home_->step(pieces, params_, 0, 1.0); });
  std::string words = home.name;
  for (const Word& word : home.words) words += " " + run_.plan.text(word.name);
  const auto of = [&](const std::vector<Piece>& some) -> const Instruction& {
    OptimizerSteps::Pieces sizes;
    for (const Piece& p : some) sizes.emplace_back(p.n, p.weight.type, p.gradient.type);
    const auto [it, fresh] = known.seconds.try_emplace({words, sizes});
    if (!fresh) return it->second;
    const std::unique_ptr<Home> alone = home.make(context_);
    alone->prepare(some, params_);
    skip();
    hook([&] { alone->step(some, params_, 0, 1.0); });
    Clock clock;
    lockstep::run(writer_.take(), clock, it->second.spent);
    it->second.seconds = clock.now;
    return it->second;
  };
  std::vector<Piece> shorter = pieces;
  Piece one = pieces.front();
  double more = 0;
  for (Piece& p : shorter) {
    const i64 left_out = std::max<i64>(0, p.n / kBeginning - 1);
    p.n -= left_out * kBeginning, more += static_cast<double>(left_out);
  }
  one.n = 3 * kBeginning;
  const Instruction three = of({one});
  one.n = 6 * kBeginning;
  const Instruction six = of({one});
  Instruction o = of(shorter);
  o.seconds += more * (six.seconds - three.seconds) / 3;
  o.spent.update += more * (six.spent.update - three.spent.update) / 3;
  o.spent.copies = o.seconds - o.spent.update;
  optimizer_.push_back(o);
}

namespace {

// A program that begins with idle streams, as one piece of work.
Instruction at_once(const Program& p) {
  Instruction o;
  Clock clock;
  run(p, clock, o.spent);
  o.seconds = clock.now;
  return o;
}

// What n layers take, of two examples with a and a + 1.
Instruction beyond(const Instruction& a, const Instruction& b, double more) {
  const auto line = [&](double x, double y) { return y + more * (y - x); };
  Instruction o;
  o.seconds = line(a.seconds, b.seconds);
  o.spent.compute = line(a.spent.compute, b.spent.compute);
  o.spent.update = line(a.spent.update, b.spent.update);
  o.spent.copies = line(a.spent.copies, b.spent.copies);
  for (std::size_t x = 0; x < o.spent.exposed.size(); ++x)
    o.spent.exposed[x] = line(a.spent.exposed[x], b.spent.exposed[x]);
  return o;
}

}  // namespace

UpdateProgram update_program(const Run& run, const Costs& costs, int layers, bool first, bool last,
                             bool first_microbatch, OptimizerSteps& known, const std::vector<int>& apart) {
  ChunkBench bench(run, costs, layers, first, last, {}, Pending::nothing, apart);
  return bench.update(first_microbatch, run.plan.number("pp"), known);
}

// The optimizer takes one unit after the other: each further layer adds the same. So do messages that ranks
// carry where they wait for them; those that go on beside have one end.
UpdateProgram update_program(const UpdateProgram& a, const UpdateProgram& b, i64 more) {
  UpdateProgram u = b;
  const auto further = [&](Program UpdateProgram::*part) {
    (u.*part).instructions = {beyond(at_once(a.*part), at_once(b.*part), static_cast<double>(more))};
  };
  if (at_once(b.arrive).seconds > at_once(a.arrive).seconds) further(&UpdateProgram::arrive);
  further(&UpdateProgram::norm), further(&UpdateProgram::update);
  for (std::size_t m = 0; m < u.kept.size(); ++m) u.kept[m] += more * (b.kept[m] - a.kept[m]);
  u.weights += more * (b.weights - a.weights);
  return u;
}

}  // namespace lockstep
