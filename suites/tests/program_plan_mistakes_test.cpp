// What `lockstep plan` and its like are asked for in vain: said, and not passed over.
#include "suites/tests/mistake.hpp"

namespace lockstep {
namespace {

const std::string h100 = "--cluster suites/clusters/h100x64.toml ";
const std::string step = "--batch 8 --seq 64 ";
const std::string plan = "plan " + tiny_model + h100 + "--devices 8 " + step;

class PlanMistake : public testing::TestWithParam<Mistake> {};

TEST_P(PlanMistake, IsOneSentence) {
  const Ended ended = expect_one_sentence(GetParam().arguments, GetParam().said);
  // What trains says first what it does.
  EXPECT_TRUE(ended.out.empty() || GetParam().arguments.find("-times") != std::string::npos) << ended.out;
}

INSTANTIATE_TEST_SUITE_P(
    Options, PlanMistake,
    testing::ValuesIn(std::vector<Mistake>{
        {"ExplainIntoAFolder",
         plan + "--explain dp=8 --out /proc/none",
         {"--out has no effect with --explain"}},
        {"ExplainAndFit", plan + "--explain dp=8 --fit", {"--fit has no effect with --explain"}},
        {"ADeviceWithoutTraining", plan + "--device cuda", {"--device needs --check-times"}},
        {"ExplainAndPareto", plan + "--explain dp=8 --pareto", {"--pareto has no effect with --explain"}},
        {"ExplainAmongWords", plan + "--explain dp=8 --words tp=8", {"--words has no effect with --explain"}},
        {"ExplainTheTop", plan + "--explain dp=8 --top 3", {"--top has no effect with --explain"}},
        {"ExportAndFit", plan + "--fit --export fsdp", {"--fit has no effect with --export"}},
        {"ExportAsJson", plan + "--json --export fsdp", {"--json has no effect with --export"}},
        {"ExportOnePlanAmongWords",
         plan + "--export fsdp --explain dp=8 --words tp=8",
         {"--words has no effect with --export"}},
        {"FitIntoAFolder", plan + "--fit --out /proc/none", {"--out has no effect with --fit"}},
        {"KernelsAsJson", plan + "--explain dp=8 --kernels --json", {"--kernels has no effect with --json"}},
        {"KernelsOfNoPlan", plan + "--kernels", {"--kernels needs --explain"}},
        {"MarkdownOfNoTable", plan + "--markdown", {"--markdown needs --fit"}},
        {"DataForNothing", plan + "--data x.tok", {"--data needs --check-times or --event-times"}},
        {"EventTimesWithoutData", plan + "--event-times dp=8", {"--event-times needs --data, a token file"}},
        {"CheckTimesWithoutData", plan + "--check-times", {"--check-times needs --data, a token file"}},
        {"NoBatch", "plan " + tiny_model + h100 + "--seq 64", {"--batch is required"}},
        {"NoSequences", "plan " + tiny_model + h100 + "--batch 8", {"--seq is required"}},
        {"SummaryInTime", show_tiny + "--summary --gantt", {"--summary excludes --gantt"}},
        {"RankInTime", show_tiny + "--plan dp=2 --rank 1 --gantt", {"--rank excludes --gantt"}},
        {"ClusterOfAPlanThatIsNamed",
         "train " + tiny_run + h100 + "--plan dp=2",
         {"--cluster is of --plan auto"}},
        {"ResidentWithinLessThanNothing",
         "resident " + tiny_run + "--within -1",
         {"--within: -1 is not a number from 0 up"}},
        {"FasterThanNothing", "compare a b --slower -5", {"--slower: -5 is not a number from 0 up"}},
        {"MoreThreadsThanCores",
         "calibrate --quick --threads 999 --out /proc/none",
         {"--threads 999 are more than the ", " core"}},
    }),
    name_of);

// Words of which nothing is left are a mistake, and no answer.
INSTANTIATE_TEST_SUITE_P(
    Words, PlanMistake,
    testing::ValuesIn(std::vector<Mistake>{
        {"NoMesh", plan + "--words 'tp=3 pp=1'", {"no mesh of these words has 8 devices"}},
        {"NoMeshForPrograms",
         plan + "--json --words 'tp=1 pp=1 dp=4'",
         {"no mesh of these words has 8 devices"}},
        {"NoMeshToExport", plan + "--export fsdp --words tp=3", {"no mesh of these words has 8 devices"}},
        {"NoMeshAtAll", plan + "--fit --words tp=3", {"no mesh of these words has 8 devices"}},
        {"NoMicrobatch",
         plan + "--words 'pp=1 tp=1 micro=3'",
         {"no micro of these words divides the sequences of a replica; the batch has 8"}},
        {"AllRefused",
         "plan " + tiny_model + h100 + step + "--words 'zero=3 pp=1 tp=1'",
         {"none of ", " combinations is legal; all are refused by dp-divides-batch: dp=64 does not divide"}},
        {"NothingToTime",
         plan + "--check-times --data datasets/excerpt-v509.tok --words tp=3",
         {"no plan of these words is legal on 1, 2, 4, ... up to 8 devices"}},
    }),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Limits, PlanMistake,
    testing::ValuesIn(std::vector<Mistake>{
        {"MoreDevicesThanAWordSays",
         plan + "--devices 1000000",
         {"--devices: 1000000 is not from 1 to 999999"}},
        {"MoreThanAWordSays", plan + "--explain dp=1000000", {"dp is a number from 1 to 999999"}},
        {"MoreSequencesThanAWordSays", plan + "--batch 1000000", {"batch is 1000000", "to 999999"}},
    }),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Files, PlanMistake,
    testing::ValuesIn(std::vector<Mistake>{
        {"ACluster",
         "plan " + tiny_model + step + "--cluster suites/clusters/h100x64.toml:h100_80gb",
         {"suites/clusters/h100x64.toml: this is a cluster, and no group of published rows"}},
        {"AClusterAsAGroup", "published suites/clusters/h100x64.toml", {"this is a cluster, and no group"}},
        {"AFolderWithoutGroups",
         "published suites/models",
         {"no group of published rows (*.toml) in suites/models"}},
        {"BelowAFile",
         "plan " + tiny_model + step + "--cluster Makefile/x.toml",
         {"Makefile/x.toml: cannot be read: Not a directory"}},
    }),
    name_of);

TEST(PlanFiles, PublishedRowsAreSoughtInTheRepository) {
  const Ended ended = shell("cd / && '" + beside("lockstep") + "' published");
  EXPECT_EQ(ended.status, 2) << ended.err;
  EXPECT_TRUE(
      says(ended.err, "lockstep: published: the folder suites/published cannot be read: No such file"));
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
}

TEST(PlanFiles, AFolderStandsForTheGroupsInIt) {
  const Ended ended = lockstep_program("published suites/published --only mt-nlg-530b");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "mt-nlg-530b"));
}

const std::string from_pipe =
    "plan " + tiny_model + step + "--devices 8 --cluster /dev/stdin --words 'pp=1 tp=1' ";

TEST(PlanFiles, AClusterMayComeThroughAPipe) {
  const std::string pipe = "cat suites/clusters/h100x64.toml | ";
  const Ended ended = lockstep_program(from_pipe, pipe);
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "on 8 x H100"));
  const TemporaryFolder folder;
  const Ended kept = lockstep_program(from_pipe + "--out " + folder.path(), pipe);
  EXPECT_EQ(kept.status, 2);
  EXPECT_TRUE(says(kept.err, "/dev/stdin: its text is to be kept"));
}

// One device of 0.0001 GiB, and nothing beside it.
TEST(PlanAnswers, WithoutAHostNothingCanBeOffloaded) {
  const TemporaryFolder folder;
  const std::string cluster = folder.write("one.toml",
                                           "name = \"one\"\ndevices = 1\ndevices_per_node = 1\n[device]\n"
                                           "memory_gib = 0.0001\ntflops = 1\nmemory_gb_per_s = 100\n");
  for (const char* more : {"", "--fit"}) {
    const Ended ended = lockstep_program("plan " + tiny_model + step + "--cluster '" + cluster + "' " + more);
    EXPECT_EQ(ended.status, 1) << ended.err;
    EXPECT_TRUE(says(ended.out, "no [host] in this cluster: nothing can be offloaded"));
  }
}

TEST(PlanAnswers, AFirstChoiceThatCannotBeWrittenIsNamed) {
  const TemporaryFolder folder;
  const std::string file = folder.path() + "/fsdp.yaml";
  const Ended ended = lockstep_program(
      "plan --model suites/models/llama-2-13b.json " + h100 +
      "--batch 256 --seq 4096 --words 'tp=1 pp=1 offload=none activations=device' --export fsdp --out " +
      file);
  EXPECT_EQ(ended.status, 0) << ended.err;
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  for (const std::string& said : {ended.err, text.str()})
    EXPECT_TRUE(says(said, "the first choice, `dp=64 tp=1 pp=1 ", "cannot be written for fsdp", " % slower\n",
                     "SET THIS: 3 steps with a learning rate of 0.001"));
}

TEST(PlanHelp, ListsTheWordsOfAPlan) {
  for (const char* command : {"plan", "sweep", "gate", "table"}) {
    const Ended ended = lockstep_program(std::string(command) + " --help");
    EXPECT_EQ(ended.status, 0);
    EXPECT_TRUE(says(ended.out, "Words of a plan:\n", "  offload ", "  zero ")) << command;
  }
}

}  // namespace
}  // namespace lockstep
