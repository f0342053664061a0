// The pieces that plans are made of, each traced once and kept for the next plan that has it.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>

#include "suites/planner/chunks/chunk_programs.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/course.hpp"
#include "suites/planner/pipeline.hpp"

namespace lockstep {

// A layer, the embedding and the head of plans with the same tp, microbatch, seam and stash; and the chunks
// that a number of chunks cuts such a model into, evenly or by weights (OtherTrainer::balanced_stages).
struct Parts {
  LayerPrograms layers;
  std::vector<ChunkShape> shapes;
  std::map<std::pair<int, bool>, std::vector<int>>
      of_chunks;  // shapes by chunk; the number of chunks, by weights
};

// Pieces are asked for plan by plan. A change of tp or of the mesh forgets those that no other plan will have
// where plans come mesh by mesh.
class Pieces {
 public:
  // Keeps references.
  Pieces(const ModelConfig&, const Settings&, const Cluster&);

 private:
  friend class PlanPieces;
  template <class Value>
  using By = std::unordered_map<std::string, Value>;
  using Layers = std::tuple<int, bool, bool>;  // how many, with the model's first, its last
  // By shape and pass; a plan's are few.
  template <class Value>
  class Passes {
   public:
    const Value* find(std::size_t key) const {
      return key < at_.size() && at_[key] ? &all_[at_[key] - 1] : nullptr;
    }
    const Value& add(std::size_t key, Value value) {
      if (key >= at_.size()) at_.resize(key + 1);
      all_.push_back(std::move(value));
      at_[key] = static_cast<std::uint16_t>(all_.size());
      return all_.back();
    }
    void clear() { at_.clear(), all_.clear(); }

   private:
    std::vector<std::uint16_t> at_;  // 1 + place in `all_`; 0: none
    std::deque<Value> all_;
  };

  const ModelConfig& model_;
  const Settings& settings_;
  const Cluster& cluster_;
  std::string inside_, mesh_;  // what is kept is of these
  By<Parts> parts_;
  By<std::string> slices_;  // what a seam leaves of each parameter
  By<std::map<std::pair<Layers, PassShape>, PassScript>> scripts_;
  By<std::map<std::pair<Layers, bool>, UpdateProgram>> updates_;
  // By the layers' classes (one class: by their number); a forward, or something that goes back; what leaves.
  By<std::map<std::tuple<std::vector<int>, int, bool, int>, ShelfScript>> shelves_;
  By<Course> courses_;
  OptimizerSteps steps_;
  // Of the plans that were asked for last, which differ in their schedule alone.
  std::string last_;
  Passes<Total> totals_;
  Passes<PassCost> costs_;
};

// Those of one plan. The next plan's may forget them.
class PlanPieces {
 public:
  PlanPieces(Pieces&, const Plan&);
  PlanPieces(const PlanPieces&) = delete;
  const Run run;
  const Mesh mesh;
  const CostModel model;
  const Costs costs;
  const std::unique_ptr<Schedule> schedule;
  const int chunks, microbatches;
  const Shape numbers;  // of the first rank
  bool shelved = false;

  int shape(int chunk) const { return (*shapes_)[static_cast<std::size_t>(chunk)]; }
  const std::vector<int>& shapes() const { return *shapes_; }
  const std::vector<int>& leaving() const { return leaving_; }  // as PassShapes
  Total total(int chunk, const PassShape&);
  const PassCost& cost(int chunk, const PassShape&, bool whole);
  const UpdateProgram& update(int stage, bool first_microbatch);
  const Course& course();

 private:
  const ChunkShape& chunk_shape(int chunk) const {
    return parts_->shapes[static_cast<std::size_t>(shape(chunk))];
  }
  const PassScript& script(const ChunkShape&, PassShape);
  const UpdateProgram& update_of(const Pieces::Layers&, bool first_microbatch);
  UpdateProgram whole_update(const Pieces::Layers&, bool first_microbatch, const std::vector<int>& apart);
  const ShelfScript& shelf(const ChunkShape&, const PassShape&);

  Pieces& known_;
  std::string kept_;  // what layers leave to which shelf
  std::vector<int> leaving_;
  Parts* parts_ = nullptr;
  const std::vector<int>* shapes_ = nullptr;
  std::map<std::pair<Pieces::Layers, PassShape>, PassScript>* scripts_ = nullptr;
  std::map<std::pair<Pieces::Layers, bool>, UpdateProgram>* updates_ = nullptr;
  std::map<std::pair<int, bool>, UpdateProgram> own_updates_;  // by stage
};

}  // namespace lockstep
