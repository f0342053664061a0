#include "suites/planner/chunk_programs.hpp"

#include <algorithm>
#include <optional>

namespace lockstep {
namespace {

constexpr int kMicrobatches = 3;  // enough for a first one, another one, and one whose activations are leaving

// A rank that holds these layers alone, with the plan's strategies, on a device that only notes.
class Bench {
 public:
  Bench(const Run& run, const Costs& costs, const ChunkShape& shape, Pending pending)
      : shape_(shape),
        layers_(static_cast<int>(shape.classes.size())),
        run_(alone(run, layers_ + (pending == Pending::layer))),
        mesh_{run.plan.number("dp"), run.plan.number("tp"), 1, run.mesh().kv_replicas},
        ops_(plain_ops<float>()),
        lanes_(1),
        device_(nowhere_, nowhere_, no_file_, ops_, lanes_, nullptr, &trace_),
        writer_(costs),
        costs_(costs) {
    device_.set_types(run_.settings);
    Context context{run_.model, run_.settings, run_.plan, mesh_, 0, device_};
    seam_ = chosen<Seam>(run_.plan).make(context);
    std::vector<int> units;
    if (shape.first || pending == Pending::embedding) units.push_back(0);
    for (int l = 0; l < run_.model.layers; ++l) units.push_back(l + 1);
    if (shape.last) units.insert(units.end(), {norm(), head()});
    params_ = narrow(parameter_table(run_.model, run_.settings.leaves), static_cast<int>(run_.model.layers),
                     units, [&](const Param& p) { return seam_->slice(p); });
    order_.assign(params_.unit_elements.size(), {0, 1, 2});
    context.params = &params_, context.gradient_order = &order_;
    home_ = chosen<Home>(run_.plan).make(context);
    context.home = home_.get();
    store_ = chosen<Store>(run_.plan).make(context);
    shelf_ = chosen<Shelf>(run_.plan).make(context);
    shelved_ = chosen<Shelf>(run_.plan).wants != nullptr;
    locals_.resize(params_.unit_elements.size(), -1);
    for (int l = static_cast<int>(params_.all.size()); l-- > 0;) locals_[params_.all[l].unit] = l;
  }

  Program pass(const LayerPrograms& parts, const PassShape& p) {
    parts_ = &parts;
    j_ = p.first ? 0 : 1;
    const bool backward = p.pass == Pass::backward || p.pass == Pass::input_grad;
    if (backward) shelve_all();
    if (p.after_forward) shelve(layers_ - 1, kMicrobatches - 1);
    if (p.pending != Pending::nothing) reduce_before(p);
    skip();
    if (p.pass == Pass::forward)
      forward();
    else if (p.pass == Pass::weight_grad)
      weight_grads(p.last);
    else
      this->backward(p.pass == Pass::backward, p.last);
    return writer_.take();
  }

  UpdateProgram update(bool first_microbatch, int pp) {
    UpdateProgram u;
    const std::vector<Piece>& pieces = store_->pieces();
    home_->prepare(pieces, params_);
    u.kept = taken();
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
        if (p.counted) device_.run(ops_.add_squares, View{}, p.gradient, p.n);
    });
    u.norm = writer_.take();
    step(pieces);
    hook([&] { store_->republish(); });
    u.update = writer_.take();
    return u;
  }

 private:
  static Run alone(const Run& run, int layers) {
    Run small = run;
    small.model.layers = layers;
    small.settings.batch = i64{kMicrobatches} * run.plan.number("micro") * run.plan.number("dp");
    return small;
  }
  int norm() const { return static_cast<int>(run_.model.layers) + 1; }
  int head() const { return norm() + 1; }

  void skip() {
    writer_.skip(trace_, seen_, trace_.events.size());
    seen_ = trace_.events.size();
  }
  // Calls a strategy and writes down what it did.
  template <class Action>
  void hook(const Action& action) {
    action();
    writer_.write(trace_, seen_, trace_.events.size());
    seen_ = trace_.events.size();
  }

  std::array<i64, 3> taken() const {
    std::array<i64, 3> bytes{};
    std::map<int, std::pair<std::size_t, i64>> blocks;
    for (const Trace::Event& e : trace_.events) {
      if (e.what == Trace::Event::take) {
        blocks[e.block] = {static_cast<std::size_t>(medium_of(e.kind)), e.bytes};
        bytes[static_cast<std::size_t>(medium_of(e.kind))] += e.bytes;
      } else if (e.what == Trace::Event::give) {
        bytes[blocks.at(e.block).first] -= blocks.at(e.block).second;
      }
    }
    return bytes;
  }

  // ---- what happened before
  Saved saved_of(int layer) {
    Saved saved;
    for (const KeptPart& k : parts_->classes[shape_.classes[layer]].kept)
      saved.part[k.part] = device_.take("kept", Kind::activations, k.elements, k.type);
    return saved;
  }
  void shelve(int layer, int j) {
    if (!shelved_) return;
    Saved saved = saved_of(layer);
    shelf_->put(layer, j, saved);
  }
  void shelve_all() {
    for (int l = 0; l < layers_; ++l) shelve(l, j_);
    shelf_->settle();
  }
  void reduce_before(const PassShape& p) {
    const int unit = p.pending == Pending::embedding ? 0
                     : p.pending == Pending::layer   ? layers_ + 1
                     : shape_.first                  ? 0
                                                     : 1;
    const int j = p.pending_first ? 0 : 1;
    store_->leaf(locals_[unit], store_->sample(j, 0));
    store_->ready(unit, j, p.last && p.pending != Pending::own);
  }

  // ---- the passes, as parallel/chunk.cpp has them
  void acquire(const std::vector<int>& order, std::size_t k) {
    hook([&] {
      store_->acquire(order[k]);
      if (k + 1 < order.size()) store_->prefetch(order[k + 1]);
    });
  }
  void release(int unit) {
    hook([&] { store_->release(unit); });
  }
  void ready(int unit, bool last) {
    hook([&] {
      if (unit < norm()) return store_->ready(unit, j_, last);
      store_->ready(head(), j_, last);
      store_->ready(norm(), j_, last);
    });
  }
  const PartPrograms& layer(int l) const { return parts_->classes[shape_.classes[l]]; }

  // A part's backward or weight gradients; the store says whether they are the first of the step.
  void part(const PartPass (&by_adds)[2], int layer_unit) {
    bool adds = false;
    writer_.append(by_adds[adds].programs[0]);
    const int whole = static_cast<int>(parts_->class_of.size());  // layers of the model
    for (std::size_t i = 0; i < by_adds[0].units.size(); ++i) {
      const int unit = by_adds[0].units[i];
      const int here = unit > whole ? unit - whole - 1 + norm() : unit == 0 ? 0 : layer_unit;
      hook([&] { adds = store_->leaf(locals_[here], store_->sample(j_, 0)).add; });
      writer_.append(by_adds[adds].programs[i + 1]);
    }
  }

  void forward() {
    std::vector<int> order;
    if (shape_.first) order.push_back(0);
    for (int l = 0; l < layers_; ++l) order.push_back(l + 1);
    std::size_t k = 0;
    if (shape_.first) {
      acquire(order, k++);
      writer_.append(parts_->embedding.forward.programs[0]);
      release(0);
    }
    hook([&] { shelf_->settle(); });
    for (int l = 0; l < layers_; ++l) {
      acquire(order, k++);
      writer_.append(layer(l).forward.programs[0]);
      release(l + 1);
      if (!shelved_) continue;
      Saved saved = saved_of(l);
      skip();
      hook([&] { shelf_->put(l, j_, saved); });
    }
  }

  void backward(bool weights_now, bool last) {
    std::vector<int> order;
    if (shape_.last) order = {head(), norm()};
    for (int l = layers_; l-- > 0;) order.push_back(l + 1);
    std::vector<Saved> saved(static_cast<std::size_t>(layers_));
    hook([&] {
      shelf_->settle();
      if (shelved_) shelf_->prefetch(layers_ - 1, j_, saved.back());
    });
    std::size_t k = 0;
    if (shape_.last) {
      acquire(order, k++), acquire(order, k++);
      part(parts_->head.backward, 0);
      release(head()), release(norm());
      if (weights_now) ready(norm(), last);
    }
    for (int l = layers_; l-- > 0;) {
      acquire(order, k++);
      if (shelved_)
        hook([&] {
          shelf_->bring(l, j_, saved[l]);
          if (l > 0) shelf_->prefetch(l - 1, j_, saved[l - 1]);
        });
      part(layer(l).backward, l + 1);
      saved[l] = {};
      skip();
      release(l + 1);
      if (weights_now) ready(l + 1, last);
    }
    if (!shape_.first) return;
    part(parts_->embedding.backward, 0);
    if (weights_now) ready(0, last);
  }

  void weight_grads(bool last) {
    if (shape_.last) part(parts_->head.weights, 0), ready(norm(), last);
    for (int l = layers_; l-- > 0;) part(layer(l).weights, l + 1), ready(l + 1, last);
    if (shape_.first) part(parts_->embedding.weights, 0), ready(0, last);
  }

  // ---- the update, as parallel/executor.cpp has it
  void join_tied(const std::vector<Piece>& pieces, int pp, UpdateProgram& u) {
    const int last = static_cast<int>(params_.table.size()) - 1;
    if (params_.table[last].tied_to < 0) return;
    const int embedding = params_.local(0), head = params_.local(last);
    for (const Piece& p : pieces) {
      if (p.local != embedding && p.local != head) continue;
      if (pp == 1) {
        hook([&] {
          device_.run(ops_.add, p.gradient, p.gradient, store_->gradient(head, p.first), p.n);
        });
      } else {
        Message m;
        m.verb = Verb::all_reduce, m.axis = Axis::tie, m.type = p.gradient.type, m.n = p.n;
        u.tied += costs_.message(m, {});
      }
    }
  }

  // The optimizer. One that works through blocks on their way between memories is traced on the beginning of
  // each piece, and once more on twice as much: from there on the same blocks follow each other.
  void step(const std::vector<Piece>& pieces) {
    constexpr i64 kBeginning = 1 << 21, kWhole = 1 << 25;
    i64 all = 0;
    for (const Piece& p : pieces) all += p.n;
    if (!chosen<Home>(run_.plan).wants || all <= kWhole)
      return hook([&] { home_->step(pieces, params_, 0, 1.0); });
    const Program before = writer_.take();
    double elements[2], seconds[2];
    Spent spent[2];
    for (const int k : {0, 1}) {
      std::vector<Piece> part = pieces;
      elements[k] = 0;
      for (Piece& p : part) p.n = std::min(p.n, kBeginning << k), elements[k] += static_cast<double>(p.n);
      home_->prepare(part, params_);
      skip();
      hook([&] { home_->step(part, params_, 0, 1.0); });
      Clock clock;
      lockstep::run(writer_.take(), clock, spent[k]);
      seconds[k] = clock.now;
    }
    const double more = elements[1] > elements[0]
                            ? (static_cast<double>(all) - elements[1]) / (elements[1] - elements[0])
                            : 0;
    const auto beyond = [&](double first, double second) { return second + more * (second - first); };
    Program rest;
    Operation& o = rest.operations.emplace_back();
    o.seconds = beyond(seconds[0], seconds[1]);
    o.spent.update = beyond(spent[0].update, spent[1].update);
    o.spent.copies = o.seconds - o.spent.update;
    writer_.append(before), writer_.append(rest);
  }

  const ChunkShape& shape_;
  const int layers_;
  const Run run_;
  const Mesh mesh_;
  const Ops<float> ops_;
  Lanes lanes_;
  NoPlacer nowhere_;
  Disk no_file_;
  Trace trace_;
  Device device_;
  ProgramWriter writer_;
  const Costs& costs_;
  std::size_t seen_ = 0;
  LocalParams params_;
  std::vector<std::vector<int>> order_;
  std::vector<int> locals_;  // by unit: its first parameter
  std::unique_ptr<Seam> seam_;
  std::unique_ptr<Home> home_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Shelf> shelf_;
  bool shelved_ = false;
  const LayerPrograms* parts_ = nullptr;
  int j_ = 0;
};

}  // namespace

Program chunk_program(const Run& run, const Costs& costs, const LayerPrograms& parts, const ChunkShape& shape,
                      const PassShape& pass) {
  return Bench(run, costs, shape, pass.pending).pass(parts, pass);
}

UpdateProgram update_program(const Run& run, const Costs& costs, const ChunkShape& stage,
                             bool first_microbatch) {
  return Bench(run, costs, stage, Pending::nothing).update(first_microbatch, run.plan.number("pp"));
}

}  // namespace lockstep
