// What a run of layers does in one pass, and a stage in the step's update: the parts of layer_programs.hpp
// with the plan's real store, shelf and home called where a chunk calls them (parallel/chunk.cpp). Stores and
// shelves know nothing of each other: each is traced alone, and they are put together with the parts.
#pragma once
#include <compare>
#include <map>
#include <optional>
#include <tuple>

#include "suites/planner/chunks/layer_programs.hpp"

namespace lockstep {

// Of many layers the third stands for all between the second and the fourth.
inline constexpr int kBlocks = 5;

// A run of layers as far as its cost goes.
struct ChunkShape {
  std::vector<int> classes;          // of its layers, in order
  bool first = false, last = false;  // of the model
  auto operator<=>(const ChunkShape&) const = default;
};

// Which gradient a store may still be reducing when a backward begins.
enum class Pending { nothing, own, layer, embedding };  // this chunk's lowest unit; another's lowest

struct PassShape {
  Pass pass = Pass::forward;
  bool first = true, last = false;  // microbatch of the chunk: the first weight gradient, the last one
  // 1 + class of the layer that the forward before left to its shelf and is on its way out; 0: none.
  int leaving = 0;
  Pending pending = Pending::nothing;
  bool pending_first = true;  // that gradient was the first of its step
  bool pending_last = false;  // or the last, where that makes a difference
  auto operator<=>(const PassShape&) const = default;
};

// What a pass is made of: operations of the store, and between them the parts and the shelf's calls. Layers
// follow each other in blocks; of many layers one block stands for all in the middle, and is repeated.
struct PassScript {
  struct Item {
    enum { hook, shelf, embedding, head, layer } what = hook;  // shelf: it is called here
    Program program{};                                         // of a hook
    int index = 0;                                             // of a part: which of its programs
    bool adds = false;
    int position = 0;  // of a layer in the order of the pass, of a shelf's call
  };
  std::vector<Item> items;
  // Items [from, to) are one layer's; it occurs `times` in all, each with `requests` more than before.
  std::size_t from = 0, to = 0;
  int times = 1, requests = 0;
  int all_requests = 0;  // of the items as they are
};

// A shelf's calls: before the layers, then one a layer in the order of the pass. The third layer's stands for
// `times`, each with `requests` more than before.
struct ShelfScript {
  std::vector<Program> programs;
  int times = 1, requests = -1;  // -1: none stands for many
};

// Of a chunk of so many layers. What a forward left to a shelf makes no difference.
PassScript pass_script(const Run&, const Costs&, int layers, bool first, bool last, const PassShape&);
// That of another number of layers, where one layer of it stands for many. Nothing: it is no such script, or
// the layers are too few.
std::optional<PassScript> with_layers(const PassScript&, int layers);
// The same of a shelf. Nothing: no call stands for many, or the layers are too few.
std::optional<ShelfScript> with_layers(const ShelfScript&, int layers);
// Of layers that leave `kept`; the pass and what came before it, `leaving` if any, are all that matters of
// the shape.
ShelfScript shelf_script(const Run&, const Costs&, const std::vector<const std::vector<KeptPart>*>& kept,
                         const PassShape&, const std::vector<KeptPart>* leaving);

// With its parts put in, and the shelf's calls where there are any.
Program whole_program(const PassScript&, const ShelfScript&, const LayerPrograms&, const ChunkShape&, Pass);
struct QuickProgram {
  Transit transit;
  Live live;
  double issue = 0;
};
// Of it, what is soon said: bytes, and seconds of work alone.
struct Total {
  Live live;
  double work = 0;
  void then(const Live&, double seconds);
  void then(const Total& next) { then(next.live, next.work); }
};
Total repeated(const Total&, i64 times);
Total total_of(const PassScript&, const ShelfScript&, const LayerPrograms&, const ChunkShape&, Pass);
QuickProgram quick_program(const PassScript&, const ShelfScript&, const LayerPrograms&, const ChunkShape&,
                           Pass);

// After the last microbatch: up to the gradient of a tied weight, up to the norm's message, up to the
// losses'.
struct UpdateProgram {
  Program arrive, norm, update;
  double tied = 0;  // seconds of the message that joins a tied weight's gradients, between arrive and norm
  std::array<i64, 3> kept{};  // bytes by medium that set-up takes: weights, gradients, moments
  i64 weights = 0;            // elements of the stage on a tp rank, whether another dp rank keeps them or not
};
// What an optimizer that works through blocks took, by its words and the pieces it was given: many plans have
// the same.
struct OptimizerSteps {
  using Pieces = std::vector<std::tuple<i64, Type, Type>>;  // elements; of weights, of gradients
  std::map<std::pair<std::string, Pieces>, Instruction> seconds;
};
// Of a few layers, those of upper chunks apart; and of more, by those of two numbers of layers that follow
// each other.
UpdateProgram update_program(const Run&, const Costs&, int layers, bool first, bool last,
                             bool first_microbatch, OptimizerSteps& known,
                             const std::vector<int>& apart = {});
UpdateProgram update_program(const UpdateProgram& fewer, const UpdateProgram& one_more, i64 further);

}  // namespace lockstep
