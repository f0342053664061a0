// All mutants through all gates, several at a time, each in a process of its own: it may crash or hang.
#pragma once
#include <functional>
#include <map>
#include <vector>

#include "suites/mutants/mutant.hpp"

namespace lockstep {

using Stages = std::map<bool, Stage>;  // by `tied`
void judge_all(std::vector<Mutant>&, const Stages&, int workers,
               const std::function<void(const Mutant&)>& begins, const std::function<void(Mutant&)>& judged);

}  // namespace lockstep
