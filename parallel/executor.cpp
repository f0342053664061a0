#include "parallel/executor.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "parallel/contract.hpp"
#include "parallel/mutant.hpp"
#include "ref/optimizer.hpp"
#include "ref/rope.hpp"

namespace lockstep {

Mesh Run::mesh() const {
  const int tp = plan.number("tp");
  const i64 kv = model.kv_heads;
  return {plan.sharers(),          tp,
          plan.number("pp"),       tp > kv ? static_cast<int>(tp / kv) : 1,
          plan.number("replicas"), plan.number("cp")};
}

// The pipeline's messages: the next receive is posted before the present action computes, a send is waited
// for after the next action has computed.
struct Executor::Handover {
  Request sending;
  Buf given;  // output of the action just computed
};

namespace {
double tree_of(const double* x, i64 lo, i64 hi) {
  const i64 mid = lo + (hi - lo) / 2;
  return hi - lo == 1 ? x[lo] : tree_of(x, lo, mid) + tree_of(x, mid, hi);
}
}  // namespace

Executor::Executor(const Run& run, int rank, Device& device)
    : run_(run),
      seen_(in_segments(run.settings, run.plan)),
      mesh_(run.mesh()),
      rank_(rank),
      stage_(mesh_.pp_of(rank)),
      device_(device),
      b_(run.plan.number("micro")) {
  const Settings& s = seen_;
  const ModelConfig& m = run_.model;
  microbatches_ = static_cast<int>(s.batch / mesh_.dp / b_);
  device_.set_types(s);
  Context context{run_.model, seen_, run_.plan, mesh_, rank_, device_};

  seam_ = made<Seam>(context);
  spread_ = made<Spread>(context);
  schedule_ = made<Schedule>(context);
  chunks_ = chunks_of(run_.plan, *schedule_, mesh_.pp, m.layers);
  actions_ = actions_of(run_.plan, *schedule_, stage_, mesh_.pp, microbatches_);

  // Which units this stage owns, and in which order their gradients come.
  std::vector<int> units;
  gradient_order_.resize(m.layers + 3);
  for (int chunk = stage_; chunk < chunks_; chunk += mesh_.pp) {
    std::vector<int> order;
    for (const Action& a : actions_)
      if (a.chunk == chunk && (a.pass == Pass::backward || a.pass == Pass::weight_grad))
        order.push_back(a.microbatch);
    std::vector<int> here;
    if (chunk == 0) here.push_back(0);
    const auto [from, to] = layers_of(chunk, chunks_, m.layers);
    for (int l = from; l < to; ++l) here.push_back(l + 1);
    if (chunk == chunks_ - 1)
      here.insert(here.end(), {static_cast<int>(m.layers) + 1, static_cast<int>(m.layers) + 2});
    for (const int u : here) gradient_order_[u] = order;
    units.insert(units.end(), here.begin(), here.end());
  }
  params_ = narrow(parameter_table(m, s.leaves), static_cast<int>(m.layers), units,
                   [&](const Param& p) { return seam_->slice(p); });
  context.params = &params_;
  context.gradient_order = &gradient_order_;
  home_ = made<Home>(context);
  context.home = home_.get();
  store_ = made<Store>(context);
  stash_ = made<Stash>(context);
  for (const int u : units)
    if (u > 0 && u <= m.layers) check_kept(chosen<Stash>(run_.plan).name, *stash_, u - 1);
  shelf_ = made<Shelf>(context);
  home_->prepare(store_->pieces(), params_);

  // Inputs that outlive a step.
  const i64 tokens = s.batch / mesh_.dp * s.seq;
  if (device_.computes()) {
    host_ids_.resize(tokens), host_labels_.resize(tokens);
    row_ids_.resize(run_.settings.seq), row_labels_.resize(run_.settings.seq);
  }
  host_losses_.resize(s.batch);
  const bool first = stage_ == 0, last = (chunks_ - 1) % mesh_.pp == stage_;
  if (first) ids_ = device_.take("tokens", Kind::inputs, tokens, Type::i32);
  if (last) labels_ = device_.take("labels", Kind::inputs, tokens, Type::i32);
  losses_ = device_.take("losses", Kind::inputs, s.batch, Type::f64);
  squares_ = device_.take("squares", Kind::inputs, kSquareWords, Type::i64);
  const i64 half = s.seq * m.head_dim / 2;
  cos_ = device_.take("cos", Kind::inputs, half);
  sin_ = device_.take("sin", Kind::inputs, half);
  if (device_.computes()) {
    const RopeTable<float> rope = rope_table<float>(m, run_.settings.seq);
    const i64 from = mesh_.cp_of(rank) * half;
    device_.upload(cos_, rope.cos.data() + from, half);
    device_.upload(sin_, rope.sin.data() + from, half);
  }

  for (int chunk = 0; chunk < chunks_; ++chunk) {
    x_names_.push_back("chunk" + std::to_string(chunk) + ".x");
    dy_names_.push_back("chunk" + std::to_string(chunk) + ".dy");
  }
  const Rank self{run_.model, seen_,    mesh_,   rank_,   device_, params_,
                  *seam_,     *spread_, *store_, *stash_, *shelf_, b_};
  for (int chunk = stage_; chunk < chunks_; chunk += mesh_.pp)
    mine_.push_back(std::make_unique<Chunk>(self, chunk, chunks_, microbatches_,
                                            Chunk::Inputs{cos_, sin_, ids_, labels_, losses_}));
}

Executor::~Executor() = default;

void Executor::initialise(const std::function<const float*(const Param&)>& source, int threads) {
  // Memory that the largest parameter's threads touch first, and all others then reuse: a model that fills a
  // GPU is made in a tenth of its bytes of host memory.
  std::unique_ptr<float[]> values;
  i64 room = 0;
  Lanes lanes(threads);
  for (int i = 0; i < static_cast<int>(params_.all.size()); ++i) {
    const LocalParam& l = params_.all[i];
    if (l.alias >= 0) continue;
    const i64 own = run_.model.layers / mesh_.pp * layer_params;
    const bool shifted =
        mutant("a stage loads the first layers") && l.unit > 0 && l.unit <= run_.model.layers;
    const Param& p = params_.table[shifted ? 1 + (l.param - 1) % own : l.param];
    const float* whole = source ? source(p) : nullptr;
    const i64 offset = mutant("fresh shards are alike") ? l.slice.row : 0;
    const i64 rows = l.slice.rows, cols = l.slice.cols;
    if (rows * cols > room) {
      values.reset();  // before, not beside
      values = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(room = rows * cols));
    }
    lanes.split(rows, 1, [&](i64 begin, i64 end, int) {
      for (i64 row = begin; row < end; ++row) {
        const i64 r = l.slice.row + row;
        float* into = values.get() + row * cols;
        if (whole && r < p.rows)
          std::copy_n(whole + r * p.cols + l.slice.col, cols, into);
        else if (r < p.rows)
          initial_values(run_.model, p, run_.settings.seed, r - offset, l.slice.col, cols, into);
        else
          std::fill_n(into, cols, 0.0f);
      }
    });
    store_->load(i, values.get());
  }
  home_->begin(store_->pieces());
}

void Executor::load_tokens(i64 step) {
  if (device_.computes()) draw_tokens(step);
  if (ids_) device_.upload(ids_, host_ids_.data(), ids_.elements());
  if (labels_) device_.upload(labels_, host_labels_.data(), labels_.elements());
}

void Executor::draw_tokens(i64 step) {
  const i64 T = seen_.seq;  // of a sample, which may be a segment of a sequence
  Settings order = run_.settings;
  if (mutant("seed of the data's order differs by rank")) order.seed += rank_;
  for (int j = 0; j < microbatches_; ++j)
    for (i64 i = 0; i < b_; ++i) {
      const i64 row = (j * b_ + i) * T;
      i64 index = store_->sample(j, i);
      if (mutant("samples dealt by rank of the world")) index = (index + rank_) % seen_.batch;
      sample(*run_.data, order, step, index % order.batch, row_ids_.data(), row_labels_.data());
      const i64 from = index / order.batch * T;  // the first segments of all sequences come first
      std::copy_n(row_ids_.begin() + from, T, host_ids_.begin() + row);
      std::copy_n(row_labels_.begin() + from, T, host_labels_.begin() + row);
    }
  // Every rank counts the whole step's labels by itself: they are a function of (seed, step, index) alone.
  i64 valid = 0;
  for (i64 i = 0; i < run_.settings.batch; ++i) {
    sample(*run_.data, run_.settings, step, i, row_ids_.data(), row_labels_.data());
    valid += std::count_if(row_labels_.begin(), row_labels_.end(), [](i32 l) { return l >= 0; });
  }
  valid_ = static_cast<double>(valid);
  loss_scale_ = static_cast<float>(1.0 / valid_);
}

bool Executor::receives(const Action& a) const {
  return mesh_.pp > 1 &&
         (a.pass == Pass::forward ? a.chunk > 0 : a.pass != Pass::weight_grad && a.chunk < chunks_ - 1);
}
bool Executor::sends(const Action& a) const {
  return mesh_.pp > 1 &&
         (a.pass == Pass::forward ? a.chunk < chunks_ - 1 : a.pass != Pass::weight_grad && a.chunk > 0);
}

// Starts the message between this action and its neighbour: what it takes in, or what it has put out.
Request Executor::post(const Action& a, bool receive, const Buf& buf) {
  const bool up = a.pass == Pass::forward;
  const int other = receive == up ? a.chunk - 1 : a.chunk + 1;
  const int into = receive ? a.chunk : other;  // the chunk that takes the tensor in
  Message m;
  m.verb = receive ? Verb::recv : Verb::send;
  m.axis = Axis::pp;
  m.peer = other % mesh_.pp;
  m.tag = (i64{into} * 2 + (up ? 0 : 1)) * microbatches_ + a.microbatch;
  m.n = buf.elements();
  m.microbatch = a.microbatch;
  m.what = (up ? x_names_ : dy_names_)[into].c_str();
  return device_.start(m, receive ? Buf() : buf, receive ? View() : buf.view(), receive ? buf : Buf(),
                       receive ? buf.view() : View());
}

void Executor::act(const Action& a, Handover& h) {
  Chunk& c = *mine_[a.chunk / mesh_.pp];
  device_.note_action(pass_name(a.pass), a.chunk, a.microbatch);
  switch (a.pass) {
    case Pass::forward:
      h.given = c.forward(a.microbatch, std::move(h.given));
      break;
    case Pass::backward:
      h.given = c.backward(a.microbatch, std::move(h.given), loss_scale_, true, a.last);
      break;
    case Pass::input_grad:
      h.given = c.backward(a.microbatch, std::move(h.given), loss_scale_, false, a.last);
      break;
    case Pass::weight_grad:
      c.weight_grads(a.microbatch, a.last);
      break;
  }
}

StepResult Executor::step(i64 step, const std::function<void()>& raw, const std::function<void()>& done) {
  device_.begin_step();
  load_tokens(step);
  std::fill(host_losses_.begin(), host_losses_.end(), 0.0);
  device_.upload(losses_, host_losses_.data(), losses_.elements());

  const i64 handed = b_ * seam_->cut().seq * run_.model.hidden;  // elements between stages
  Handover h;
  Request coming;
  Buf box;
  auto expect = [&](std::size_t k) {
    if (k >= actions_.size() || !receives(actions_[k])) return;
    box = device_.take("received", Kind::messages, handed);
    coming = post(actions_[k], true, box);
  };
  device_.begin_same();
  expect(0);
  for (std::size_t k = 0; k < actions_.size(); ++k) {
    const Action& a = actions_[k];
    h.given.free();
    if (receives(a)) {
      device_.wait(coming);
      h.given = std::move(box);
      h.given.relabel(Kind::buffers);
    }
    expect(k + 1);
    act(a, h);
    if (h.sending) device_.wait(h.sending);
    if (sends(a)) {
      h.given.relabel(Kind::messages);
      h.sending = post(a, false, h.given);
      h.given.free();
    }
  }
  if (h.sending) device_.wait(h.sending);
  device_.end_same();

  if (mutant("a tied gradient joined before its reduction")) join_tied_gradients();
  device_.note_action("update", -1, -1);
  store_->finish();
  if (!mutant("a tied gradient joined before its reduction")) join_tied_gradients();
  if (raw) raw();
  StepResult result;
  result.grad_norm = gradient_norm();
  home_->step(store_->pieces(), params_, step, clip_scale(run_.settings, result.grad_norm));
  store_->republish();

  // One double a sample, each written by one rank: the sum over ranks only collects them.
  device_.all_reduce(Axis::world, Reduce::sum, losses_, losses_, losses_.elements(), "losses", -1);
  device_.download(host_losses_.data(), losses_, losses_.elements());
  result.loss = tree_of(host_losses_.data(), 0, seen_.batch) / valid_;
  if (done) done();
  return result;
}

// A tied weight has two gradients, of the embedding and of the head; its own is their sum. On one stage they
// are added; on two, each end has a copy of the weight and both take the sum.
void Executor::join_tied_gradients() {
  const int last = static_cast<int>(params_.table.size()) - 1;
  if (params_.table[last].tied_to < 0) return;
  const int embedding = params_.local(0), head = params_.local(last);
  if (embedding < 0 && head < 0) return;
  for (const Piece& p : store_->pieces()) {
    if (p.local != embedding && p.local != head) continue;
    if (embedding >= 0 && head >= 0)
      device_.run(device_.ops().add, p.gradient, p.gradient, store_->gradient(head, p.first), p.n);
    else
      device_.all_reduce(Axis::tie, Reduce::sum, {}, p.gradient, p.n, "tied.gradient", -1);
  }
}

double Executor::gradient_norm() {
  std::array<i64, kSquareWords> words{};
  device_.upload(squares_, words.data(), kSquareWords);
  for (const Piece& p : store_->pieces())
    if (p.counted) device_.run(device_.ops().add_squares, squares_, p.gradient, p.n);
  device_.all_reduce(Axis::world, Reduce::sum, squares_, squares_, kSquareWords, "gradient norm", -1);
  device_.download(words.data(), squares_, kSquareWords);
  return root_of_squares(words.data());
}

}  // namespace lockstep
