// choose() for somebody who waits: how far it is goes to stderr.
#pragma once
#include "suites/planner/explain.hpp"

namespace lockstep {

Choices choose_in_sight(const Question&, const Values& given, Wanted);

}  // namespace lockstep
