// A trained model goes to transformers and comes back. Needs the Python of `ci/venv.sh fixtures`, and is
// skipped without.
#include <gtest/gtest.h>

#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

class Transformers : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Transformers, ReadWhatIsSavedAndSaveWhatIsRead) {
  if (!fs::exists(fixtures_python))
    GTEST_SKIP() << "no " << fixtures_python << "; `ci/venv.sh fixtures` makes it (7 GB)";
  const auto [model, options] = GetParam();
  const TemporaryFolder folder;
  const std::string saved = folder.path() + "/saved", again = folder.path() + "/again";
  const std::string run = std::string("train --data datasets/excerpt-v509.tok --batch 8 --seq 16 --model ");
  const std::string file = std::string("suites/models/") + model + ".json";
  Ended ended =
      lockstep_program(run + file + " --steps 2 --plan 'tp=2 pp=2' --save " + saved + " " + options);
  ASSERT_EQ(ended.status, 0) << ended.err;
  const std::string go_on = run + file + " --steps 1 --plan dp=2 --init ";
  const Ended mine = lockstep_program(go_on + saved + " --dump " + folder.path() + "/dump.h5");
  ASSERT_EQ(mine.status, 0) << mine.err;

  const std::string log = folder.path() + "/log";
  const std::string command = fixtures_python + " suites/tests/transformers_check.py " + saved + " " +
                              folder.path() + "/dump.h5 " + again + " >" + log + " 2>&1";
  std::ostringstream said;
  const int status = std::system(command.c_str());
  said << std::ifstream(log).rdbuf();
  ASSERT_EQ(status, 0) << said.str();

  EXPECT_TRUE(fs::exists(again + "/model.safetensors.index.json"));
  const Ended back = lockstep_program(run + again + " --steps 1 --plan dp=2 --init " + again);
  ASSERT_EQ(back.status, 0) << back.err;
  EXPECT_EQ(back.out.substr(back.out.find("hash")), mine.out.substr(mine.out.find("hash")));
}

INSTANTIATE_TEST_SUITE_P(Models, Transformers,
                         testing::Values(std::pair("gate-tiny", ""),
                                         std::pair("gate-untied", "--shard-gb 0.0003"),
                                         std::pair("gate-odd", "")),
                         [](const auto& test) { return std::string(test.param.first).substr(5); });

}  // namespace
}  // namespace lockstep
