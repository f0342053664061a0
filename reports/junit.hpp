// A run's verdicts as continuous integration reads them: JUnit XML, a testcase a plan, so that what failed
// and why stands on a merge request's page (testmoapp.github.io/junitxml describes the format).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "reports/record.hpp"

namespace lockstep {

// A plan that a rule refuses: it is no plan of the run, and a skipped testcase.
struct NotJudged {
  std::string plan, rule, why;
};
// A rule that refuses more than this is one skipped testcase: a suite may refuse tens of thousands of
// combinations, which no reader of a report goes through, and some cannot hold.
inline constexpr std::size_t kMostSkipped = 100;

// again: the command that judges a plan again. part: "2/4" of a suite that several jobs share, for no two of
// their suites may have one name: readers merge them, or keep one. A run that is INVALID though none of its
// plans failed has a failed testcase of its own: no reader may take it for a success.
std::string junit_text(const RunRecord&, const std::function<std::string(const std::string& plan)>& again,
                       const std::vector<NotJudged>& refused = {}, const std::string& part = "");

// Written aside and renamed. UserError: it cannot be written.
void write_text(const std::string& path, const std::string& text);

}  // namespace lockstep
