// A run's verdicts as continuous integration reads them: JUnit XML, a testcase a plan, so that what failed
// and why stands on a merge request's page (testmoapp.github.io/junitxml describes the format).
#pragma once
#include <functional>
#include <string>

#include "reports/record.hpp"

namespace lockstep {

// again: the command that judges a plan again. A run that is INVALID though none of its plans failed has a
// failed testcase of its own: no reader may take it for a success.
std::string junit_text(const RunRecord&, const std::function<std::string(const std::string& plan)>& again);

// Written aside and renamed. UserError: it cannot be written.
void write_text(const std::string& path, const std::string& text);

}  // namespace lockstep
