#include "suites/planner/chunks/chunk_bench.hpp"

namespace lockstep {
namespace {

Mesh one_stage(Mesh mesh) {
  mesh.pp = 1;
  return mesh;
}

}  // namespace

ChunkBench::ChunkBench(const Run& run, const Costs& costs, int layers, bool first, bool last,
                       const Kept& kept, Pending pending, const std::vector<int>& apart)
    : layers_(layers),
      first_(first),
      last_(last),
      kept_(kept),
      run_(alone(run, layers_ + (pending == Pending::layer) + static_cast<int>(apart.size()), kept.empty())),
      settings_(in_segments(run_.settings, run_.plan)),
      mesh_(one_stage(run.mesh())),
      writer_(costs),
      costs_(costs),
      context_{run_.model, settings_, run_.plan, mesh_, 0, device_} {
  device_.set_types(run_.settings);
  shelved_ = !kept.empty();
  if (shelved_) {
    shelf_ = made<Shelf>(context_);
    return;
  }
  seam_ = made<Seam>(context_);
  std::vector<int> units;
  if (first || pending == Pending::embedding) units.push_back(0);
  for (int l = 0; l < run_.model.layers; ++l) units.push_back(l + 1);
  // Between chunks lie those of other stages.
  int top = static_cast<int>(run_.model.layers);
  for (const int n : apart) top -= n, std::erase(units, top--);
  if (last) units.insert(units.end(), {norm(), head()});
  params_ = narrow(parameter_table(run_.model, run_.settings.leaves), static_cast<int>(run_.model.layers),
                   units, [&](const Param& p) { return seam_->slice(p); });
  order_.assign(params_.unit_elements.size(), {0, 1, 2});
  context_.params = &params_, context_.gradient_order = &order_;
  home_ = made<Home>(context_);
  context_.home = home_.get();
  store_ = made<Store>(context_);
  locals_.resize(params_.unit_elements.size(), -1);
  for (int l = static_cast<int>(params_.all.size()); l-- > 0;) locals_[params_.all[l].unit] = l;
}

Run ChunkBench::alone(const Run& run, int layers, bool store) {
  Run small = run;
  small.model.layers = layers;
  // In fast mode a microbatch's gradients are one sum, of however many sequences: a store does the same for
  // one.
  if (run.settings.fast && store) small.plan.set("micro", "1");
  small.settings.batch = i64{kMicrobatches} * small.plan.number("micro") * run.plan.number("dp");
  return small;
}

std::array<i64, 3> ChunkBench::taken() const {
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

// What happened before the pass.

Saved ChunkBench::saved_of(const std::vector<KeptPart>& kept) {
  Saved saved;
  for (const KeptPart& k : kept)
    saved.part[k.part] = device_.take("kept", Kind::activations, k.elements, k.type);
  return saved;
}

void ChunkBench::shelve(int layer, int j, const std::vector<KeptPart>& kept) {
  Saved saved = saved_of(kept);
  shelf_->put(layer, j, saved);
}

void ChunkBench::shelve_all() {
  for (int l = 0; l < layers_; ++l) shelve(l, j_, *kept_[static_cast<std::size_t>(l)]);
  shelf_->settle();
}

void ChunkBench::reduce_before(const PassShape& p) {
  const int unit = p.pending == Pending::embedding ? 0
                   : p.pending == Pending::layer   ? layers_ + 1
                   : first_                        ? 0
                                                   : 1;
  const int j = p.pending_first ? 0 : 1;
  store_->leaf(locals_[unit], store_->sample(j, 0));
  store_->ready(unit, j, p.pending_last);
}

}  // namespace lockstep
