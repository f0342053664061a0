#include "suites/planner/outlook.hpp"

#include <algorithm>

namespace lockstep {
namespace {

bool alike(const PlanPieces& p, int stage, int other) {
  for (int c = 0; c < p.chunks; c += p.mesh.pp)
    if (p.shape(c + stage) != p.shape(c + other)) return false;
  return true;
}

}  // namespace

std::vector<StageTotal> stage_totals(PlanPieces& p) {
  const Course& course = p.course();
  const Message hand = handed_over(p.run.plan, p.numbers);
  const i64 hand_bytes = p.mesh.pp > 1 ? hand.n * type_bytes(hand.type) : 0;
  std::vector<Total> moves(course.moves.size());
  std::vector<bool> known(course.moves.size());
  std::vector<StageTotal> totals;
  double before = 0, behind = 0;  // of the stages before this one: work of first forwards, last backwards
  for (int s = 0; s < p.mesh.pp; ++s) {
    const Course::Stage& stage = course.stages[static_cast<std::size_t>(s)];
    if (s > 0 && !alike(p, s, s - 1)) known.assign(known.size(), false);
    for (const int m : stage.moves) {
      const auto at = static_cast<std::size_t>(m);
      if (known[at]) continue;
      const Move& move = course.moves[at];
      Live live;
      const Total pass = p.total(move.slot * p.mesh.pp + s, move.pass);
      if (move.expects) live.add(0, hand_bytes);
      live.then(pass.live);
      if (move.sent) live.add(0, -hand_bytes);
      moves[at] = {live, pass.work}, known[at] = true;
    }
    Live all;
    all.add(0, input_bytes(p.numbers, p.chunks, s));
    if (stage.receives) all.add(0, hand_bytes);
    const Total actions = total_of(stage.loops, moves);
    all.then(actions.live);
    if (stage.sends) all.add(0, -hand_bytes);
    const UpdateProgram& last = p.update(s, stage.reduced_first);
    for (const Program* part : {&last.arrive, &last.norm, &last.update}) all.then(part->live);
    for (std::size_t m = 0; m < all.most.size(); ++m) all.most[m] += last.kept[m];
    totals.push_back({all.most, before + actions.work + (stage.ends_backward ? behind : 0)});
    before += moves[static_cast<std::size_t>(stage.first)].work;
    if (stage.ends_backward) behind += moves[static_cast<std::size_t>(stage.last)].work;
  }
  return totals;
}

namespace {

// Lets the clock go through loops. One that has come to add the same to all that it moves adds that for the
// times that are left; one that has not, at least the least of what it adds (its maps are monotone and
// commute with a shift of all that they move). A stream that is free by now is as if it were free from now
// on.
void go(const std::vector<Loop>& loops, const std::vector<const Transit*>& moves, Clock& clock) {
  for (const Loop& loop : loops) {
    for (i64 left = loop.times, done = 1; left-- > 0; ++done) {
      const Clock before = clock;
      if (loop.move >= 0)
        moves[static_cast<std::size_t>(loop.move)]->apply(clock);
      else
        go(loop.body, moves, clock);
      for (double& free : clock.free) free = std::max(free, clock.now);
      if (done < 3 || left == 0) continue;
      const double more = clock.now - before.now;
      double least = more, most = more;
      for (std::size_t f = 0; f < clock.free.size(); ++f) {
        if (clock.free[f] == before.free[f]) continue;
        least = std::min(least, clock.free[f] - before.free[f]);
        most = std::max(most, clock.free[f] - before.free[f]);
      }
      if (most - least > 1e-9 * most && done < 16) continue;
      clock.now += static_cast<double>(left) * least;
      for (std::size_t f = 0; f < clock.free.size(); ++f)
        if (clock.free[f] != before.free[f]) clock.free[f] += static_cast<double>(left) * least;
      break;
    }
  }
}

}  // namespace

double seconds_at_least(PlanPieces& p) {
  const Course& course = p.course();
  const double hand = p.mesh.pp > 1 ? p.model.message(handed_over(p.run.plan, p.numbers)) : 0;
  std::vector<const Transit*> moves(course.moves.size());
  struct Looked {
    const UpdateProgram* update;
    Clock clock;
  };
  std::vector<Looked> looked;
  double before = 0, behind = 0, latest = 0;  // of the stages before this one: first forwards, last backwards
  for (int s = 0; s < p.mesh.pp; ++s) {
    const Course::Stage& stage = course.stages[static_cast<std::size_t>(s)];
    const auto through = [&](int move) {
      return p.cost(s, course.moves[static_cast<std::size_t>(move)].pass, false).quick.transit.through();
    };
    if (s == 0 || s == p.mesh.pp - 1 || !alike(p, s, s - 1)) {
      for (const int m : stage.moves) {
        const Move& move = course.moves[static_cast<std::size_t>(m)];
        moves[static_cast<std::size_t>(m)] =
            &p.cost(move.slot * p.mesh.pp + s, move.pass, false).quick.transit;
      }
      Looked look{&p.update(s, stage.reduced_first), {}};
      look.clock.now = before;
      go(stage.loops, moves, look.clock);
      if (stage.ends_backward) latest = std::max(latest, look.clock.now + behind);
      looked.push_back(look);
    }
    // Every stage begins with the first microbatch's forward of its first chunk, which the next ones wait
    // for.
    before += hand + through(stage.first);
    if (stage.ends_backward) behind += hand + through(stage.last);
  }
  Spent spent;
  for (Looked& look : looked) {
    run(look.update->arrive, look.clock, spent);
    run(look.update->norm, look.clock, spent);
    latest = std::max(latest, look.clock.now);
  }
  const double begun = latest + p.model.message(norm_of_all());
  for (Looked& look : looked) {
    look.clock.now = begun;
    run(look.update->update, look.clock, spent);
    latest = std::max(latest, look.clock.now);
  }
  return std::max(latest, begun) + p.model.message(losses_of_all(p.run));
}

}  // namespace lockstep
