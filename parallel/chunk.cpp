#include "parallel/chunk.hpp"

#include <algorithm>

#include "parallel/mutant.hpp"

namespace lockstep {

Chunk::Chunk(const Rank& r, int chunk, int chunks, int microbatches, const Inputs& in)
    : r_(r), norm_unit_(static_cast<int>(r.model.layers) + 1), microbatch_(microbatches) {
  const auto [from, to] = layers_of(chunk, chunks, r.model.layers);
  for (int l = from; l < to; ++l) layers_.emplace_back(r, l, in.cos, in.sin);
  if (chunk == 0) {
    embedding_ = std::make_unique<Embedding>(r, in.ids);
    forward_units_.push_back(0);
  }
  if (chunk == chunks - 1) {
    head_ = std::make_unique<Head>(r, in.labels, in.losses);
    backward_units_ = {norm_unit_ + 1, norm_unit_};
  }
  for (const Layer& l : layers_) forward_units_.push_back(l.unit());
  for (auto l = layers_.rbegin(); l != layers_.rend(); ++l) backward_units_.push_back(l->unit());
  for (Microbatch& mb : microbatch_)
    mb.saved.resize(layers_.size()), mb.later.reserve(9 * layers_.size() + 3);
}

// Makes the k-th unit of a pass whole, and lets the next one come.
void Chunk::acquire(const std::vector<int>& order, std::size_t k) {
  r_.store.acquire(order[k]);
  if (k + 1 < order.size()) r_.store.prefetch(order[k + 1]);
}

Buf Chunk::forward(int j, Buf x) {
  std::size_t k = 0;
  if (embedding_) {
    acquire(forward_units_, k++);
    x = embedding_->forward(j);
    r_.store.release(0);
  }
  r_.device.show(2 * layers_.front().index(), r_.store.sample(j, 0), r_.b, x);
  r_.shelf.settle();
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Saved& saved = microbatch_[j].saved[l];
    x.relabel(Kind::activations);
    acquire(forward_units_, k++);
    x = layers_[l].forward(j, std::move(x), saved);
    r_.store.release(layers_[l].unit());
    r_.shelf.put(layers_[l].index(), j, saved);
  }
  if (!head_) return x;
  x.relabel(Kind::activations);
  microbatch_[j].end = std::move(x);
  return {};
}

// A unit's weight gradients of this microbatch are in. Final norm and head come together.
void Chunk::announce(int unit, int j, bool last) {
  if (mutant("gradients reduced at the first microbatch")) last = j == 0;
  if (unit < norm_unit_) return r_.store.ready(unit, j, last);
  r_.store.ready(norm_unit_ + 1, j, last);
  r_.store.ready(norm_unit_, j, last);
}

Buf Chunk::backward(int j, Buf dy, float loss_scale, bool weights_now, bool last) {
  Microbatch& mb = microbatch_[j];
  WorkList* later = weights_now ? nullptr : &mb.later;
  r_.shelf.settle();
  r_.shelf.prefetch(layers_.back().index(), j, mb.saved.back());
  std::size_t k = 0;
  if (head_) {
    acquire(backward_units_, k++), acquire(backward_units_, k++);
    dy = head_->backward(j, std::move(mb.end), loss_scale, later);
    r_.store.release(norm_unit_ + 1), r_.store.release(norm_unit_);
    if (weights_now) announce(norm_unit_, j, last);
  }
  for (std::size_t l = layers_.size(); l-- > 0;) {
    acquire(backward_units_, k++);
    r_.shelf.bring(layers_[l].index(), j, mb.saved[l]);
    if (l > 0) r_.shelf.prefetch(layers_[l - 1].index(), j, mb.saved[l - 1]);
    dy = layers_[l].backward(j, mb.saved[l], std::move(dy), later);
    r_.store.release(layers_[l].unit());
    if (weights_now) announce(layers_[l].unit(), j, last);
  }
  if (!embedding_) return dy;
  embedding_->backward(j, std::move(dy), later);
  if (weights_now) announce(0, j, last);
  return {};
}

void Chunk::weight_grads(int j, bool last) {
  WorkList& list = microbatch_[j].later;
  auto unit = [&](const WeightWork& w) { return std::min(r_.params.all[w.local].unit, norm_unit_); };
  for (std::size_t i = 0; i < list.size(); ++i) {
    run_weight_work(r_, list[i], j);
    const int done = unit(list[i]);
    if (i + 1 == list.size() || unit(list[i + 1]) != done) announce(done, j, last);
    list[i] = {};
  }
  list.clear();
}

}  // namespace lockstep
