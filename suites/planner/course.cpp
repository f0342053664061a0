#include "suites/planner/course.hpp"

#include <algorithm>

#include "parallel/contract.hpp"

namespace lockstep {

std::size_t number_of(const PassShape& p) {
  const auto pass = static_cast<std::size_t>(p.pass), leaving = static_cast<std::size_t>(p.leaving);
  std::size_t pending = 0;
  if (p.pending != Pending::nothing)
    pending = 1 + (static_cast<std::size_t>(p.pending) - 1) * 4 + p.pending_first * 2 + p.pending_last;
  return (((pass * 2 + p.first) * 2 + p.last) * (1 + kClasses) + leaving) * (1 + 3 * 2 * 2) + pending;
}

PassShapes::PassShapes(int chunks, int stages, bool each_microbatch, bool over_replicas,
                       std::vector<int> leaving)
    : stages_(stages),
      each_microbatch_(each_microbatch),
      over_replicas_(over_replicas),
      leaving_(std::move(leaving)),
      backwards_(static_cast<std::size_t>(chunks / stages)) {}

PassShape PassShapes::next(const Action& a) {
  PassShape p;
  p.pass = a.pass;
  p.leaving = left_;
  left_ = a.pass == Pass::forward && !leaving_.empty() ? leaving_[static_cast<std::size_t>(a.chunk)] : 0;
  if (a.pass != Pass::backward && a.pass != Pass::weight_grad) return p;
  int& before = backwards_[static_cast<std::size_t>(a.chunk / stages_)];
  p.first = before++ == 0, p.last = a.last;
  const bool pending = each_microbatch_ ? reduced_ >= 0 : over_replicas_ && a.last && finished_;
  if (pending && each_microbatch_) {
    p.pending = reduced_ == a.chunk ? Pending::own : reduced_ == 0 ? Pending::embedding : Pending::layer;
    p.pending_first = reduced_first_, p.pending_last = over_replicas_ && reduced_last_;
  } else if (pending) {
    p.pending = Pending::layer, p.pending_last = true;
  }
  reduced_ = a.chunk, reduced_first_ = p.first, reduced_last_ = a.last;
  finished_ |= a.last;
  return p;
}

bool receives(const Action& a, int chunks, int stages) {
  return stages > 1 &&
         (a.pass == Pass::forward ? a.chunk > 0 : a.pass != Pass::weight_grad && a.chunk < chunks - 1);
}
bool sends(const Action& a, int chunks, int stages) {
  return stages > 1 &&
         (a.pass == Pass::forward ? a.chunk < chunks - 1 : a.pass != Pass::weight_grad && a.chunk > 0);
}

namespace {

Loop as_loop(int move) { return {move, 1, {}}; }
Loop as_loop(const Loop& loop) { return loop; }

// Stretches of up to `longest` items that follow each other again and again become a loop, from the left, the
// one that covers most.
template <class Item>
std::vector<Loop> fold(const std::vector<Item>& in, std::size_t longest) {
  std::vector<Loop> out;
  for (std::size_t at = 0; at < in.size();) {
    std::size_t best = 1, covers = 0;
    for (std::size_t n = 1; n <= longest && at + 2 * n <= in.size(); ++n) {
      std::size_t same = at + n;
      while (same < in.size() && in[same] == in[same - n]) ++same;
      const std::size_t again = (same - at) / n * n - n;
      if (again > covers) best = n, covers = again;
    }
    if (covers == 0) {
      out.push_back(as_loop(in[at++]));
      continue;
    }
    Loop loop;
    loop.times = static_cast<i64>(covers / best) + 1;
    for (std::size_t i = at; i < at + best; ++i) loop.body.push_back(as_loop(in[i]));
    out.push_back(std::move(loop));
    at += best + covers;
  }
  return out;
}

Course whole(const Plan& plan, const Schedule& schedule, int stages, int microbatches, bool each_microbatch,
             const std::vector<int>& leaving) {
  const int slots = schedule.chunks_per_stage(), chunks = slots * stages;
  Course c;
  std::vector<int> numbers(static_cast<std::size_t>(slots) * kPassShapes * 4, -1);
  const auto number = [&](const Move& m) {
    const std::size_t key = static_cast<std::size_t>(m.slot) * kPassShapes + number_of(m.pass);
    int& n = numbers[key * 4 + m.expects * 2 + m.sent];
    if (n < 0) n = static_cast<int>(c.moves.size()), c.moves.push_back(m);
    return n;
  };
  for (int s = 0; s < stages; ++s) {
    const std::vector<Action> actions = actions_of(plan, schedule, s, stages, microbatches);
    PassShapes shapes(chunks, stages, each_microbatch, plan.number("replicas") > 1, leaving);
    std::vector<int> list;
    for (std::size_t k = 0; k < actions.size(); ++k) {
      const Action& a = actions[k];
      Move move{a.chunk / stages, shapes.next(a), false, k > 0 && sends(actions[k - 1], chunks, stages)};
      move.expects = k + 1 < actions.size() && receives(actions[k + 1], chunks, stages);
      list.push_back(number(move));
    }
    Course::Stage& stage = c.stages.emplace_back();
    stage.loops = fold(fold(list, 4), 2 * static_cast<std::size_t>(slots) + 2);
    stage.first = list.front(), stage.last = list.back();
    std::sort(list.begin(), list.end());
    stage.moves.assign(list.begin(), std::unique(list.begin(), list.end()));
    stage.receives = receives(actions.front(), chunks, stages);
    stage.sends = sends(actions.back(), chunks, stages);
    stage.reduced_first = shapes.reduced_first();
    stage.ends_backward = actions.back().pass != Pass::weight_grad && actions.back().chunk == s;
  }
  return c;
}

// z with as much more of each loop as z has more than y, `more` times; false: y does not have as much more
// than x, or they are no loops of the same things.
bool extend(const std::vector<Loop>& x, const std::vector<Loop>& y, std::vector<Loop>& z, i64 more) {
  if (x.size() != z.size() || y.size() != z.size()) return false;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const i64 grows = z[i].times - y[i].times;
    if (x[i].move != z[i].move || y[i].move != z[i].move || y[i].times - x[i].times != grows) return false;
    z[i].times += more * grows;
    if (!extend(x[i].body, y[i].body, z[i].body, more)) return false;
  }
  return true;
}

}  // namespace

Course course(const Plan& plan, const Schedule& schedule, int stages, int microbatches, bool each_microbatch,
              const std::vector<int>& leaving) {
  const auto of = [&](int n) { return whole(plan, schedule, stages, n, each_microbatch, leaving); };
  // Schedules go through microbatches in groups of as many as there are stages at most.
  const int group = schedule.chunks_per_stage() > 1 ? stages : 1;
  const int some = (2 * stages / group + 2) * group + microbatches % group;
  if (microbatches <= some + 3 * group) return of(microbatches);
  const Course x = of(some), y = of(some + group);
  Course z = of(some + 2 * group);
  const i64 more = (microbatches - some) / group - 2;
  bool alike = x.moves == z.moves && y.moves == z.moves;
  for (std::size_t s = 0; s < z.stages.size() && alike; ++s)
    alike = extend(x.stages[s].loops, y.stages[s].loops, z.stages[s].loops, more);
  return alike ? z : of(microbatches);
}

Total total_of(const std::vector<Loop>& loops, const std::vector<Total>& of_moves) {
  Total all;
  for (const Loop& loop : loops)
    all.then(repeated(
        loop.move >= 0 ? of_moves[static_cast<std::size_t>(loop.move)] : total_of(loop.body, of_moves),
        loop.times));
  return all;
}

}  // namespace lockstep
