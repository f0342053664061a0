// The passes of a chunk, as parallel/chunk.cpp has them.
#include "suites/planner/chunks/chunk_bench.hpp"

namespace lockstep {
void ChunkBench::before(const PassShape& p) {
  j_ = p.first ? 0 : 1;
  if (shelved_ && (p.pass == Pass::backward || p.pass == Pass::input_grad)) shelve_all();
  if (leaving_) shelve(layers_ - 1, kMicrobatches - 1, *leaving_);
  if (!shelved_ && p.pending != Pending::nothing) reduce_before(p);
  skip();
}

void ChunkBench::passes(const PassShape& p) {
  before(p);
  if (p.pass == Pass::forward)
    forward();
  else if (p.pass == Pass::weight_grad)
    weight_grads(p.last);
  else
    backward(p.pass == Pass::backward, p.last);
}

PassScript ChunkBench::pass(const PassShape& p) {
  passes(p);
  flush();
  script_.all_requests = requests_;
  return std::move(script_);
}

ShelfScript ChunkBench::shelf_pass(const PassShape& p, const std::vector<KeptPart>* leaving) {
  leaving_ = leaving;
  passes(p);
  return std::move(shelf_script_);
}

void ChunkBench::acquire(const std::vector<int>& order, std::size_t k) {
  if (shelved_) return;
  hook([&] {
    store_->acquire(order[k]);
    if (k + 1 < order.size()) store_->prefetch(order[k + 1]);
  });
}

void ChunkBench::release(int unit) {
  if (shelved_) return;
  hook([&] { store_->release(unit); });
}

void ChunkBench::ready(int unit, bool last) {
  if (shelved_) return;
  hook([&] {
    if (unit < norm()) return store_->ready(unit, j_, last);
    store_->ready(head(), j_, last);
    store_->ready(norm(), j_, last);
  });
}

// A part's backward or weight gradients, which units' first gradients divide; the store says whether they
// are the first of the step.
void ChunkBench::part(decltype(Item::what) what, const std::vector<int>& units) {
  if (shelved_) return;
  bool adds = false;
  put(what, 0, adds);
  for (std::size_t i = 0; i < units.size(); ++i) {
    hook([&] { adds = store_->leaf(locals_[units[i]], store_->sample(j_, 0)).add; });
    put(what, static_cast<int>(i) + 1, adds);
  }
}

std::vector<int> ChunkBench::weighed(bool now, std::vector<int> units) const {
  return now ? std::move(units) : std::vector<int>{};
}

void ChunkBench::forward() {
  std::vector<int> order;
  if (first_) order.push_back(0);
  for (int l = 0; l < layers_; ++l) order.push_back(l + 1);
  std::size_t k = 0;
  if (first_) {
    acquire(order, k++);
    put(Item::embedding, 0, false);
    release(0);
  }
  at_shelf(-1, [&] { shelf_->settle(); });
  for (int l = 0; l < layers_; ++l) {
    block(l);
    acquire(order, k++);
    put(Item::layer, 0, false);
    release(l + 1);
    Saved saved;
    if (shelved_) saved = saved_of(*kept_[static_cast<std::size_t>(l)]), skip();
    at_shelf(l, [&] { shelf_->put(l, j_, saved); });
  }
}

void ChunkBench::backward(bool weights_now, bool last) {
  std::vector<int> order;
  if (last_) order = {head(), norm()};
  for (int l = layers_; l-- > 0;) order.push_back(l + 1);
  std::vector<Saved> saved(static_cast<std::size_t>(layers_));
  at_shelf(-1, [&] {
    shelf_->settle();
    shelf_->prefetch(layers_ - 1, j_, saved.back());
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
    at_shelf(layers_ - 1 - l, [&] {
      shelf_->bring(l, j_, saved[l]);
      if (l > 0) shelf_->prefetch(l - 1, j_, saved[l - 1]);
    });
    part(Item::layer, weighed(weights_now, {l + 1}));
    if (shelved_) saved[l] = {}, skip();
    release(l + 1);
    if (weights_now) ready(l + 1, last);
  }
  if (!first_) return;
  position_ = layers_;
  part(Item::embedding, weighed(weights_now, {0}));
  if (weights_now) ready(0, last);
}

void ChunkBench::weight_grads(bool last) {
  if (last_) part(Item::head, {head(), norm()}), ready(norm(), last);
  for (int l = layers_; l-- > 0;) {
    block(layers_ - 1 - l);
    part(Item::layer, {l + 1}), ready(l + 1, last);
  }
  if (first_) part(Item::embedding, {0}), ready(0, last);
}

}  // namespace lockstep
