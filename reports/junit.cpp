#include "reports/junit.hpp"

#include <fmt/format.h>

#include <algorithm>

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

}  // namespace

std::string junit_text(const RunRecord& run, const std::function<std::string(const std::string&)>& again) {
  std::string cases;
  std::size_t failures = 0, errors = 0, tests = run.plans.size();
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
    cases += testcase(run.suite, "the suite", 0, problem("error", "suite", run.verdict, ""));
  }
  const std::string counts =
      fmt::format("name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{:.3f}\"",
                  escaped(run.suite), tests, failures, errors, seconds);
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
  i64 refused = 0;
  for (const auto& [rule, plans] : run.refused) refused += plans;
  property("refused", fmt::format("{}", refused));
  for (const auto& [rule, plans] : run.refused) property("refused by " + rule, fmt::format("{}", plans));
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {0}>\n  <testsuite {0} skipped=\"0\" "
      "timestamp=\"{1}\" hostname=\"{2}\">\n    <properties>\n{3}    </properties>\n{4}  </testsuite>\n"
      "</testsuites>\n",
      counts, escaped(run.started), escaped(run.host), properties, cases);
}

void write_text(const std::string& path, const std::string& text) {
  if (!write_aside(path, [&](std::ostream& out) { out << text; }))
    throw UserError(fmt::format("{}: cannot be written; its folder must exist and have room", path));
}

}  // namespace lockstep
