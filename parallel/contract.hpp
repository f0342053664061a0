// What a schedule and a stash owe the executor, looked at where they are made, before it is run into: a
// StrategyError of one sentence that names the strategy and what is wrong.
#pragma once
#include "parallel/roles.hpp"

namespace lockstep {

const char* pass_name(Pass);

// Each microbatch goes once forward through each chunk of the stage, and then once back: a backward, or input
// gradients and then weight gradients. `last` is on the final weight gradients of each chunk and nowhere
// else.
void check_actions(const std::string& schedule, const std::vector<Action>&, int stage, int stages,
                   int chunks_per_stage, int microbatches);
// Those of the plan's schedule, checked.
std::vector<Action> actions_of(const Plan&, const Schedule&, int stage, int stages, int microbatches);
// The chunks of all stages together; each has a layer at least.
int chunks_of(const Plan&, const Schedule&, int stages, i64 layers);

// What one step of a layer makes is kept together, and with what its gradient is made of.
void check_kept(const std::string& stash, const Stash&, int layer);

}  // namespace lockstep
