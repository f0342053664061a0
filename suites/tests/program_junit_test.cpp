// The JUnit XML of `lockstep gate`: counts, escapes, and what a suite refuses.
#include <gtest/gtest.h>

#include "reports/junit.hpp"
#include "suites/tests/junit_reader.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

std::string no_command(const std::string&) { return ""; }

TEST(JUnit, TimeAndCountsAreOfAllPlans) {
  RunRecord run;
  run.suite = "s", run.verdict = "INVALID: 2 of 3 plans failed";
  run.plans.resize(3);
  for (int i = 0; i < 3; ++i)
    run.plans[i].plan = "dp=" + std::to_string(i), run.plans[i].wall_seconds = 1.5 * (i + 1);
  run.plans[0].status = "ok";
  run.plans[1].status = "failed", run.plans[1].numbers = "wrong";
  run.plans[2].status = "crashed", run.plans[2].ended = "SIGSEGV";
  const std::string text = junit_text(run, [](const std::string& plan) { return "gate " + plan; });
  EXPECT_TRUE(says(text, "<testsuites name=\"s\" tests=\"3\" failures=\"1\" errors=\"1\" time=\"9.000\"",
                   "name=\"dp=1\" time=\"3.000\"><failure type=\"numbers\"",
                   "name=\"dp=2\" time=\"4.500\"><error type=\"crashed\"", "again: gate dp=2"))
      << text;
}

TEST(JUnit, TextIsEscaped) {
  RunRecord run;
  run.suite = "a<b", run.verdict = "INVALID: \"x\" & y\x01";
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/j.xml";
  write_text(path, junit_text(run, [](const std::string&) { return ""; }));
  EXPECT_EQ(read_junit(path), "1 0 1\nthe suite error: INVALID: \"x\" & y \n");
}

TEST(JUnit, RefusedPlansAreSkippedTestcases) {
  RunRecord run;
  run.suite = "s", run.verdict = "VALID: 1 plan";
  run.plans.resize(1);
  run.plans[0].plan = "dp=1";
  run.refused = {{"odd", 1}, {"wide", 2}};
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/j.xml";
  write_text(
      path,
      junit_text(run, no_command,
                 {{"dp=64", "wide", "64 > 8"}, {"dp=3", "odd", "3 is odd"}, {"dp=32", "wide", "32 > 8"}}));
  EXPECT_EQ(read_junit(path),
            "4 0 0\ndp=1\ndp=3 skipped: 3 is odd (rule odd)\ndp=64 skipped: 64 > 8 (rule wide)\n"
            "dp=32 skipped: 32 > 8 (rule wide)\n");
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_TRUE(says(
      text.str(), "<testsuites name=\"s\" tests=\"4\" failures=\"0\" errors=\"0\"", "skipped=\"3\"",
      "<property name=\"refused\" value=\"3\"/>", "<property name=\"refused by wide\" value=\"2\"/>",
      "<testcase classname=\"s\" name=\"dp=3\" time=\"0.000\"><skipped message=\"3 is odd (rule odd)\"/>"))
      << text.str();
}

TEST(JUnit, ARuleThatRefusesVeryManyIsOneTestcase) {
  RunRecord run;
  run.suite = "s", run.verdict = "VALID: 0 plans";
  std::vector<NotJudged> refused{{"pp=5", "few", "five"}};
  for (int i = 0; i < 100; ++i) refused.push_back({"tp=" + std::to_string(i), "hundred", "h"});
  for (int i = 0; i < 20000; ++i) refused.push_back({"dp=" + std::to_string(i), "very-many", "why not"});
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/j.xml";
  write_text(path, junit_text(run, no_command, refused));
  const std::string read = read_junit(path);
  EXPECT_TRUE(says(read, "102 0 0\npp=5 skipped: five (rule few)\ntp=0 skipped: h", "\ntp=99 skipped: ",
                   "\nrefused by very-many skipped: 20000 plans, the first dp=0: why not\n"))
      << read;
}

}  // namespace
}  // namespace lockstep
