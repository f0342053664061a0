// What `lockstep plan` and its like are asked for in vain: said, and not passed over.
#include "suites/tests/mistake.hpp"

namespace lockstep {
namespace {

const std::string h100 = "--cluster suites/clusters/h100x64.toml ";
const std::string step = "--batch 8 --seq 64 ";
const std::string plan = "plan " + tiny_model + h100 + "--devices 8 " + step;
const std::string show = "show " + tiny_model;

class PlanMistake : public testing::TestWithParam<Mistake> {};

TEST_P(PlanMistake, IsOneSentence) { expect_one_sentence(GetParam().arguments, GetParam().said); }

INSTANTIATE_TEST_SUITE_P(
    Options, PlanMistake,
    testing::ValuesIn(std::vector<Mistake>{
        {"ExplainIntoAFolder",
         plan + "--explain dp=8 --out /proc/none",
         {"--out has no effect with --explain"}},
        {"ExplainAndFit", plan + "--explain dp=8 --fit", {"--fit has no effect with --explain"}},
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
        {"SummaryInTime", show + "--summary --gantt", {"--summary excludes --gantt"}},
        {"RankInTime", show + "--plan dp=2 --rank 1 --gantt", {"--rank excludes --gantt"}},
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

TEST(PlanHelp, ListsTheWordsOfAPlan) {
  for (const char* command : {"plan", "sweep", "gate", "table"}) {
    const Ended ended = lockstep_program(std::string(command) + " --help");
    EXPECT_EQ(ended.status, 0);
    EXPECT_TRUE(says(ended.out, "Words of a plan:\n", "  offload ", "  zero ")) << command;
  }
}

}  // namespace
}  // namespace lockstep
