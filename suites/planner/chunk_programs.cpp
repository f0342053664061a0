#include "suites/planner/chunk_programs.hpp"

#include <algorithm>
#include <optional>

namespace lockstep {
namespace {

constexpr int kMicrobatches =
    3;  // enough for a first one, another one, and one whose activations are leaving

// A rank that holds these layers alone, with the plan's strategies, on a device that only notes.
class Bench {
 public:
  using Kept = std::vector<const std::vector<KeptPart>*>;
  Bench(const Run& run, const Costs& costs, int layers, bool first, bool last, const Kept& kept,
        Pending pending)
      : layers_(layers),
        first_(first),
        last_(last),
        kept_(kept),
        run_(alone(run, layers_ + (pending == Pending::layer))),
        mesh_{run.plan.number("dp"), run.plan.number("tp"), 1, run.mesh().kv_replicas},
        ops_(plain_ops<float>()),
        lanes_(1),
        device_(0, nowhere_, nowhere_, no_file_, ops_, lanes_, nullptr, &trace_),
        writer_(costs),
        costs_(costs) {
    device_.set_types(run_.settings);
    Context context{run_.model, run_.settings, run_.plan, mesh_, 0, device_};
    seam_ = chosen<Seam>(run_.plan).make(context);
    std::vector<int> units;
    if (first || pending == Pending::embedding) units.push_back(0);
    for (int l = 0; l < run_.model.layers; ++l) units.push_back(l + 1);
    if (last) units.insert(units.end(), {norm(), head()});
    params_ = narrow(parameter_table(run_.model, run_.settings.leaves), static_cast<int>(run_.model.layers),
                     units, [&](const Param& p) { return seam_->slice(p); });
    order_.assign(params_.unit_elements.size(), {0, 1, 2});
    context.params = &params_, context.gradient_order = &order_;
    home_ = chosen<Home>(run_.plan).make(context);
    context.home = home_.get();
    store_ = chosen<Store>(run_.plan).make(context);
    shelf_ = chosen<Shelf>(run_.plan).make(context);
    shelved_ = !kept.empty();
    locals_.resize(params_.unit_elements.size(), -1);
    for (int l = static_cast<int>(params_.all.size()); l-- > 0;) locals_[params_.all[l].unit] = l;
  }

  PassScript pass(const PassShape& p) {
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
    flush();
    return std::move(script_);
  }
  // Where each layer's items begin in the script, and behind them how many requests there were.
  const std::vector<std::pair<std::size_t, int>>& blocks() const { return blocks_; }

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
    u.update.operations.insert(u.update.operations.begin(), optimizer_.begin(), optimizer_.end());
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

  void flush() {
    Program hooks = writer_.take();
    requests_ = hooks.requests;
    if (hooks.operations.empty() && hooks.live.now == Live{}.now && hooks.live.most == Live{}.most) return;
    PassScript::Item item;
    item.program = std::move(hooks);
    script_.items.push_back(std::move(item));
  }
  void block(int position) {
    flush();
    position_ = position;
    blocks_.emplace_back(script_.items.size(), requests_);
  }
  using Item = PassScript::Item;
  void put(decltype(Item::what) what, int index, bool adds) {
    flush();
    Item item;
    item.what = what, item.index = index, item.adds = adds, item.position = position_;
    script_.items.push_back(std::move(item));
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
    for (const KeptPart& k : *kept_[static_cast<std::size_t>(layer)])
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
                     : first_                        ? 0
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
  // A part's backward or weight gradients, which units' first gradients divide; the store says whether they
  // are the first of the step.
  void part(decltype(Item::what) what, const std::vector<int>& units) {
    bool adds = false;
    put(what, 0, adds);
    for (std::size_t i = 0; i < units.size(); ++i) {
      hook([&] { adds = store_->leaf(locals_[units[i]], store_->sample(j_, 0)).add; });
      put(what, static_cast<int>(i) + 1, adds);
    }
  }
  std::vector<int> weighed(bool now, std::vector<int> units) const {
    return now ? std::move(units) : std::vector<int>{};
  }

  void forward() {
    std::vector<int> order;
    if (first_) order.push_back(0);
    for (int l = 0; l < layers_; ++l) order.push_back(l + 1);
    std::size_t k = 0;
    if (first_) {
      acquire(order, k++);
      put(Item::embedding, 0, false);
      release(0);
    }
    hook([&] { shelf_->settle(); });
    for (int l = 0; l < layers_; ++l) {
      block(l);
      acquire(order, k++);
      put(Item::layer, 0, false);
      release(l + 1);
      if (!shelved_) continue;
      Saved saved = saved_of(l);
      skip();
      hook([&] { shelf_->put(l, j_, saved); });
    }
  }

  void backward(bool weights_now, bool last) {
    std::vector<int> order;
    if (last_) order = {head(), norm()};
    for (int l = layers_; l-- > 0;) order.push_back(l + 1);
    std::vector<Saved> saved(static_cast<std::size_t>(layers_));
    hook([&] {
      shelf_->settle();
      if (shelved_) shelf_->prefetch(layers_ - 1, j_, saved.back());
    });
    std::size_t k = 0;
    if (last_) {
      acquire(order, k++), acquire(order, k++);
      part(Item::head, weighed(weights_now, {head(), norm()}));
      release(head()), release(norm());
      if (weights_now) ready(norm(), last);
    }
    for (int l = layers_; l-- > 0;) {
      block(layers_ - 1 - l);
      acquire(order, k++);
      if (shelved_)
        hook([&] {
          shelf_->bring(l, j_, saved[l]);
          if (l > 0) shelf_->prefetch(l - 1, j_, saved[l - 1]);
        });
      part(Item::layer, weighed(weights_now, {l + 1}));
      saved[l] = {};
      skip();
      release(l + 1);
      if (weights_now) ready(l + 1, last);
    }
    if (!first_) return;
    position_ = layers_;
    part(Item::embedding, weighed(weights_now, {0}));
    if (weights_now) ready(0, last);
  }

  void weight_grads(bool last) {
    if (last_) part(Item::head, {head(), norm()}), ready(norm(), last);
    for (int l = layers_; l-- > 0;) {
      block(layers_ - 1 - l);
      part(Item::layer, {l + 1}), ready(l + 1, last);
    }
    if (first_) part(Item::embedding, {0}), ready(0, last);
  }

  // ---- the update, as parallel/executor.cpp has it
  void join_tied(const std::vector<Piece>& pieces, int pp, UpdateProgram& u) {
    const int last = static_cast<int>(params_.table.size()) - 1;
    if (params_.table[last].tied_to < 0) return;
    const int embedding = params_.local(0), head = params_.local(last);
    for (const Piece& p : pieces) {
      if (p.local != embedding && p.local != head) continue;
      if (pp == 1) {
        hook([&] { device_.run(ops_.add, p.gradient, p.gradient, store_->gradient(head, p.first), p.n); });
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
    constexpr i64 kBeginning = 1 << 18, kWhole = 1 << 22;
    i64 all = 0;
    for (const Piece& p : pieces) all += p.n;
    if (!chosen<Home>(run_.plan).wants || all <= kWhole)
      return hook([&] { home_->step(pieces, params_, 0, 1.0); });
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
    Operation o;
    o.seconds = beyond(seconds[0], seconds[1]);
    o.spent.update = beyond(spent[0].update, spent[1].update);
    o.spent.copies = o.seconds - o.spent.update;
    optimizer_.push_back(o);
  }

  const int layers_;
  const bool first_, last_;
  const Kept& kept_;
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
  int j_ = 0, position_ = 0, requests_ = 0;
  PassScript script_;
  std::vector<std::pair<std::size_t, int>> blocks_;
  std::vector<Operation> optimizer_;
};

}  // namespace

namespace {

constexpr int kBlocks = 5;  // of layers: the third stands for all between the second and the fourth

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

// Visits the parts' programs and the hooks', with what is to be added to the hooks' requests.
template <class Visit>
void each_program(const PassScript& s, const LayerPrograms& parts, const ChunkShape& shape, Pass pass,
                  const Visit& visit) {
  const int layers = static_cast<int>(shape.classes.size());
  const auto item = [&](const PassScript::Item& i, int position, int more) {
    if (i.what == PassScript::Item::hook) return visit(i.program, more);
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
                       const std::vector<const std::vector<KeptPart>*>& kept, const PassShape& pass) {
  const bool alike = std::all_of(kept.begin(), kept.end(), [&](const auto* k) { return k == kept.front(); });
  if (layers > kBlocks && alike) {
    Bench bench(run, costs, kBlocks, first, last, kept, pass.pending);
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
  return Bench(run, costs, layers, first, last, kept, pass.pending).pass(pass);
}

Program whole_program(const PassScript& script, const LayerPrograms& parts, const ChunkShape& shape,
                      Pass pass) {
  Program whole;
  each_program(script, parts, shape, pass, [&](const Program& p, int more) {
    for (Operation o : p.operations) {
      if (o.request >= 0) o.request += more, whole.requests = std::max(whole.requests, o.request + 1);
      whole.operations.push_back(o);
    }
    whole.live.then(p.live);
  });
  return whole;
}

QuickProgram quick_program(const PassScript& script, const LayerPrograms& parts, const ChunkShape& shape,
                           Pass pass) {
  QuickProgram quick;
  each_program(script, parts, shape, pass, [&](const Program& p, int more) {
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
  });
  return quick;
}

namespace {

// A program that begins with idle streams, as one piece of work.
Operation at_once(const Program& p) {
  Operation o;
  Clock clock;
  run(p, clock, o.spent);
  o.seconds = clock.now;
  return o;
}

// What n layers take, of two examples with a and a + 1.
Operation beyond(const Operation& a, const Operation& b, double more) {
  const auto line = [&](double x, double y) { return y + more * (y - x); };
  Operation o;
  o.seconds = line(a.seconds, b.seconds);
  o.spent.compute = line(a.spent.compute, b.spent.compute);
  o.spent.update = line(a.spent.update, b.spent.update);
  o.spent.copies = line(a.spent.copies, b.spent.copies);
  for (std::size_t x = 0; x < o.spent.exposed.size(); ++x)
    o.spent.exposed[x] = line(a.spent.exposed[x], b.spent.exposed[x]);
  return o;
}

}  // namespace

// The optimizer takes one unit after the other: each further layer adds the same.
UpdateProgram update_program(const Run& run, const Costs& costs, int layers, bool first, bool last,
                             bool first_microbatch) {
  const int pp = run.plan.number("pp");
  const auto of = [&](int n) {
    return Bench(run, costs, n, first, last, {}, Pending::nothing).update(first_microbatch, pp);
  };
  if (layers <= kBlocks) return of(layers);
  const UpdateProgram a = of(kBlocks - 1), b = of(kBlocks);
  const i64 more = layers - kBlocks;
  UpdateProgram u = b;
  u.norm.operations = {beyond(at_once(a.norm), at_once(b.norm), static_cast<double>(more))};
  u.update.operations = {beyond(at_once(a.update), at_once(b.update), static_cast<double>(more))};
  for (std::size_t m = 0; m < u.kept.size(); ++m) u.kept[m] += more * (b.kept[m] - a.kept[m]);
  return u;
}

}  // namespace lockstep
