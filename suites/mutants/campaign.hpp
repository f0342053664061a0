// All mutants through all gates, several at a time, each in a process of its own: it may crash or hang.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "suites/mutants/mutant.hpp"

namespace lockstep {

using Stages = std::map<std::pair<bool, int>, Stage>;  // by `tied` and a sequence's segments
const Stage& stage_of(const Stages&, const std::string& plan, bool tied);
void judge_all(std::vector<Mutant>&, const Stages&, int workers,
               const std::function<void(const Mutant&)>& begins, const std::function<void(Mutant&)>& judged);

}  // namespace lockstep
