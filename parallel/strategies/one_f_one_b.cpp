// One forward, one backward (Narayanan et al. 2019, PipeDream, section 3.2; with a flush each step as in
// Megatron-LM, 2021, section 2.2): stage i runs p-1-i forwards ahead, then alternates, so it never holds more
// than p-i microbatches. With pp=1 it is plain gradient accumulation.
//
//   stage 0  F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3        (p = 3, m = 4)
//   stage 1     F0 F1 .  B0 F2 B1 F3 B2 .  B3
//   stage 2        F0 B0 F1 B1 F2 B2 F3 B3
#include <algorithm>

#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class OneForwardOneBackward final : public Schedule {
 public:
  std::vector<Action> actions(int stage, int stages, int microbatches) const override {
    const int ahead = std::min(microbatches, stages - 1 - stage);
    std::vector<Action> list;
    for (int j = 0; j < ahead; ++j) list.push_back({Pass::forward, stage, j, false});
    for (int j = 0; j < microbatches; ++j) {
      if (j + ahead < microbatches) list.push_back({Pass::forward, stage, j + ahead, false});
      list.push_back({Pass::backward, stage, j, j == microbatches - 1});
    }
    return list;
  }
};

const Strategy<Schedule> strategy(
    "1f1b", {{"schedule", "1f1b", {"1f1b"}, "order of microbatches in the pipeline"}}, nullptr, {},
    [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<OneForwardOneBackward>(); },
    {.chunks = [](const Shape&) -> i64 { return 1; },
     .held = [](const Shape& s,
                const std::vector<i64>& chunk) { return std::min<i64>(s.m, s.pp - s.stage) * chunk[0]; },
     .ends = [](const Shape&) -> i64 { return 1; },
     // A posted receive beside an unfinished send; a last stage with one microbatch has one after the other.
     .handovers = [](const Shape& s) -> i64 { return s.pp == 1              ? 0
                                                     : s.last() && s.m == 1 ? 1
                                                                            : 2; },
     .into_first = [](const Shape& s, i64) -> i64 { return s.first() ? std::min<i64>(s.m, s.pp) - 1 : 0; }});

}  // namespace
}  // namespace lockstep
