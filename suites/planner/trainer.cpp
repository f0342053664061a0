#include "suites/planner/trainer.hpp"

#include <algorithm>

namespace lockstep {

std::vector<int> balanced_stages(const ModelConfig& m, int stages) {
  const double kv = static_cast<double>(m.kv_heads * m.head_dim), width = static_cast<double>(m.hidden);
  const double layer = width * (2 * static_cast<double>(m.heads * m.head_dim) + 2 * kv +
                                3 * static_cast<double>(m.intermediate));
  const double all = static_cast<double>(m.layers) * layer + width * static_cast<double>(m.vocab);
  std::vector<int> first{0};
  for (int l = 0; l < m.layers; ++l)
    if (static_cast<int>(first.size()) < stages &&
        static_cast<double>(l + 1) * layer > all * static_cast<double>(first.size()) / stages)
      first.push_back(l + 1);
  first.resize(static_cast<std::size_t>(stages) + 1, static_cast<int>(m.layers));
  return first;
}

namespace {

// From a pass's beginning, or to its end.
void add(PartPass& pass, bool end, i64 bytes) {
  if (pass.programs.empty()) return;
  Live here, &live = (end ? pass.programs.back() : pass.programs.front()).live;
  here.add(0, bytes);
  if (end)
    live.then(here);
  else
    here.then(live), live = here;
}

}  // namespace

LayerPrograms hold(const OtherTrainer& f, const Run& run, LayerPrograms p) {
  const double tokens =
      static_cast<double>(run.plan.number("micro") * in_segments(run.settings, run.plan).seq);
  const int tp = run.plan.number("tp");
  const i64 logits = static_cast<i64>(f.logit_bytes * tokens * static_cast<double>(run.model.vocab) / tp);
  const double ffn = f.ffn_bytes * static_cast<double>(run.model.intermediate) / tp;
  const double gathered = tp > 1 ? f.gathered_bytes * static_cast<double>(run.model.hidden) : 0;
  const i64 kept = static_cast<i64>(tokens * (ffn + gathered));
  for (PartPass& pass : p.head.backward) add(pass, false, logits), add(pass, true, -logits);
  if (run.plan.text("ckpt") == "full") return p;
  for (PartPrograms& layer : p.classes) {
    add(layer.forward, true, kept);
    for (PartPass& pass : layer.backward) add(pass, true, -kept);
  }
  return p;
}

}  // namespace lockstep
