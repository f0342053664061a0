#include "suites/planner/compose.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "suites/planner/chunk_programs.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/pipeline.hpp"
#include "suites/planner/trainer.hpp"

namespace lockstep {
namespace {

// The plan's values of the words that strategies of a role listen to.
template <class Role>
std::string words_of(const Plan& plan) {
  std::string text = std::string(chosen<Role>(plan).name) + ":";
  for (const Word& word : chosen<Role>(plan).words) text += plan.text(word.name) + ",";
  return text;
}

std::vector<ChunkShape> chunk_shapes(const LayerPrograms& parts, const Run& run, int chunks,
                                     const Trainer& trainer) {
  std::vector<ChunkShape> shapes;
  const bool balanced = trainer.balanced_stages && chunks == run.plan.number("pp");
  const std::vector<int> first_of = balanced ? balanced_stages(run.model, chunks) : std::vector<int>{};
  for (int c = 0; c < chunks; ++c) {
    auto [from, to] = layers_of(c, chunks, run.model.layers);
    if (balanced) from = first_of[c], to = first_of[c + 1];
    shapes.push_back({{parts.class_of.begin() + from, parts.class_of.begin() + to}, c == 0, c == chunks - 1});
  }
  return shapes;
}

}  // namespace

struct Composer::Memory {
  const ModelConfig& model;
  const Settings& settings;
  const Cluster& cluster;
  std::map<std::string, LayerPrograms> parts;
  using Layers = std::tuple<int, bool, bool>;  // how many, with the model's first, its last
  std::map<std::string, std::map<std::pair<Layers, PassShape>, PassScript>> scripts;
  std::map<std::string, std::map<std::pair<Layers, bool>, UpdateProgram>> updates;
  // By the layers' classes; a forward, or something that goes back; after a forward.
  std::map<std::string, std::map<std::tuple<std::vector<int>, bool, bool>, ShelfScript>> shelves;
  OptimizerSteps steps;
  std::string mesh;  // scripts and updates are of this one: plans are asked for mesh by mesh
  // Of the plans that were asked for last, which differ in their schedule alone.
  std::string last;
  std::map<std::pair<ChunkShape, PassShape>, PassCost> passes;
};

Composer::Composer(const ModelConfig& model, const Settings& settings, const Cluster& cluster)
    : memory_(new Memory{model, settings, cluster, {}, {}, {}, {}, {}, {}, {}, {}}) {}
Composer::~Composer() = default;

Prediction Composer::predict(const Plan& plan) { return compose(plan, Depth::whole, 0); }
Prediction Composer::weigh(const Plan& plan, double least) { return compose(plan, Depth::quick, least); }

namespace {

// What is said of m microbatches, of what is said of a, a + g and a + 2 g: each further g adds the same.
// Nothing: it does not.
std::optional<Prediction> beyond(const Prediction& x, const Prediction& y, const Prediction& z, int more) {
  Prediction p = z;
  const double step = z.seconds - y.seconds;
  if (std::abs(step - (y.seconds - x.seconds)) > 1e-9 * step) return {};
  p.seconds += more * step;
  for (std::size_t s = 0; s < p.stages.size(); ++s)
    for (std::size_t m = 0; m < 3; ++m) {
      const i64 grows = z.stages[s].live[m] - y.stages[s].live[m];
      if (grows != y.stages[s].live[m] - x.stages[s].live[m]) return {};
      p.stages[s].live[m] += more * grows;
    }
  return p;
}

}  // namespace

Prediction Composer::compose(const Plan& plan, Depth depth, double least) {
  const bool quick = depth == Depth::quick;
  Memory& m = *memory_;
  const Run run{m.model, m.settings, plan};
  const Mesh mesh = run.mesh();
  const CostModel model(m.cluster, mesh, hand_over_shares(m.cluster, run));
  const Costs costs = model.costs();
  const std::unique_ptr<Schedule> schedule = make_schedule(run);
  const int chunks = schedule->chunks_per_stage() * mesh.pp;
  const int microbatches = static_cast<int>(m.settings.batch / mesh.dp / plan.number("micro"));
  bool split = false;
  for (const Action& a : schedule->actions(0, mesh.pp, 1)) split |= a.pass == Pass::weight_grad;

  const std::string inner = plan.text("tp") + "," + plan.text("micro") + (split ? ",split;" : ";") +
                            (mesh.pp > 1 && m.cluster.trainer.staged_issue > 0 ? "staged;" : "") +
                            words_of<Seam>(plan) + words_of<Stash>(plan);
  const bool shelved = chosen<Shelf>(plan).wants != nullptr;
  const std::string mesh_words = plan.text("dp") + "," + plan.text("tp") + ";" + words_of<Seam>(plan);
  const std::string stored = mesh_words + words_of<Store>(plan) + words_of<Home>(plan);
  const std::string both = inner + stored + words_of<Shelf>(plan) + (quick ? "quick" : "");
  if (both != m.last) m.passes.clear(), m.last = both;
  const std::string at = plan.text("dp") + "," + plan.text("tp") + "," + plan.text("pp");
  if (at != m.mesh) m.scripts.clear(), m.updates.clear(), m.mesh = at;

  auto parts = m.parts.find(inner);
  if (parts == m.parts.end())
    parts = m.parts
                .emplace(inner, hold(m.cluster.trainer, run,
                                     layer_programs(run, costs, split, m.cluster.recomputes_whole_layers)))
                .first;
  const LayerPrograms& layers = parts->second;
  const std::vector<ChunkShape> shapes = chunk_shapes(layers, run, chunks, m.cluster.trainer);

  auto& scripts = m.scripts[stored];
  const auto script = [&](const ChunkShape& shape, PassShape pass) -> const PassScript& {
    const int n = static_cast<int>(shape.classes.size());
    pass.after_forward = false;
    const auto key = std::pair{Memory::Layers{n, shape.first, shape.last}, pass};
    auto it = scripts.find(key);
    if (it == scripts.end())
      it = scripts.emplace(key, pass_script(run, costs, n, shape.first, shape.last, pass)).first;
    return it->second;
  };
  auto& shelves = m.shelves[words_of<Shelf>(plan) + inner];
  const auto shelf = [&](const ChunkShape& shape, const PassShape& pass) -> const ShelfScript& {
    static const ShelfScript nothing;
    if (!shelved || pass.pass == Pass::weight_grad) return nothing;
    const auto [it, fresh] =
        shelves.try_emplace({shape.classes, pass.pass == Pass::forward, pass.after_forward});
    if (fresh) {
      std::vector<const std::vector<KeptPart>*> kept;
      for (const int c : shape.classes) kept.push_back(&layers.classes[static_cast<std::size_t>(c)].kept);
      it->second = shelf_script(run, costs, kept, pass);
    }
    return it->second;
  };
  auto& updates = m.updates[stored + (mesh.pp > 1 ? "pp" : "")];

  const auto update = [&](int stage, bool first_microbatch) -> const UpdateProgram& {
    int n = 0;
    bool first = false, last = false;
    for (int c = stage; c < chunks; c += mesh.pp) {
      const ChunkShape& shape = shapes[static_cast<std::size_t>(c)];
      n += static_cast<int>(shape.classes.size()), first |= shape.first, last |= shape.last;
    }
    const auto key = std::pair{Memory::Layers{n, first, last}, first_microbatch};
    auto it = updates.find(key);
    if (it == updates.end()) {
      UpdateProgram u = update_program(run, costs, n, first, last, first_microbatch, m.steps);
      u.kept[0] += static_cast<i64>(m.cluster.trainer.weight_bytes * static_cast<double>(u.weights));
      it = updates.emplace(key, std::move(u)).first;
    }
    return it->second;
  };
  const auto lack = [&](const Prediction& p) { return lacks(needs(p, m.cluster, mesh), has(m.cluster)); };
  if (quick) {
    Prediction kept;
    for (int stage = 0; stage < mesh.pp; ++stage) {
      kept.stages.emplace_back().live = update(stage, microbatches == 1).kept;
      // Stages between the ends are alike, or nearly.
      if (stage == 0) stage = std::max(0, mesh.pp - 2);
    }
    if (lack(kept) > least) return kept;
  }

  enum class Look { memory, time };
  const auto of = [&](int so_many, Look look) {
    std::vector<std::vector<Action>> actions;
    for (int stage = 0; stage < mesh.pp; ++stage)
      actions.push_back(schedule->actions(stage, mesh.pp, so_many));
    Pipeline pipeline(run, mesh, model, chunks, so_many, actions, quick);
    pipeline.cost = [&](int chunk, const PassShape& pass) -> const PassCost& {
      const ChunkShape& shape = shapes[static_cast<std::size_t>(chunk)];
      auto [it, fresh] = m.passes.try_emplace({shape, pass});
      if (fresh) {
        const PassScript& s = script(shape, pass);
        const ShelfScript& away = shelf(shape, pass);
        it->second.quick = quick_program(s, away, layers, shape, pass.pass);
        if (!quick) it->second.program = whole_program(s, away, layers, shape, pass.pass);
      }
      return it->second;
    };
    pipeline.update = update;
    if (look == Look::memory) return pipeline.memory();
    return pipeline.run();
  };

  // Schedules go through microbatches in groups of as many as there are stages at most. (Copies of
  // activations may lag further and further behind at first, and then be waited for: time is simulated over
  // all microbatches, bytes are not.)
  const int group = schedule->chunks_per_stage() > 1 ? mesh.pp : 1;
  const int some = (2 * mesh.pp / group + 2) * group + microbatches % group;
  const auto by_some = [&](Look look) {
    if (quick && (!shelved || look == Look::memory) && microbatches > some + 3 * group)
      if (const auto p = beyond(of(some, look), of(some + group, look), of(some + 2 * group, look),
                                (microbatches - some) / group - 2))
        return *p;
    return of(microbatches, look);
  };
  if (quick)
    if (const Prediction memory = by_some(Look::memory); lack(memory) > 0) return memory;
  return by_some(Look::time);
}

}  // namespace lockstep
