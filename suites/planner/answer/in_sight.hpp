// choose() for somebody who waits: how far it is goes to stderr.
#pragma once
#include "suites/planner/answer/explain.hpp"

namespace lockstep {

Choices choose_in_sight(const Question&, const Values& given, Wanted);
// UserError: of these words none was legal.
void check_any_legal(const Choices&, const Question&, const Values& given);

}  // namespace lockstep
