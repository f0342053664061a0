// Activation checkpointing, full: a layer keeps its input alone and makes the rest again in backward (Chen et
// al. 2016, section 4.1; at layer granularity as in Korthikanti et al. 2022, section 5). What backward does
// not need, the branch outputs' last sum, is not made again.
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class Full final : public Stash {
 public:
  bool keeps(int, Part part) const override { return part == Part::x; }
};

const Strategy<Stash> strategy(
    "ckpt=full", {{"ckpt", "none", {"none", "full"}, "activation checkpointing"}},
    [](const Plan& p) { return p.text("ckpt") == "full"; }, {},
    [](const Context&) -> std::unique_ptr<Stash> { return std::make_unique<Full>(); },
    {.keeps_layers = false});

}  // namespace
}  // namespace lockstep
