// What a training program does that this project's executor does not (OtherTrainer, cluster.hpp), put upon
// what was traced.
#pragma once
#include "suites/planner/chunks/chunk_programs.hpp"
#include "suites/planner/cluster.hpp"

namespace lockstep {

// The first layer of each stage, and at the end the number of layers: a stage takes blocks until what has
// been dealt exceeds its share of all matmul weights, the head's included (nanotron's rule, models/base.py).
// The head stays on the last stage; stages before it may be left without layers.
std::vector<int> balanced_stages(const ModelConfig&, int stages);

// Memory that is held beside what was traced.
LayerPrograms hold(const OtherTrainer&, const Run&, LayerPrograms);

}  // namespace lockstep
