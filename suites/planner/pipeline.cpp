#include "suites/planner/pipeline.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/contract.hpp"
#include "parallel/device/noting.hpp"

namespace lockstep {

// A tensor between two stages: rendezvous, so it travels when both have come.
struct Pipeline::Handed {
  double sender = -1, receiver = -1;  // when they came
  double to = -1;                     // when it is there
};

struct Pipeline::Stage {
  int number;
  Clock clock{};
  double host = 0;  // when it has issued all kernels so far
  Live live{};
  Spent spent{};
  bool begun = false;
  std::size_t at = 0;  // action
  bool acted = false;  // and its send is next
  const Handed *coming = nullptr, *sending = nullptr;
  PassShapes shapes;
};

i64 input_bytes(const Shape& s, int chunks, int stage) {
  const i64 tokens = s.n / s.dp * s.T, ends = (stage == 0) + ((chunks - 1) % s.pp == stage);
  return 4 * tokens * ends + 8 * s.n + 8 * kSquareWords + 4 * s.T * s.hd;
}

Message handed_over(const Plan& plan, const Shape& s) {
  Message m;
  m.verb = Verb::send, m.axis = Axis::pp, m.type = s.activation == 2 ? Type::bf16 : Type::f32;
  m.n = s.b * chosen<Seam>(plan).price.outside(s) * s.D;
  return m;
}

std::unique_ptr<Schedule> make_schedule(const Run& run) {
  static thread_local NotingDevice noting;
  const Mesh mesh = run.mesh();
  return made<Schedule>({run.model, run.settings, run.plan, mesh, 0, noting.device});
}

namespace {
Message of_all(i64 n, Type type) {
  Message m;
  m.verb = Verb::all_reduce, m.axis = Axis::world, m.n = n, m.type = type;
  return m;
}
}  // namespace
Message norm_of_all() { return of_all(kSquareWords, Type::i64); }
Message losses_of_all(const Run& run) { return of_all(in_segments(run.settings, run.plan).batch, Type::f64); }

Pipeline::Pipeline(const Run& run, const Mesh& mesh, const CostModel& model, int chunks, int microbatches,
                   const std::vector<std::vector<Action>>& actions, const std::vector<int>& shapes,
                   const std::vector<int>& leaving, bool quick)
    : run_(run),
      mesh_(mesh),
      model_(model),
      chunks_(chunks),
      microbatches_(microbatches),
      actions_(actions),
      shapes_(shapes),
      quick_(quick) {
  const Shape s = lockstep::shape_of(run.plan, run.model, run.settings, 0);
  const bool each_microbatch = chosen<Store>(run.plan).price.reduces_each_microbatch(s);
  Message m = handed_over(run.plan, s);
  hand_bytes_ = m.n * type_bytes(m.type);
  if (mesh.pp > 1) {
    const double there = model.message(m);
    if (model.cluster().messages_block) {
      sending_ = {model.beginning(m), there};
      m.verb = Verb::recv;
      receiving_ = {model.beginning(m), model.message(m)};
    } else {
      hand_seconds_ = there;
    }
  }
  for (int p = 0; p < mesh.pp; ++p) {
    Stage& stage =
        stages_.emplace_back(Stage{p,
                                   {},
                                   0,
                                   {},
                                   {},
                                   false,
                                   0,
                                   false,
                                   nullptr,
                                   nullptr,
                                   PassShapes(chunks, mesh.pp, each_microbatch, mesh.replicas > 1, leaving)});
    stage.live.add(0, input_bytes(s, chunks, p));
  }
  known_.resize((1 + static_cast<std::size_t>(*std::max_element(shapes.begin(), shapes.end()))) *
                kPassShapes);
  handed_.resize(static_cast<std::size_t>(chunks) * 2 * microbatches);
  links_.resize(static_cast<std::size_t>(mesh.pp * mesh.pp));
}

Pipeline::~Pipeline() = default;

// A stage's own work for a message to the next.
void Pipeline::carry(Stage& stage, double seconds) {
  stage.clock.now += seconds;
  stage.spent.exposed[static_cast<int>(Axis::pp)] += seconds;
}

void Pipeline::offer(Stage& stage, const Action& a, bool receive) {
  const bool up = a.pass == Pass::forward;
  const int other = receive == up ? a.chunk - 1 : a.chunk + 1, into = receive ? a.chunk : other;
  Handed& h = handed_[(static_cast<std::size_t>(into) * 2 + !up) * microbatches_ + a.microbatch];
  carry(stage, (receive ? receiving_ : sending_).start);
  (receive ? h.receiver : h.sender) = stage.clock.now;
  if (receive)
    stage.coming = &h;
  else
    stage.sending = &h;
  if (h.sender < 0 || h.receiver < 0) return;
  const int from = receive ? other % mesh_.pp : stage.number, to = receive ? stage.number : other % mesh_.pp;
  double& free = links_[static_cast<std::size_t>(from * mesh_.pp + to)];
  h.to = std::max({h.sender, h.receiver, free}) + hand_seconds_;
  if (!model_.cluster().messages_block) free = h.to;
}

bool Pipeline::wait(Stage& stage, const Handed& h, const Carrying& end) {
  if (h.to < 0) return false;
  const double stall = h.to - stage.clock.now;
  if (stall > 0) {
    const double others = std::clamp(std::max(h.sender, h.receiver) - stage.clock.now, 0.0, stall);
    stage.spent.exposed[static_cast<int>(Axis::pp)] += stall - others;
    stage.spent.bubble += others;
    stage.clock.now = h.to;
  }
  carry(stage, end.wait);
  return true;
}

// Passes are few, actions are many: what has been asked for is remembered.
const PassCost& Pipeline::cost_of(Stage& stage, const Action& a) {
  const PassShape p = stage.shapes.next(a);
  const auto shape = static_cast<std::size_t>(shapes_[static_cast<std::size_t>(a.chunk)]);
  const PassCost*& known = known_[shape * kPassShapes + number_of(p)];
  if (!known) known = &cost(a.chunk, p);
  return *known;
}

// The host runs ahead of the device, but not past a hand-over between stages.
void Pipeline::issue(Stage& stage, const PassCost& pass) {
  const OtherTrainer& f = model_.cluster().trainer;
  if (mesh_.pp > 1) stage.host = std::max(stage.host, stage.clock.now);
  stage.host += pass.quick.issue;
  stage.clock.now += f.microbatch / 2, stage.spent.compute += f.microbatch / 2;
}

void Pipeline::keep_up(Stage& stage) {
  const double behind = stage.host - stage.clock.now;
  if (behind > 0) stage.clock.now += behind, stage.spent.compute += behind;
}

// As far as the stage gets without its neighbours; whether that was anywhere.
bool Pipeline::advance(int number) {
  Stage& stage = stages_[static_cast<std::size_t>(number)];
  const std::vector<Action>& actions = actions_[static_cast<std::size_t>(number)];
  const auto expect = [&](std::size_t k) {
    if (k >= actions.size() || !receives(actions[k], chunks_, mesh_.pp)) return;
    stage.live.add(0, hand_bytes_);
    offer(stage, actions[k], true);
  };
  bool moved = false;
  if (!stage.begun) expect(0), stage.begun = moved = true;
  for (; stage.at < actions.size(); stage.acted = false, ++stage.at, moved = true) {
    const Action& a = actions[stage.at];
    if (!stage.acted) {
      if (receives(a, chunks_, mesh_.pp) && !wait(stage, *stage.coming, receiving_)) return moved;
      expect(stage.at + 1);
      const PassCost& pass = cost_of(stage, a);
      issue(stage, pass);
      if (quick_)
        pass.quick.transit.apply(stage.clock);
      else
        lockstep::run(pass.program, stage.clock, stage.spent);
      keep_up(stage);
      stage.live.then(pass.quick.live);
      stage.acted = moved = true;
    }
    if (stage.sending) {
      if (!wait(stage, *stage.sending, sending_)) return moved;
      stage.sending = nullptr;
      stage.live.add(0, -hand_bytes_);
    }
    if (!sends(a, chunks_, mesh_.pp)) continue;
    offer(stage, a, false);
    if (!model_.cluster().hand_over_blocks) continue;
    stage.clock.now += hand_seconds_;
    stage.spent.exposed[static_cast<int>(Axis::pp)] += hand_seconds_;
  }
  if (stage.sending && wait(stage, *stage.sending, sending_)) {
    stage.sending = nullptr, moved = true;
    stage.live.add(0, -hand_bytes_);
  }
  return moved;
}

// A message that these stages wait for where they start it.
void Pipeline::meet(const std::vector<int>& stages, double seconds, Axis axis) {
  double latest = 0;
  for (const int p : stages) latest = std::max(latest, stages_[static_cast<std::size_t>(p)].clock.now);
  for (const int p : stages) {
    Stage& stage = stages_[static_cast<std::size_t>(p)];
    stage.spent.exposed[static_cast<int>(axis)] += seconds;
    stage.spent.bubble += latest - stage.clock.now;
    stage.clock.now = latest + seconds;
  }
}

void Pipeline::finish() {
  std::vector<int> all;
  std::vector<const UpdateProgram*> updates;
  for (Stage& stage : stages_) {
    all.push_back(stage.number);
    updates.push_back(&update(stage.number, stage.shapes.reduced_first()));
  }
  const auto each = [&](Program UpdateProgram::*part) {
    for (Stage& stage : stages_) {
      const Program& next = updates[static_cast<std::size_t>(stage.number)]->*part;
      lockstep::run(next, stage.clock, stage.spent);
      stage.live.then(next.live);
    }
  };
  const auto world = [&](const Message& m) {
    meet(all, model_.beginning(m) + model_.message(m), Axis::world);
  };
  each(&UpdateProgram::arrive);
  if (run_.model.tied && mesh_.pp > 1) meet({0, mesh_.pp - 1}, updates.front()->tied, Axis::tie);
  each(&UpdateProgram::norm);
  world(norm_of_all());
  each(&UpdateProgram::update);
  world(losses_of_all(run_));
  const double more = model_.cluster().step;
  for (Stage& stage : stages_) stage.clock.now += more, stage.spent.update += more;
}

Prediction Pipeline::run() {
  for (bool moved = true; moved;) {
    moved = false;
    for (int p = 0; p < mesh_.pp; ++p) moved |= advance(p);
  }
  check_done();
  finish();
  return said();
}

void Pipeline::check_done() const {
  std::string stuck;
  for (const Stage& stage : stages_) {
    const std::vector<Action>& actions = actions_[static_cast<std::size_t>(stage.number)];
    if (stage.at == actions.size() && !stage.sending) continue;
    const Action& a = actions[std::min(stage.at, actions.size() - 1)];
    stuck += fmt::format("{} stage {} at {} of chunk {}, microbatch {}", stuck.empty() ? "" : ",",
                         stage.number, pass_name(a.pass), a.chunk, a.microbatch);
  }
  if (!stuck.empty()) throw Hangs(fmt::format("`{}` would hang:{}", run_.plan.line(), stuck));
}

Prediction Pipeline::said() {
  Prediction out;
  for (Stage& stage : stages_) {
    out.seconds = std::max(out.seconds, stage.clock.now);
    const std::array<i64, 3>& kept = update(stage.number, stage.shapes.reduced_first()).kept;
    StagePrediction s;
    for (std::size_t m = 0; m < kept.size(); ++m) s.live[m] = kept[m] + stage.live.most[m];
    s.compute = stage.spent.compute, s.update = stage.spent.update, s.copies = stage.spent.copies;
    s.bubble = stage.spent.bubble, s.exposed = stage.spent.exposed;
    out.stages.push_back(s);
  }
  return out;
}

}  // namespace lockstep
