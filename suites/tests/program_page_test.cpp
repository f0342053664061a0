// The page of a real sweep, opened in a browser. Skipped where the packages of `ci/venv.sh report` or a
// Chromium are missing.
#include <gtest/gtest.h>

#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

TEST(ProgramPage, OfARealSweepAnswersWhichPlanToUse) {
  const std::string python = "build/venv/bin/python";
  if (!std::filesystem::exists(python)) GTEST_SKIP() << "no " << python << "; `ci/venv.sh report` makes it";
  const TemporaryFolder folder;
  const std::string suite = folder.write(
      "tiny.toml", suite_text("batch = 8\nseq = 16\nclip = 0.5\nlr = 0.01\nwarmup = 1\n"
                              "timed_steps = 2\ntimed_steps_most = 2\n"
                              "[axes]\ntp = [1, 2]\npp = [1, 2]\nckpt = [\"none\", \"full\"]\n"));
  const Ended sweep = lockstep_program("sweep " + suite + " --out " + folder.path());
  ASSERT_EQ(sweep.status, 0) << sweep.out << sweep.err;
  const std::string log = folder.path() + "/log";
  const int status = std::system(
      (python + " reports/reports_test.py '" + folder.path() + "' Swept >'" + log + "' 2>&1").c_str());
  std::ostringstream said;
  said << std::ifstream(log).rdbuf();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << said.str();
  EXPECT_EQ(status, 0) << said.str();
}

TEST(ProgramShow, DrawsAStepInTime) {
  const Ended ended =
      lockstep_program("show --gantt " + tiny_model + "--plan 'pp=2 schedule=gpipe' --seq 16 --batch 4");
  EXPECT_EQ(ended.status, 0) << ended.err;
  // Both stages go forward through all microbatches before either goes back, the last one first or in order.
  EXPECT_TRUE(says(ended.out, "rank 0   compute", "rank 1   compute", "GFLOP/s", "a step of ", "bubble"));
  const std::string line = ended.out.substr(ended.out.find("rank 1   compute"), 120);
  EXPECT_LT(line.find('0'), line.find_last_of('3')) << line;
  EXPECT_LT(line.find_last_of("0123"), line.find_first_of("abcd", 17)) << line;
  EXPECT_EQ(line.find_first_of("456789", 17), std::string::npos) << line;
}

}  // namespace
}  // namespace lockstep
