// Activation checkpointing: what a layer does not keep, backward makes again, up to the nearest thing kept.
//
//   ckpt=full        a layer keeps its input x alone (Chen et al. 2016, section 4.1, a segment being a layer)
//   ckpt=attention   drops attention's output and log-sum-exp (Korthikanti et al. 2022, section 5)
//   ckpt=norms       drops the norms' outputs;   ckpt=swiglu   drops silu(gate) * up
//   ckpt=selective   drops these three
//   every=k          only layers 0, k, 2k, ... do; the others keep everything
//
// What backward does not need, the last sum of a layer, is never made again. In elements of a microbatch with
// X = b*T*D (over tp where split): full keeps X; the others keep all parts but X each for two norms, b*T*H*hd
// + b*H*T for attention, b*T*F for the product.
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

Dropped dropped(const std::string& what) {
  const bool full = what == "full", selective = what == "selective";
  return {.norms = full || selective || what == "norms",
          .qkv = full,
          .attention = full || selective || what == "attention",
          .x2 = full,
          .gate_up = full,
          .product = full || selective || what == "swiglu"};
}

class Checkpoint final : public Stash {
 public:
  explicit Checkpoint(const Context& c) : what_(c.plan.text("ckpt")), every_(c.plan.number("every")) {}

  bool keeps(int layer, Part part) const override {
    if (part == Part::e1 || part == Part::e2) return false;  // gathered anew, or the norm's output itself
    if (layer % every_ != 0) return true;
    const bool full = what_ == "full", selective = what_ == "selective";
    switch (part) {
      case Part::x:
        return true;
      case Part::h1:
      case Part::rstd1:
      case Part::h2:
      case Part::rstd2:
        return !(full || selective || what_ == "norms");
      case Part::o:
      case Part::oh:
      case Part::lse:
        return !(full || selective || what_ == "attention");
      case Part::act:
        return !(full || selective || what_ == "swiglu");
      default:
        return !full;
    }
  }

 private:
  std::string what_;
  int every_;
};

const Word ckpt = {"ckpt",
                   "none",
                   {"none", "full", "selective", "attention", "norms", "swiglu"},
                   "activation checkpointing"};

const Strategy<Stash> strategy(
    "checkpoint", {ckpt, {"every", "1", {}, "checkpoint layers 0, k, 2k, ... only"}},
    [](const Plan& p) { return asks_for(p, ckpt); }, {},
    [](const Context& c) -> std::unique_ptr<Stash> { return std::make_unique<Checkpoint>(c); },
    {.drops = [](const Shape& s, i64 layer) {
      return layer % s.plan->number("every") == 0 ? dropped(s.plan->text("ckpt")) : Dropped{};
    }});

}  // namespace
}  // namespace lockstep
