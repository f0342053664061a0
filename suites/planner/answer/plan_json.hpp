// What the planner says, for programs: seconds, bytes, one object each. The keys are listed in
// suites/planner/README.md.
#pragma once
#include <string>
#include <vector>

#include "suites/planner/answer/fit.hpp"

namespace lockstep {

// The first `top` plans in detail, those as good as the first (kAlike), those of --pareto where it was
// wanted.
std::string json_of(const Choices&, const Question&, std::size_t top, bool pareto);
// One plan in detail, whether it fits or not.
std::string json_of(const std::string& plan, const Question&);
// The best plan on 1, 2, 4, ... devices.
std::string json_of(const std::vector<Fit>&, const Question&);

}  // namespace lockstep
