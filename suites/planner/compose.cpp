#include "suites/planner/compose.hpp"

#include <algorithm>
#include <map>

#include "suites/planner/chunk_programs.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/pipeline.hpp"

namespace lockstep {
namespace {

// The plan's values of the words that strategies of a role listen to.
template <class Role>
std::string words_of(const Plan& plan) {
  std::string text = std::string(chosen<Role>(plan).name) + ":";
  for (const Word& word : chosen<Role>(plan).words) text += plan.text(word.name) + ",";
  return text;
}

std::vector<ChunkShape> chunk_shapes(const LayerPrograms& parts, i64 layers, int chunks) {
  std::vector<ChunkShape> shapes;
  for (int c = 0; c < chunks; ++c) {
    const auto [from, to] = layers_of(c, chunks, layers);
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
  std::map<std::pair<std::string, std::pair<ChunkShape, PassShape>>, Program> passes;
  std::map<std::tuple<std::string, ChunkShape, bool>, UpdateProgram> updates;
};

Composer::Composer(const ModelConfig& model, const Settings& settings, const Cluster& cluster)
    : memory_(new Memory{model, settings, cluster, {}, {}, {}}) {}
Composer::~Composer() = default;

Prediction Composer::predict(const Plan& plan) {
  Memory& m = *memory_;
  const Run run{m.model, m.settings, plan};
  const Mesh mesh = run.mesh();
  const CostModel model(m.cluster, mesh);
  const Costs costs = model.costs();

  const std::unique_ptr<Schedule> schedule = make_schedule(run);
  const int chunks = schedule->chunks_per_stage() * mesh.pp;
  const int microbatches = static_cast<int>(m.settings.batch / mesh.dp / plan.number("micro"));
  std::vector<std::vector<Action>> actions;
  bool split = false;
  for (int stage = 0; stage < mesh.pp; ++stage) {
    actions.push_back(schedule->actions(stage, mesh.pp, microbatches));
    for (const Action& a : actions.back()) split |= a.pass == Pass::weight_grad;
  }

  const std::string mesh_words = plan.text("tp") + "," + plan.text("micro") + (split ? ",split;" : ";");
  const std::string inner = mesh_words + words_of<Seam>(plan) + words_of<Stash>(plan);
  const std::string outer = plan.text("dp") + ";" + words_of<Store>(plan) + words_of<Home>(plan);
  const std::string both = inner + outer + words_of<Shelf>(plan);
  const auto parts = m.parts.find(inner);
  const LayerPrograms& layers =
      parts != m.parts.end() ? parts->second
                             : m.parts.emplace(inner, layer_programs(run, costs, split)).first->second;
  const std::vector<ChunkShape> shapes = chunk_shapes(layers, m.model.layers, chunks);

  Pipeline pipeline(run, mesh, model, chunks, microbatches, actions);
  pipeline.program = [&](int chunk, const PassShape& pass) -> const Program& {
    const auto key = std::pair{both, std::pair{shapes[chunk], pass}};
    auto it = m.passes.find(key);
    if (it == m.passes.end())
      it = m.passes.emplace(key, chunk_program(run, costs, layers, shapes[chunk], pass)).first;
    return it->second;
  };
  pipeline.update = [&](int stage, bool first_microbatch) -> const UpdateProgram& {
    ChunkShape all;
    for (int c = stage; c < chunks; c += mesh.pp) {
      all.classes.insert(all.classes.end(), shapes[c].classes.size(), 0);
      all.first |= shapes[c].first, all.last |= shapes[c].last;
    }
    const auto key = std::tuple{plan.text("tp") + "," + (mesh.pp > 1 ? "pp;" : ";") + words_of<Seam>(plan) + outer, all, first_microbatch};
    auto it = m.updates.find(key);
    if (it == m.updates.end())
      it = m.updates.emplace(key, update_program(run, costs, all, first_microbatch)).first;
    return it->second;
  };
  return pipeline.run();
}

}  // namespace lockstep
