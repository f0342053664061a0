#include "reports/junit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "ref/error.hpp"
#include "ref/write_aside.hpp"

namespace lockstep {
namespace {

// As an attribute or as text. XML has no way to write most control characters.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\n')
      out += "&#10;";
    else
      out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return out;
}

bool came_to_no_verdict(const PlanRecord& p) { return !p.ended.empty(); }

std::string testcase(const std::string& suite, const std::string& name, double seconds,
                     const std::string& body) {
  return fmt::format("    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3f}\">{}</testcase>\n",
                     escaped(suite), escaped(name), seconds, body);
}

// JUnit knows failures, where something was judged, and errors, where it did not come to that.
std::string problem(const char* element, const std::string& type, const std::string& found,
                    const std::string& more) {
  return fmt::format("<{0} type=\"{1}\" message=\"{2}\">{3}</{0}>", element, escaped(type), escaped(found),
                     escaped(found + more));
}

std::string skipped(const std::string& suite, const std::string& name, const std::string& why) {
  return testcase(suite, name, 0, fmt::format("<skipped message=\"{}\"/>", escaped(why)));
}

// A testcase a plan, under the name that it has where it is judged: a plan that a change makes impossible is
// the same testcase, passed before and skipped after.
struct Skipped {
  std::string cases;
  std::size_t tests = 0;
};
Skipped skipped_of(const std::string& suite, const std::vector<NotJudged>& refused) {
  std::map<std::string, std::vector<const NotJudged*>> by_rule;
  for (const NotJudged& n : refused) by_rule[n.rule].push_back(&n);
  Skipped result;
  for (const auto& [rule, plans] : by_rule) {
    if (plans.size() > kMostSkipped) {
      const NotJudged& first = *plans.front();
      result.cases += skipped(suite, "refused by " + rule,
                              fmt::format("{} plans, the first {}: {}", plans.size(), first.plan, first.why));
      ++result.tests;
      continue;
    }
    for (const NotJudged* n : plans)
      result.cases += skipped(suite, n->plan, fmt::format("{} (rule {})", n->why, rule));
    result.tests += plans.size();
  }
  return result;
}

}  // namespace

std::string junit_text(const RunRecord& run, const std::function<std::string(const std::string&)>& again,
                       const std::vector<NotJudged>& refused, const std::string& part) {
  const auto of_part = [&](const std::string& name) { return part.empty() ? name : name + " " + part; };
  std::string cases;
  const Skipped left_out = skipped_of(run.suite, refused);
  std::size_t failures = 0, errors = 0, tests = run.plans.size() + left_out.tests;
  double seconds = 0;
  for (const PlanRecord& p : run.plans) {
    std::string body;
    if (p.status != "ok") {
      const bool error = came_to_no_verdict(p);
      ++(error ? errors : failures);
      const std::string found = complaint(p);
      body = problem(error ? "error" : "failure", found.substr(0, found.find(':')), found,
                     "\nagain: " + again(p.plan));
    }
    cases += testcase(run.suite, p.plan, p.wall_seconds, body);
    seconds += p.wall_seconds;
  }
  if (failures + errors == 0 && !run.verdict.starts_with("VALID")) {
    ++tests, ++errors;
    cases += testcase(run.suite, of_part("the suite"), 0, problem("error", "suite", run.verdict, ""));
  }
  cases += left_out.cases;
  const std::string counts =
      fmt::format("name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{:.3f}\"",
                  escaped(of_part(run.suite)), tests, failures, errors, seconds);
  std::string properties;
  const auto property = [&](const std::string& name, const std::string& value) {
    properties += fmt::format("      <property name=\"{}\" value=\"{}\"/>\n", escaped(name), escaped(value));
  };
  for (const auto& [name, value] : {std::pair{"verdict", &run.verdict},
                                    {"hash", &run.reference_hash},
                                    {"revision", &run.revision},
                                    {"isa", &run.isa},
                                    {"device", &run.device}})
    property(name, *value);
  i64 all_refused = 0;
  for (const auto& [rule, plans] : run.refused) all_refused += plans;
  property("refused", fmt::format("{}", all_refused));
  for (const auto& [rule, plans] : run.refused) property("refused by " + rule, fmt::format("{}", plans));
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {0}>\n  <testsuite {0} "
      "skipped=\"{1}\" timestamp=\"{2}\" hostname=\"{3}\">\n    <properties>\n{4}    </properties>\n{5}  "
      "</testsuite>\n</testsuites>\n",
      counts, left_out.tests, escaped(run.started), escaped(run.host), properties, cases);
}

void write_text(const std::string& path, const std::string& text) {
  if (!write_aside(path, [&](std::ostream& out) { out << text; }))
    throw UserError(fmt::format("{}: cannot be written; its folder must exist and have room", path));
}

}  // namespace lockstep
