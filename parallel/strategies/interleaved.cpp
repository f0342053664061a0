// Interleaved 1F1B (Narayanan et al. 2021, Megatron-LM, section 2.2): a stage holds v chunks of layers
// instead of one, chunk c on stage c mod p, so the pipeline fills in 1/v of the time and the bubble shrinks
// to (p-1)/(v m). Microbatches go through in groups of p: all of a group through chunk 0, then through the
// next one, and back.
//
// A and B are a stage's first and second chunk going forward, a and b backward, with their microbatch
// (p = 2, v = 2, m = 2). The model's first and last chunk may have a layer less than the others (chunk.hpp):
//
//   stage 0  A0 A1 B0 B1 .  b0 .  b1 a0 a1
//   stage 1     A0 A1 B0 b0 B1 b1 a0 a1
#include <algorithm>

#include "parallel/roles.hpp"

namespace lockstep {
namespace {

int warm_up(int stage, int stages, int chunks, int passes) {
  return std::min(passes, (stages - stage - 1) * 2 + (chunks - 1) * stages);
}

class Interleaved final : public Schedule {
 public:
  explicit Interleaved(const Context& c) : chunks_(c.plan.number("virtual")) {}
  int chunks_per_stage() const override { return chunks_; }

  std::vector<Action> actions(int stage, int stages, int microbatches) const override {
    const int passes = microbatches * chunks_, ahead = warm_up(stage, stages, chunks_, passes);
    // The q-th forward (backward) of a stage: its place in a group of `stages` microbatches through all
    // chunks.
    auto microbatch = [&](int q) { return q / (stages * chunks_) * stages + q % stages; };
    auto forward = [&](int q) {
      const int chunk = q / stages % chunks_;
      return Action{Pass::forward, chunk * stages + stage, microbatch(q), false};
    };
    auto backward = [&](int q) {
      const int chunk = chunks_ - 1 - q / stages % chunks_, j = microbatch(q);
      return Action{Pass::backward, chunk * stages + stage, j, j == microbatches - 1};
    };
    std::vector<Action> list;
    for (int q = 0; q < ahead; ++q) list.push_back(forward(q));
    for (int q = 0; q < passes; ++q) {
      if (q + ahead < passes) list.push_back(forward(q + ahead));
      list.push_back(backward(q));
    }
    return list;
  }

 private:
  int chunks_;
};

using Broken = std::optional<std::string>;
const std::vector<Rule> rules = {
    {"interleaved-needs-stages",
     [](const Plan& p, const ModelConfig&, const Settings&) -> Broken {
       if (p.number("pp") > 1 && p.number("virtual") > 1) return {};
       return "schedule=interleaved needs pp and virtual of 2 or more";
     }},
    {"interleaved-even-layers",
     [](const Plan& p, const ModelConfig& m, const Settings&) -> Broken {
       const int chunks = p.number("pp") * p.number("virtual");
       if (m.layers % chunks == 0 || ((m.layers + 2) % chunks == 0 && chunks <= m.layers)) return {};
       return "pp x virtual = " + std::to_string(chunks) + " does not divide the model's " +
              std::to_string(m.layers) + " layers, nor two more of which the ends have one less";
     }},
    {"interleaved-groups",
     [](const Plan& p, const ModelConfig&, const Settings& s) -> Broken {
       const i64 m = s.batch / p.number("dp") / p.number("micro");
       if (m % p.number("pp") == 0) return {};
       return "schedule=interleaved takes microbatches in groups of pp, but " + std::to_string(m) +
              " are not a multiple of " + p.text("pp");
     }},
};

// ---- price: a chunk's activations are held for warm-up and one more pass.
const Strategy<Schedule> strategy(
    "interleaved",
    {{"schedule", "1f1b", {"interleaved"}, "order of microbatches in the pipeline"},
     {"virtual", "1", {}, "chunks of layers on each stage (schedule=interleaved)"}},
    [](const Plan& p) { return p.text("schedule") == "interleaved"; }, rules,
    [](const Context& c) -> std::unique_ptr<Schedule> { return std::make_unique<Interleaved>(c); },
    {.chunks = [](const Shape& s) -> i64 { return s.plan->number("virtual"); },
     .held = [](const Shape& s, const std::vector<i64>& chunks) -> i64 {
       const i64 v = s.plan->number("virtual"), passes = s.m * v;
       const i64 ahead = std::min(passes, (s.pp - s.stage - 1) * 2 + (v - 1) * s.pp);
       i64 now = 0, most = 0;
       for (i64 q = 0; q < passes; ++q) {
         most = std::max(most, now += chunks[static_cast<std::size_t>(q / s.pp % v)]);
         if (q >= ahead) now -= chunks[static_cast<std::size_t>(v - 1 - (q - ahead) / s.pp % v)];
       }
       return most;
     },
     .ends = [](const Shape&) -> i64 { return 1; },
     .handovers = [](const Shape&) -> i64 { return 2; },
     // In warm-up a group goes through chunk after chunk, and the next group through the first one again.
     .into_first = [](const Shape& s, i64 k) -> i64 {
       const i64 v = s.plan->number("virtual"), passes = s.m * v;
       const i64 ahead = std::min(passes, (s.pp - s.stage - 1) * 2 + (v - 1) * s.pp);
       i64 times = 0;
       for (i64 q = 0; s.first() && q < ahead && q + 1 < passes; ++q)
         times += (q + 1) / s.pp % v == 0 && q / s.pp % v == k;
       return times;
     }});

}  // namespace
}  // namespace lockstep
