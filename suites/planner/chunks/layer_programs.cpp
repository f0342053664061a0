#include "suites/planner/chunks/layer_programs.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "parallel/contract.hpp"
#include "parallel/device/noting.hpp"

namespace lockstep {
namespace {

// Gives weights and takes gradients as any store does, and marks in the trace where a unit's first gradient
// of a pass goes.
class MarkingStore final : public Store {
 public:
  MarkingStore(Device& device, const LocalParams& params) : device_(device), params_(params) {
    weights_.resize(params.unit_elements.size()), gradients_.resize(params.unit_elements.size());
    for (const int u : params.units) {
      weights_[u] = device.take("weights", Kind::weights, params.unit_elements[u]);
      gradients_[u] = device.take("gradients", Kind::gradients, params.unit_elements[u]);
    }
  }
  void begin(bool adds) { adds_ = adds, marked_.clear(); }

  i64 sample(int, i64 i) const override { return i; }
  void load(int, const float*) override {}
  void acquire(int) override {}
  void release(int) override {}
  View weight(int local) override { return of(weights_, local); }
  View kept(int local) override { return of(weights_, local); }
  Leaf leaf(int local, i64) override {
    const int unit = params_.all[local].unit;
    if (marked_.insert(unit).second) device_.note_action("first gradient", unit, -1);
    return {of(gradients_, local), adds_};
  }
  void done(int, i64) override {}
  void ready(int, int, bool) override {}
  void finish() override {}
  const std::vector<Piece>& pieces() override { return none_; }
  void republish() override {}
  View gradient(int local, i64 first) override { return of(gradients_, local).from(first); }

 private:
  View of(const std::vector<Buf>& units, int local) const {
    const LocalParam& p = params_.all[local];
    return units[p.unit].from(p.first);
  }
  Device& device_;
  const LocalParams& params_;
  std::vector<Buf> weights_, gradients_;
  std::set<int> marked_;
  std::vector<Piece> none_;
  bool adds_ = false;
};

// Everything that the parts of a chunk need, on a device that only notes.
class Workbench {
 public:
  Workbench(const Run& run, const Costs& costs, bool split, bool whole_again)
      : run_(run),
        settings_(in_segments(run.settings, run.plan)),
        costs_(costs),
        mesh_(run.mesh()),
        split_(split),
        whole_again_(whole_again),
        b_(run.plan.number("micro")),
        writer_(costs) {
    device_.set_types(settings_);
    const Context context{run_.model, settings_, run_.plan, mesh_, 0, device_};
    seam_ = made<Seam>(context), spread_ = made<Spread>(context);
    stash_ = made<Stash>(context);
    for (int layer = 0; layer < run_.model.layers; ++layer)
      check_kept(chosen<Stash>(run_.plan).name, *stash_, layer);
    classify();
    std::vector<int> units{0};
    for (const int layer : examples_) units.push_back(layer + 1);
    const int L = static_cast<int>(run_.model.layers);
    units.insert(units.end(), {L + 1, L + 2});
    params_ = narrow(parameter_table(run_.model, run_.settings.leaves), L, units,
                     [&](const Param& p) { return seam_->slice(p); });
    store_.emplace(device_, params_);
    const i64 tokens = b_ * settings_.seq;
    ids_ = device_.take("tokens", Kind::inputs, tokens, Type::i32);
    labels_ = device_.take("labels", Kind::inputs, tokens, Type::i32);
    losses_ = device_.take("losses", Kind::inputs, settings_.batch, Type::f64);
    const i64 half = settings_.seq * run_.model.head_dim / 2;
    cos_ = device_.take("cos", Kind::inputs, half), sin_ = device_.take("sin", Kind::inputs, half);
  }

  LayerPrograms all() {
    LayerPrograms p;
    p.class_of = class_of_;
    for (const int layer : examples_) p.classes.push_back(layer_part(layer));
    p.embedding = embedding_part();
    p.head = head_part();
    return p;
  }

 private:
  void classify() {
    std::map<std::vector<bool>, int> known;
    for (int l = 0; l < run_.model.layers; ++l) {
      std::vector<bool> keeps;
      for (int p = 0; p < static_cast<int>(Part::count); ++p)
        keeps.push_back(stash_->keeps(l, static_cast<Part>(p)));
      const auto [it, fresh] = known.try_emplace(keeps, static_cast<int>(examples_.size()));
      if (fresh) examples_.push_back(l);
      class_of_.push_back(it->second);
    }
  }

  Rank rank() {
    return {run_.model, settings_, mesh_,   0,       device_, params_,
            *seam_,     *spread_,  *store_, *stash_, shelf_,  b_};
  }
  Buf hidden() { return device_.take("x", Kind::activations, b_ * seam_->cut().seq * run_.model.hidden); }

  template <class Action>
  PartPass note(bool adds, const Action& action) {
    store_->begin(adds);
    skip();
    action();
    PartPass pass;
    std::size_t from = seen_;
    for (std::size_t i = seen_; i < trace_.events.size(); ++i) {
      if (trace_.events[i].what != Trace::Event::action) continue;
      writer_.write(trace_, from, i);
      pass.programs.push_back(writer_.take());
      pass.units.push_back(trace_.events[i].chunk);
      from = i + 1;
    }
    writer_.write(trace_, from, trace_.events.size());
    pass.programs.push_back(writer_.take());
    seen_ = trace_.events.size();
    return pass;
  }
  void skip() {
    writer_.skip(trace_, seen_, trace_.events.size());
    seen_ = trace_.events.size();
  }

  // Backward, and the pass of weight gradients where that is one of its own.
  template <class Backward>
  void note_backward(PartPrograms& p, bool adds, const Backward& backward) {
    WorkList later;
    p.backward[adds] = note(adds, [&] { backward(split_ ? &later : nullptr); });
    if (!split_) return;
    const Rank r = rank();
    p.weights[adds] = note(adds, [&] {
      for (WeightWork& w : later) run_weight_work(r, w, 0), w = {};
    });
  }

  // What a forward that has just been noted ended with.
  Instruction after_swiglu() {
    std::size_t i = seen_;
    Instruction o;
    const auto named = [](const Trace::Event& e, const char* name) {
      return e.what == Trace::Event::run && std::string_view(e.name) == name;
    };
    while (i-- > 0 && !named(trace_.events[i], "swiglu")) {
      const Trace::Event& e = trace_.events[i];
      if (e.what == Trace::Event::run) o.spent.compute += costs_.kernel(e);
      if (e.what != Trace::Event::start) continue;
      o.spent.exposed[static_cast<int>(e.message.axis)] += costs_.message(e.message, {});
      o.delay += costs_.delay(e.message);
    }
    o.seconds = o.spent.compute + std::accumulate(o.spent.exposed.begin(), o.spent.exposed.end(), 0.0);
    return o;
  }

  PartPrograms layer_part(int index) {
    PartPrograms p;
    Layer layer(rank(), index, cos_, sin_);
    for (const bool adds : {false, true}) {
      Saved saved;
      Buf x = hidden(), y;
      const PartPass forward = note(adds, [&] { y = layer.forward(0, std::move(x), saved); });
      if (!adds) {
        p.forward = forward;
        for (int k = 0; k < static_cast<int>(Part::count); ++k)
          if (const Buf& part = saved.part[k]) p.kept.push_back({k, part.elements(), part.view().type});
      }
      const Instruction last_sum = after_swiglu();
      y.free();
      Buf dy = hidden(), dx;
      note_backward(p, adds, [&](WorkList* later) { dx = layer.backward(0, saved, std::move(dy), later); });
      std::vector<Instruction>& first = p.backward[adds].programs.front().instructions;
      if (whole_again_ && p.kept.size() == 1) first.insert(first.begin(), last_sum);
    }
    return p;
  }

  PartPrograms embedding_part() {
    PartPrograms p;
    Embedding embedding(rank(), ids_);
    Buf x;
    p.forward = note(false, [&] { x = embedding.forward(0); });
    for (const bool adds : {false, true}) {
      Buf dx = hidden();
      note_backward(p, adds, [&](WorkList* later) { embedding.backward(0, std::move(dx), later); });
    }
    return p;
  }

  PartPrograms head_part() {
    PartPrograms p;
    Head head(rank(), labels_, losses_);
    for (const bool adds : {false, true}) {
      Buf x = hidden(), dx;
      note_backward(p, adds, [&](WorkList* later) { dx = head.backward(0, std::move(x), 1.f, later); });
    }
    return p;
  }

  const Run& run_;
  const Settings settings_;  // as a rank sees them
  const Costs& costs_;
  const Mesh mesh_;
  const bool split_, whole_again_;
  const i64 b_;
  NotingDevice noting_;
  Device& device_ = noting_.device;
  const Trace& trace_ = noting_.trace;
  ProgramWriter writer_;
  std::size_t seen_ = 0;
  std::vector<int> class_of_, examples_;  // by layer; a layer of each class
  std::unique_ptr<Seam> seam_;
  std::unique_ptr<Spread> spread_;
  std::unique_ptr<Stash> stash_;
  LocalParams params_;
  std::optional<MarkingStore> store_;
  Shelf shelf_;
  Buf ids_, labels_, losses_, cos_, sin_;
};

}  // namespace

LayerPrograms layer_programs(const Run& run, const Costs& costs, bool split_backward, bool whole_again) {
  return Workbench(run, costs, split_backward, whole_again).all();
}

}  // namespace lockstep
