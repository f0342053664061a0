// Which sets of kernels this program has, and which of them run on this machine.
#include <algorithm>
#include <stdexcept>

#include "kernels/ops.hpp"

namespace lockstep {
namespace {

// In a function, because sets register from other files' static constructors.
std::vector<const KernelSet*>& registry() {
  static std::vector<const KernelSet*> sets;
  return sets;
}

}  // namespace

KernelSet::KernelSet(const char* name_, int speed_, bool (*runs_here_)(), void (*apply_)(Ops<float>&))
    : name(name_), speed(speed_), runs_here(runs_here_), apply(apply_) {
  auto& sets = registry();
  const auto slower = [](const KernelSet* a, const KernelSet* b) { return a->speed < b->speed; };
  sets.insert(std::upper_bound(sets.begin(), sets.end(), this, slower), this);
}

const std::vector<const KernelSet*>& kernel_sets() { return registry(); }

std::string isa_names(bool here) {
  std::string names = "auto, plain";
  for (const KernelSet* set : kernel_sets())
    if (!here || set->runs_here()) names += std::string(", ") + set->name;
  return names;
}

Ops<float> cpu_ops(const std::string& isa) {
  Ops<float> ops = plain_ops<float>();
  bool found = isa == "plain";
  for (const KernelSet* set : kernel_sets()) {
    if (!set->runs_here()) {
      if (isa == set->name)
        throw std::invalid_argument("isa '" + isa + "' does not run on this machine; use 'auto' or 'plain'");
      continue;
    }
    if (!found) set->apply(ops);
    found = found || isa == set->name;
  }
  if (!found && isa != "auto")
    throw std::invalid_argument("there is no isa '" + isa + "'; here it can be " + isa_names(true));
  return ops;
}

}  // namespace lockstep
