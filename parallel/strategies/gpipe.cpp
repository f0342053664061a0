// GPipe (Huang et al. 2019, section 2.3): all forwards, then all backwards in reverse, so that every
// microbatch's activations are held at once.
//
//   stage 0  F0 F1 F2 F3 .  .  .  .  B3 B2 B1 B0        (p = 3, m = 4)
//   stage 2        F0 F1 F2 F3 B3 B2 B1 B0
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class GPipe final : public Schedule {
 public:
  std::vector<Action> actions(int stage, int, int microbatches) const override {
    std::vector<Action> list;
    for (int j = 0; j < microbatches; ++j) list.push_back({Pass::forward, stage, j, false});
    for (int j = microbatches; j-- > 0;) list.push_back({Pass::backward, stage, j, j == 0});
    return list;
  }
};

const Strategy<Schedule> strategy(
    "gpipe", {{"schedule", "1f1b", {"gpipe"}, "order of microbatches in the pipeline"}},
    [](const Plan& p) { return p.text("schedule") == "gpipe"; }, {},
    [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<GPipe>(); },
    {.chunks = [](const Shape&) -> i64 { return 1; },
     .held = [](const Shape& s, const std::vector<i64>& chunk) { return s.m * chunk[0]; },
     .ends = [](const Shape& s) { return s.m; },
     // The last stage has sent nothing while it still receives.
     .handovers = [](const Shape& s) -> i64 { return s.pp == 1  ? 0
                                                     : s.last() ? 1
                                                                : 2; },
     .into_first = [](const Shape& s, i64) -> i64 { return s.first() ? s.m - 1 : 0; },
     .reversed = true});

}  // namespace
}  // namespace lockstep
