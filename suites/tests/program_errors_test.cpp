// What a user does wrong ends in one sentence that begins with `lockstep: `, and in exit status 2.
#include <gtest/gtest.h>

#include <algorithm>

#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

const std::string train = "train " + tiny_run;
const std::string show = "show " + tiny_model;

struct Mistake {
  std::string name, arguments;
  std::vector<std::string> said;
};

class EveryMistake : public testing::TestWithParam<Mistake> {};

TEST_P(EveryMistake, IsOneSentence) {
  const Ended ended = lockstep_program(GetParam().arguments);
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(ended.err.starts_with("lockstep: ")) << ended.err;
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
  for (const std::string& part : GetParam().said) EXPECT_TRUE(says(ended.err, part));
}

INSTANTIATE_TEST_SUITE_P(
    Program, EveryMistake,
    testing::ValuesIn(std::vector<Mistake>{
        {"NoCommand", "", {"a command is missing"}},
        {"UnknownCommand", "swep suites/smoke.toml", {"`swep`", "did you mean `sweep`?"}},
        {"UnknownOption", train + "--stesp 3", {"`--stesp`", "did you mean `--steps`?"}},
        {"MissingOption", "train --data datasets/excerpt-v509.tok", {"--model is required"}},
        {"NotANumber", train + "--steps three", {"--steps", "three"}},
        {"SettingOutOfRange", train + "--clip 0", {"clip is 0", "it must be from"}},
        {"LeavesNoPowerOfTwo", train + "--leaves 6", {"leaves is 6", "power of two"}},
        {"UnknownPlanWord", train + "--plan 'dp=2 ttp=2'", {"no word `ttp`", "did you mean `tp`?"}},
        {"UnknownPlanValue", train + "--plan ckpt=ful", {"`ckpt=ful`", "did you mean `full`?"}},
        {"BrokenRule",
         train + "--plan tp=3",
         {"tp=3 does not divide the model's 8 attention heads", "tp-divides-heads"}},
        {"UnknownIsa", train + "--isa avx3", {"no isa 'avx3'", "plain"}},
        {"MissingModel", "train --model no/such.json --data datasets/excerpt-v509.tok", {"no/such.json"}},
        {"MissingData", "train --data no/such.tok " + tiny_model, {"no/such.tok"}},
        {"MissingWeights", train + "--init no/such.safetensors", {"no/such.safetensors"}},
        {"TextTooShort", train + "--seq 300000 --batch 1", {"excerpt-v509.tok", "300001"}},
        {"DumpNotWritable", train + "--dump no/such/folder/a.h5", {"no/such/folder/a.h5"}},
        {"OutNotWritable",
         "sweep suites/smoke.toml --only 'dp=1 tp=1 pp=1' --out /proc/no/such",
         {"/proc/no/such"}},
        {"RankOutOfRange", show + "--plan 'dp=2 tp=2' --rank 4", {"rank 4", "0 to 3"}},
        {"NegativeRank", show + "--rank -1", {"rank -1"}},
        {"MissingSuite", "sweep no/such.toml", {"no/such.toml"}},
        {"NothingLeft", "sweep suites/smoke.toml --only dp=5", {"no plan", "dp=5"}},
        {"NotADump", "compare Makefile Makefile", {"Makefile"}},
    }),
    [](const auto& test) { return test.param.name; });

TEST(ProgramErrors, TokensBeyondTheModelsVocabularyAreRefused) {
  const TemporaryFolder folder;
  std::ostringstream text;
  text << std::ifstream("suites/models/gate-tiny.json").rdbuf();
  std::string model = text.str();
  model.replace(model.find("509"), 3, "500");
  const std::string path = folder.write("small.json", model);
  const Ended ended = lockstep_program("train --data datasets/excerpt-v509.tok --model " + path);
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "509 tokens", "500"));
}

const std::string on_disk = train + "--plan 'dp=2 offload=optimizer to=disk' --scratch ";

TEST(ProgramErrors, AScratchFolderThatIsNotThereIsNamed) {
  const Ended ended = lockstep_program(on_disk + "/no/such");
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "lockstep: rank ", "/no/such", "No such file or directory"));
}

// The shell lets the program write files of 50 KB at most: as if the disk were full.
TEST(ProgramErrors, AFullDiskIsNamedAndNothingStaysBehind) {
  const TemporaryFolder folder;
  const Ended ended = lockstep_program(on_disk + folder.path(), "ulimit -f 100; trap '' XFSZ; ");
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "lockstep: rank ", folder.path(), "no room for", "--scratch"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ProgramErrors, HelpIsNoError) {
  const Ended ended = lockstep_program("train --help");
  EXPECT_EQ(ended.status, 0);
  EXPECT_TRUE(says(ended.out, "--weight-decay", "Words of a plan", "ckpt"));
}

}  // namespace
}  // namespace lockstep
