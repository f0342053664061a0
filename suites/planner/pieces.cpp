#include "suites/planner/pieces.hpp"

#include <algorithm>

#include "parallel/contract.hpp"
#include "parallel/device/noting.hpp"
#include "suites/planner/trainer.hpp"

namespace lockstep {
namespace {

// The plan's values of the words that strategies of a role listen to.
template <class Role>
void say_words(const Plan& plan, std::string& text) {
  const Strategy<Role>& role = chosen<Role>(plan);
  text += role.name;
  for (const Word& word : role.words) text += ',', text += plan.text(word.name);
  text += ';';
}

// Stores see of a seam what it leaves of each parameter: the slices of a layer and of the ends, in words.
std::string slices(const Run& run, const Mesh& mesh) {
  static thread_local NotingDevice noting;
  Run one = run;
  one.model.layers = 1;
  const Settings seen = in_segments(one.settings, one.plan);
  const auto seam = made<Seam>({one.model, seen, one.plan, mesh, 0, noting.device});
  std::string text;
  for (const Param& p : parameter_table(one.model, one.settings.leaves)) {
    const Slice s = seam->slice(p);
    for (const i64 n : {s.row, s.rows, s.col, s.cols, static_cast<i64>(s.replicated)})
      text += std::to_string(n) + ",";
  }
  return text;
}

bool splits_backward(const Schedule& schedule, int stages) {
  for (const Action& a : schedule.actions(0, stages, 1))
    if (a.pass == Pass::weight_grad) return true;
  return false;
}

}  // namespace

Pieces::Pieces(const ModelConfig& model, const Settings& settings, const Cluster& cluster)
    : model_(model), settings_(settings), cluster_(cluster) {}

PlanPieces::PlanPieces(Pieces& known, const Plan& plan)
    : run{known.model_, known.settings_, plan},
      mesh(run.mesh()),
      model(known.cluster_, mesh, hand_over_shares(known.cluster_, run)),
      costs(model.costs()),
      schedule(make_schedule(run)),
      chunks(chunks_of(run.plan, *schedule, mesh.pp, run.model.layers)),
      microbatches(static_cast<int>(known.settings_.batch / plan.number("dp") / plan.number("micro"))),
      numbers(shape_of(run.plan, run.model, run.settings, 0)),
      shelved(chosen<Shelf>(plan).wants != nullptr),
      known_(known) {
  Pieces& k = known;
  // What a layer is on one rank, and where the ranks are.
  const std::string inside = plan.text("tp") + "," + plan.text("cp");
  const std::string at = plan.text("dp") + "," + inside + "," + plan.text("pp");
  if (inside != k.inside_)
    k.parts_.clear(), k.slices_.clear(), k.shelves_.clear(), k.inside_ = inside, k.last_.clear();
  if (at != k.mesh_)
    k.scripts_.clear(), k.updates_.clear(), k.courses_.clear(), k.mesh_ = at, k.last_.clear();

  const bool split = splits_backward(*schedule, mesh.pp);
  std::string seam;
  say_words<Seam>(plan, seam), say_words<Spread>(plan, seam);
  const OtherTrainer& trainer = k.cluster_.trainer;
  std::string inner = plan.text("micro") + (split ? ",split;" : ";") + seam;
  if (mesh.pp > 1 && trainer.staged_issue > 0) inner += "staged;";
  say_words<Stash>(plan, inner);
  std::string stored, home, away;
  say_words<Store>(plan, stored);
  stored += plan.text("replicas") + ";";
  say_words<Home>(plan, home);
  say_words<Shelf>(plan, away);

  parts_ = &k.parts_[inner];
  if (parts_->layers.classes.empty())
    parts_->layers =
        hold(trainer, run, layer_programs(run, costs, split, k.cluster_.recomputes_whole_layers));
  const bool balanced = trainer.balanced_stages && chunks == mesh.pp;
  const auto [cut, fresh] = parts_->of_chunks.try_emplace({chunks, balanced});
  if (fresh) {
    const std::vector<int> first_of = balanced ? balanced_stages(run.model, chunks) : std::vector<int>{};
    for (int c = 0; c < chunks; ++c) {
      auto [from, to] = layers_of(c, chunks, run.model.layers);
      if (balanced) from = first_of[c], to = first_of[c + 1];
      const auto& of = parts_->layers.class_of;
      const ChunkShape shape{{of.begin() + from, of.begin() + to}, c == 0, c == chunks - 1};
      auto& all = parts_->shapes;
      const auto it = std::find(all.begin(), all.end(), shape);
      cut->second.push_back(static_cast<int>(it - all.begin()));
      if (it == all.end()) all.push_back(shape);
    }
  }
  shapes_ = &cut->second;

  std::string& left = k.slices_[seam];
  if (left.empty()) left = slices(run, mesh);
  // Of a home, stores see where weights rest.
  const Kind rest = chosen<Home>(plan).price.rest(numbers);
  scripts_ = &k.scripts_[left + stored + std::to_string(static_cast<int>(rest))];
  updates_ = &k.updates_[left + stored + home];
  if (shelved) {
    kept_ = away + plan.text("micro");
    if (parts_->layers.classes.size() > kClasses)
      throw std::logic_error("layers of more classes than expected");
    for (int c = 0; c < chunks; ++c) {
      const std::vector<int>& of = chunk_shape(c).classes;
      leaving_.push_back(of.empty() ? 0 : 1 + of.back());
    }
    for (const PartPrograms& of : parts_->layers.classes) {
      kept_ += ';';
      for (const KeptPart& part : of.kept)
        for (const i64 n : {i64{part.part}, part.elements, static_cast<i64>(part.type)})
          kept_ += std::to_string(n) + ",";
    }
  }
  if (const std::string both = inner + away + stored + home; both != k.last_)
    k.totals_.clear(), k.costs_.clear(), k.last_ = both;
}

const PassScript& PlanPieces::script(const ChunkShape& shape, PassShape pass) {
  const int n = static_cast<int>(shape.classes.size());
  pass.leaving = 0;
  const auto key = [&](int layers) {
    return std::pair{Pieces::Layers{layers, shape.first, shape.last}, pass};
  };
  auto it = scripts_->find(key(n));
  if (it != scripts_->end()) return it->second;
  // Longer chunks differ in how often one layer is repeated.
  constexpr int kAny = -1;
  const auto like = scripts_->find(key(kAny));
  auto other = like == scripts_->end() ? std::optional<PassScript>{} : with_layers(like->second, n);
  if (!other) {
    other = pass_script(run, costs, n, shape.first, shape.last, pass);
    if (with_layers(*other, n)) scripts_->try_emplace(key(kAny), *other);
  }
  return scripts_->emplace(key(n), std::move(*other)).first->second;
}

const ShelfScript& PlanPieces::shelf(const ChunkShape& shape, const PassShape& pass) {
  static const ShelfScript nothing;
  if (!shelved || pass.pass == Pass::weight_grad || shape.classes.empty()) return nothing;
  auto& shelves = known_.shelves_[kept_];
  const bool forward = pass.pass == Pass::forward;
  const int n = static_cast<int>(shape.classes.size());
  const auto key = [&](int layers) {
    const bool one = std::equal(shape.classes.begin() + 1, shape.classes.end(), shape.classes.begin());
    return std::tuple{one ? std::vector{shape.classes.front()} : shape.classes, layers, forward,
                      pass.leaving};
  };
  auto it = shelves.find(key(n));
  if (it != shelves.end()) return it->second;
  constexpr int kAny = -1;
  const auto like = shelves.find(key(kAny));
  auto other = like == shelves.end() ? std::optional<ShelfScript>{} : with_layers(like->second, n);
  if (!other) {
    std::vector<const std::vector<KeptPart>*> kept;
    for (const int c : shape.classes)
      kept.push_back(&parts_->layers.classes[static_cast<std::size_t>(c)].kept);
    const auto& classes = parts_->layers.classes;
    const auto* leaving = pass.leaving ? &classes[static_cast<std::size_t>(pass.leaving - 1)].kept : nullptr;
    other = shelf_script(run, costs, kept, pass, leaving);
    if (with_layers(*other, n)) shelves.try_emplace(key(kAny), *other);
  }
  return shelves.emplace(key(n), std::move(*other)).first->second;
}

Total PlanPieces::total(int chunk, const PassShape& pass) {
  const std::size_t key = static_cast<std::size_t>(shape(chunk)) * kPassShapes + number_of(pass);
  if (const Total* known = known_.totals_.find(key)) return *known;
  const ChunkShape& c = chunk_shape(chunk);
  return known_.totals_.add(key, total_of(script(c, pass), shelf(c, pass), parts_->layers, c, pass.pass));
}

const PassCost& PlanPieces::cost(int chunk, const PassShape& pass, bool whole) {
  const std::size_t key =
      (static_cast<std::size_t>(shape(chunk)) * kPassShapes + number_of(pass)) * 2 + whole;
  if (const PassCost* known = known_.costs_.find(key)) return *known;
  const ChunkShape& c = chunk_shape(chunk);
  const PassScript& s = script(c, pass);
  const ShelfScript& away = shelf(c, pass);
  PassCost cost;
  cost.quick = quick_program(s, away, parts_->layers, c, pass.pass);
  if (whole) cost.program = whole_program(s, away, parts_->layers, c, pass.pass);
  return known_.costs_.add(key, std::move(cost));
}

const UpdateProgram& PlanPieces::update(int stage, bool first_microbatch) {
  int n = 0;
  bool first = false, last = false;
  for (int c = stage; c < chunks; c += mesh.pp) {
    const ChunkShape& shape = chunk_shape(c);
    n += static_cast<int>(shape.classes.size()), first |= shape.first, last |= shape.last;
  }
  // Of buckets that ranks carry, the last one of each chunk may be smaller than the others.
  if (!costs.messages_block || chosen<Store>(run.plan).price.reduced_together(numbers) == 1)
    return update_of({n, first, last}, first_microbatch);
  const auto it = own_updates_.find({stage, first_microbatch});
  if (it != own_updates_.end()) return it->second;
  std::vector<int> apart;
  for (int c = chunks - mesh.pp + stage; c >= mesh.pp; c -= mesh.pp)
    apart.push_back(static_cast<int>(chunk_shape(c).classes.size()));
  return own_updates_
      .emplace(std::pair{stage, first_microbatch}, whole_update({n, first, last}, first_microbatch, apart))
      .first->second;
}

UpdateProgram PlanPieces::whole_update(const Pieces::Layers& layers, bool first_microbatch,
                                       const std::vector<int>& apart) {
  const auto [n, first, last] = layers;
  UpdateProgram u = update_program(run, costs, n, first, last, first_microbatch, known_.steps_, apart);
  u.kept[0] += static_cast<i64>(known_.cluster_.trainer.weight_bytes * static_cast<double>(u.weights));
  return u;
}

const UpdateProgram& PlanPieces::update_of(const Pieces::Layers& layers, bool first_microbatch) {
  const auto it = updates_->find({layers, first_microbatch});
  if (it != updates_->end()) return it->second;
  const auto [n, first, last] = layers;
  UpdateProgram u;
  if (n <= kBlocks) {
    u = whole_update(layers, first_microbatch, {});
  } else {
    u = update_program(update_of({kBlocks - 1, first, last}, first_microbatch),
                       update_of({kBlocks, first, last}, first_microbatch), n - kBlocks);
  }
  return updates_->emplace(std::pair{layers, first_microbatch}, std::move(u)).first->second;
}

const Course& PlanPieces::course() {
  const bool each = chosen<Store>(run.plan).price.reduces_each_microbatch(numbers);
  const bool over_replicas = mesh.replicas > 1;
  std::string key = std::to_string(microbatches) + (each ? ",each" : ",") + (over_replicas ? ",over" : ",") +
                    (shelved ? ",shelved;" : ";");
  for (const int left : leaving_) key += std::to_string(left);
  say_words<Schedule>(run.plan, key);
  Course& c = known_.courses_[key];
  if (c.stages.empty()) c = lockstep::course(run.plan, *schedule, mesh.pp, microbatches, each, leaving_);
  return c;
}

}  // namespace lockstep
