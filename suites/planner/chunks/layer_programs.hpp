// What the parts of a chunk do on one rank, traced from the real ones (parallel/layer.hpp, parallel/ends.hpp)
// with the plan's seam and stash, and a store and shelf that do nothing: those are added by
// chunk_programs.hpp.
#pragma once
#include <string>

#include "parallel/executor.hpp"
#include "suites/planner/chunks/program.hpp"

namespace lockstep {

// A pass of one part. Weight gradients of units go to the store on the way: the i-th unit's first one comes
// after the i-th program.
struct PartPass {
  std::vector<Program> programs;
  std::vector<int> units;  // one fewer than programs
};

// Kept from a layer's forward to its backward.
struct KeptPart {
  int part;
  i64 elements;
  Type type;
};

// `adds`: gradients are added to what is there, not the first of their step. With a split backward, `weights`
// are the pass of weight gradients.
struct PartPrograms {
  PartPass forward;
  PartPass backward[2], weights[2];  // by adds
  std::vector<KeptPart> kept;        // of a layer
};

struct LayerPrograms {
  std::vector<int> class_of;          // by layer: layers that keep the same are alike
  std::vector<PartPrograms> classes;  // of layers
  PartPrograms embedding, head;       // units 0; L+1 and L+2
};

// rank 0 of the mesh; the stage and the place in dp make no difference.
// `whole_again`: where a layer keeps its input alone, all of its forward is run again, its last sum too.
LayerPrograms layer_programs(const Run&, const Costs&, bool split_backward, bool whole_again);

}  // namespace lockstep
