// Zero bubble, ZB-H1 (Qi et al. 2023, Zero Bubble Pipeline Parallelism, section 2.1): backward is split.
// Input gradients (B), which the stage before waits for, run where 1F1B has its backward; weight gradients
// (W), which nobody waits for, run stage i microbatches later and fill what would be idle at the end. A
// stage's forwards lead its weight gradients by p, so no stage holds more microbatches than 1F1B's first.
//
//   stage 0  F0 F1 F2 .  .  B0 W0 F3 B1 W1 .  B2 W2 .  B3 W3      (p = 3, m = 4)
//   stage 1     F0 F1 .  B0 F2 B1 W0 F3 B2 W1 .  B3 W2 W3
//   stage 2        F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3
#include <algorithm>

#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class ZeroBubble final : public Schedule {
 public:
  std::vector<Action> actions(int stage, int stages, int microbatches) const override {
    const int ahead = std::min(microbatches, stages - 1 - stage), behind = stage;
    std::vector<Action> list;
    auto weigh = [&](int j) { list.push_back({Pass::weight_grad, stage, j, j == microbatches - 1}); };
    for (int j = 0; j < ahead; ++j) list.push_back({Pass::forward, stage, j, false});
    for (int j = 0; j < microbatches; ++j) {
      if (j + ahead < microbatches) list.push_back({Pass::forward, stage, j + ahead, false});
      list.push_back({Pass::input_grad, stage, j, false});
      if (j >= behind) weigh(j - behind);
    }
    for (int j = std::max(0, microbatches - behind); j < microbatches; ++j) weigh(j);
    return list;
  }
};

const std::vector<Rule> rules = {
    {"zero-bubble-needs-stages",
     [](const Plan& p, const ModelConfig&, const Settings&) -> std::optional<std::string> {
       if (p.number("pp") > 1) return {};
       return "schedule=zero-bubble needs pp of 2 or more: one stage never idles";
     }},
};

// ---- price: as 1F1B, and beside the microbatches in flight those whose weight gradients wait.
const Strategy<Schedule> strategy(
    "zero-bubble", {{"schedule", "1f1b", {"zero-bubble"}, "order of microbatches in the pipeline"}},
    [](const Plan& p) { return p.text("schedule") == "zero-bubble"; }, rules,
    [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<ZeroBubble>(); },
    {.chunks = [](const Shape&) -> i64 { return 1; },
     .held = [](const Shape& s,
                const std::vector<i64>& chunk) { return std::min<i64>(s.m, s.pp - s.stage) * chunk[0]; },
     .ends = [](const Shape& s) { return std::min<i64>(s.m, s.pp); },
     .handovers = [](const Shape& s) -> i64 { return s.last() && s.m == 1 ? 1 : 2; },
     .waiting = [](const Shape& s) { return std::min<i64>(s.m, s.stage + 1); },
     .beside = [](const Shape& s) { return std::clamp<i64>(s.m - (s.pp - s.stage), 0, s.stage); },
     .weights_in_a_row = [](const Shape& s) { return std::min<i64>(s.stage, s.m - 1); },
     .into_first = [](const Shape& s, i64) -> i64 { return s.first() ? std::min<i64>(s.m, s.pp) - 1 : 0; }});

}  // namespace
}  // namespace lockstep
