// A rank that holds some layers alone, with the plan's real store and home or with its real shelf, on a
// device that only notes: what chunk_programs.hpp and the update are traced from.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <vector>

#include "parallel/device/noting.hpp"
#include "suites/planner/chunks/chunk_programs.hpp"

namespace lockstep {

// Enough for a first one, another one, and one whose activations are leaving.
inline constexpr int kMicrobatches = 3;

class ChunkBench {
 public:
  using Kept = std::vector<const std::vector<KeptPart>*>;
  // With `kept`: the shelf's side of a chunk, else the store's. `apart`: of a stage's layers, how many each
  // of its chunks but the lowest has.
  ChunkBench(const Run& run, const Costs& costs, int layers, bool first, bool last, const Kept& kept,
             Pending pending, const std::vector<int>& apart = {});
  PassScript pass(const PassShape& p);
  ShelfScript shelf_pass(const PassShape& p, const std::vector<KeptPart>* leaving);
  // Where each layer's items begin in the script, and behind them how many requests there were.
  const std::vector<std::pair<std::size_t, int>>& blocks() const { return blocks_; }

  UpdateProgram update(bool first_microbatch, int pp, OptimizerSteps& known);

 private:
  static Run alone(const Run& run, int layers, bool store);
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
    if (hooks.instructions.empty() && hooks.live.now == Live{}.now && hooks.live.most == Live{}.most) return;
    PassScript::Item item;
    item.program = std::move(hooks);
    script_.items.push_back(std::move(item));
  }
  void block(int position) {
    if (shelved_) return;
    flush();
    position_ = position;
    blocks_.emplace_back(script_.items.size(), requests_);
  }
  using Item = PassScript::Item;
  void put(decltype(Item::what) what, int index, bool adds) {
    if (shelved_) return;
    flush();
    Item item;
    item.what = what, item.index = index, item.adds = adds, item.position = position_;
    script_.items.push_back(std::move(item));
  }
  // Calls the shelf on its own side; on the store's, marks where. -1: before the layers.
  template <class Action>
  void at_shelf(int position, const Action& action) {
    if (shelved_) {
      hook(action);
      shelf_script_.programs.push_back(writer_.take());
    } else {
      put(Item::shelf, 0, false);
      script_.items.back().position = position;
    }
  }

  std::array<i64, 3> taken() const;

  // What happened before.
  Saved saved_of(const std::vector<KeptPart>& kept);
  void shelve(int layer, int j, const std::vector<KeptPart>& kept);
  void shelve_all();
  void reduce_before(const PassShape& p);

  // The passes, as parallel/chunk.cpp has them.
  void acquire(const std::vector<int>& order, std::size_t k);
  void release(int unit);
  void ready(int unit, bool last);
  void part(decltype(Item::what) what, const std::vector<int>& units);
  std::vector<int> weighed(bool now, std::vector<int> units) const;
  void before(const PassShape& p);
  void passes(const PassShape& p);
  void forward();
  void backward(bool weights_now, bool last);
  void weight_grads(bool last);

  // The update, as parallel/executor.cpp has it.
  void join_tied(const std::vector<Piece>& pieces, int pp, UpdateProgram& u);
  void step(const std::vector<Piece>& pieces, OptimizerSteps& known);

  const int layers_;
  const bool first_, last_;
  const Kept& kept_;
  const Run run_;
  const Settings settings_;  // as a rank sees them
  const Mesh mesh_;
  NotingDevice noting_;
  Device& device_ = noting_.device;
  const Trace& trace_ = noting_.trace;
  ProgramWriter writer_;
  const Costs& costs_;
  Context context_;
  std::size_t seen_ = 0;
  LocalParams params_;
  std::vector<std::vector<int>> order_;
  std::vector<int> locals_;  // by unit: its first parameter
  std::unique_ptr<Seam> seam_;
  std::unique_ptr<Home> home_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Shelf> shelf_;
  bool shelved_ = false;
  const std::vector<KeptPart>* leaving_ = nullptr;
  int j_ = 0, position_ = 0, requests_ = 0;
  PassScript script_;
  ShelfScript shelf_script_;
  std::vector<std::pair<std::size_t, int>> blocks_;
  std::vector<Instruction> optimizer_;
};

}  // namespace lockstep
