#include "parallel/contract.hpp"

#include <fmt/format.h>

#include "parallel/strategy_error.hpp"

namespace lockstep {
namespace {

std::string text(const Action& a) {
  return fmt::format("{} of chunk {}, microbatch {}", pass_name(a.pass), a.chunk, a.microbatch);
}

// How far a microbatch is in a chunk.
struct Passed {
  bool forward = false, input = false, weight = false;
};

// Takes the microbatch through the action; what is wrong with that, or nothing.
std::string wrong_with(const Action& a, Passed& at) {
  const bool input = a.pass == Pass::backward || a.pass == Pass::input_grad;
  const bool weight = a.pass == Pass::backward || a.pass == Pass::weight_grad;
  if (a.pass == Pass::forward) return std::exchange(at.forward, true) ? "comes twice" : "";
  if (!at.forward) return "comes before its forward";
  if (a.pass == Pass::weight_grad && !at.input) return "comes before its input gradients";
  if ((input && at.input) || (weight && at.weight)) return "comes when it has gone back already";
  at.input |= input, at.weight |= weight;
  return "";
}

std::string missing_of(const Passed& at) {
  return !at.forward ? "forward" : !at.input ? "backward" : !at.weight ? "weight gradients" : "";
}

// What a step of the layer makes together.
const std::vector<std::vector<Part>> groups = {{Part::h1, Part::rstd1},
                                               {Part::q, Part::k, Part::v},
                                               {Part::o, Part::oh, Part::lse},
                                               {Part::h2, Part::rstd2},
                                               {Part::gate, Part::up}};

}  // namespace

const char* pass_name(Pass pass) {
  static constexpr const char* names[] = {"forward", "backward", "input gradients", "weight gradients"};
  return names[static_cast<int>(pass)];
}

void check_actions(const std::string& schedule, const std::vector<Action>& actions, int stage, int stages,
                   int chunks_per_stage, int microbatches) {
  const auto refuse = [&](const std::string& why) {
    throw StrategyError(fmt::format("schedule `{}`, stage {} of {}: {}", schedule, stage, stages, why));
  };
  std::vector<std::vector<Passed>> passed(chunks_per_stage, std::vector<Passed>(microbatches));
  std::vector<const Action*> final(chunks_per_stage);  // weight gradients of each chunk so far
  for (const Action& a : actions) {
    const int slot = a.chunk < 0 || a.chunk % stages != stage ? chunks_per_stage : a.chunk / stages;
    if (slot >= chunks_per_stage)
      refuse(fmt::format("{}: that chunk is not here; with {} on a stage, chunk c lies on stage c mod {}",
                         text(a), chunks_per_stage, stages));
    if (a.microbatch < 0 || a.microbatch >= microbatches)
      refuse(fmt::format("{}: microbatches are 0 to {}", text(a), microbatches - 1));
    const std::string wrong = wrong_with(a, passed[slot][a.microbatch]);
    if (!wrong.empty()) refuse(fmt::format("{} {}", text(a), wrong));
    if (a.pass == Pass::backward || a.pass == Pass::weight_grad) final[slot] = &a;
  }
  for (int slot = 0; slot < chunks_per_stage; ++slot)
    for (int j = 0; j < microbatches; ++j)
      if (const std::string missing = missing_of(passed[slot][j]); !missing.empty())
        refuse(fmt::format("{} of chunk {}, microbatch {} is missing", missing, slot * stages + stage, j));
  for (const Action& a : actions) {
    const Action& right = *final[a.chunk / stages];
    if (a.last != (&a == &right))
      refuse(fmt::format("`last` is {}set on {}; it belongs on the chunk's final weight gradients, {}",
                         a.last ? "" : "not ", text(a), text(right)));
  }
}

std::vector<Action> actions_of(const Plan& plan, const Schedule& schedule, int stage, int stages,
                               int microbatches) {
  std::vector<Action> actions = schedule.actions(stage, stages, microbatches);
  check_actions(chosen<Schedule>(plan).name, actions, stage, stages, schedule.chunks_per_stage(),
                microbatches);
  return actions;
}

int chunks_of(const Plan& plan, const Schedule& schedule, int stages, i64 layers) {
  const int chunks = schedule.chunks_per_stage() * stages;
  if (chunks < stages || chunks > layers)
    throw StrategyError(
        fmt::format("schedule `{}`: {} chunks on each of {} stages, but a chunk has a layer at least, and "
                    "the model {}; a "
                    "rule should refuse the plan",
                    chosen<Schedule>(plan).name, schedule.chunks_per_stage(), stages, layers));
  return chunks;
}

void check_kept(const std::string& stash, const Stash& s, int layer) {
  const auto refuse = [&](Part kept, const std::string& why) {
    throw StrategyError(fmt::format("stash `{}`, layer {}: keeps {}{}", stash, layer, part_name(kept), why));
  };
  const auto needs = [&](Part kept, Part other, const std::string& why) {
    if (s.keeps(layer, kept) && !s.keeps(layer, other))
      refuse(kept, fmt::format(" without {}, {}", part_name(other), why));
  };
  for (const std::vector<Part>& group : groups)
    for (const Part p : group)
      for (const Part other : group) needs(p, other, "which one step makes together with it");
  needs(Part::act, Part::gate, "which backward takes beside it");
  needs(Part::h2, Part::x2, "which backward takes beside it");
  for (const Part p : {Part::e1, Part::e2})
    if (s.keeps(layer, p)) refuse(p, ", which the seam gathers anew");
}

}  // namespace lockstep
