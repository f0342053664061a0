// What a user does wrong ends in one sentence that begins with `lockstep: `, and in exit status 2.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "parallel/device/engine.hpp"
#include "reports/record.hpp"
#include "suites/tests/mistake.hpp"

namespace lockstep {
namespace {

const std::string train_tiny = "train " + tiny_run;

class EveryMistake : public testing::TestWithParam<Mistake> {};

TEST_P(EveryMistake, IsOneSentence) { expect_one_sentence(GetParam().arguments, GetParam().said); }

TEST(Mistakes, OutputThatIsLostIsNoSuccess) {
  for (const char* arguments : {"show --model suites/models/gate-tiny.json --summary", "published"}) {
    const Ended ended = lockstep_program(std::string(arguments) + " >/dev/full 2>/dev/stderr #");
    EXPECT_EQ(ended.status, 3) << arguments << ended.err;
  }
}

// What launchers say to the processes that they start, by their manuals (Open MPI; MPICH; srun).
TEST(Mistakes, SeveralProcessesOfOneAreRefusedBeforeAnythingIsDone) {
  const TemporaryFolder folder;
  const std::string files[] = {folder.path() + "/state", folder.path() + "/gate.xml", folder.path() + "/out"};
  for (const std::string& arguments :
       {train_tiny + "--steps 1 --state " + files[0], "time " + tiny_run + "--steps 1",
        "gate suites/smoke.toml --plan dp=2 --junit " + files[1],
        "sweep suites/smoke.toml --plan dp=2 --launch 'mpirun -n {ranks}' --out " + files[2]})
    for (const char* launcher :
         {"OMPI_COMM_WORLD_SIZE=2 ", "PMI_SIZE=2 ", "SLURM_NTASKS=2 SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 ",
          "OMPI_COMM_WORLD_SIZE=2 SLURM_STEP_NUM_TASKS=1 "}) {
      const Ended ended = lockstep_program(arguments, launcher);
      EXPECT_EQ(ended.status, 2) << launcher << arguments << ended.out;
      EXPECT_EQ(ended.out, "");
      EXPECT_TRUE(says(ended.err, "lockstep: a launcher started 2 processes, ",
                       arguments[0] == 't' ? "give --comm mpi" : "--launch \"mpirun -n {ranks}\""));
    }
  for (const std::string& file : files) EXPECT_FALSE(std::filesystem::exists(file)) << file;
}

// A batch script is one process, and so is what Open MPI starts one of by way of srun's daemons.
TEST(Mistakes, OneProcessOfAJobIsNone) {
  for (const char* launcher : {"SLURM_NTASKS=8 SLURM_PROCID=0 ", "SLURM_NTASKS=8 SLURM_STEP_NUM_TASKS=1 ",
                               "OMPI_COMM_WORLD_SIZE=1 ", "OMPI_COMM_WORLD_SIZE=1 SLURM_STEP_NUM_TASKS=3 "}) {
    const Ended ended = lockstep_program(train_tiny + "--steps 1 --plan dp=2", launcher);
    EXPECT_EQ(ended.status, 0) << launcher << ended.err;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Program, EveryMistake,
    testing::ValuesIn(std::vector<Mistake>{
        {"NoCommand", "", {"a command is missing"}},
        {"UnknownCommand", "swep suites/smoke.toml", {"`swep`", "did you mean `sweep`?"}},
        {"UnknownOption", train_tiny + "--stesp 3", {"`--stesp`", "did you mean `--steps`?"}},
        {"MissingOption", "train --data datasets/excerpt-v509.tok", {"--model is required"}},
        {"NotANumber", train_tiny + "--steps three", {"--steps", "three"}},
        {"MessagesOfThreads",
         "sweep suites/smoke.toml --comm mpi",
         {"--comm mpi is for ranks that are processes", "--launch \"mpirun -n {ranks}\""}},
        {"LaunchedWithoutANumber",
         "gate suites/smoke.toml --launch 'mpirun -n 4'",
         {"\"mpirun -n 4\" does not say where the number of ranks goes", "{ranks}"}},
        {"LaunchedWithNothing",
         "gate suites/smoke.toml --launch ''",
         {"--launch", "what is to start the ranks?"}},
        {"LaunchedAndSeveralAtOnce",
         "gate suites/smoke.toml --jobs 2 --launch 'mpirun -n {ranks}'",
         {"--jobs is for ranks that are threads"}},
        {"NoSuchLauncher",
         "gate suites/smoke.toml --plan dp=2 --launch 'mprun -n {ranks}'",
         {"no job began: `mprun -n 2 ", "not found"}},
        {"NothingInAnOption", train_tiny + "--plan ''", {"train: --plan is empty"}},
        {"NoUnicode", "gate \"$(printf 'b\\377.toml')\"", {"argument 2 is not UTF-8"}},
        {"NowhereForTheVerdict",
         "sweep suites/smoke.toml --verdict /nowhere/v",
         {"--verdict /nowhere/v: No such file", "folder that can be written"}},
        {"AFolderForJUnit",
         "gate suites/smoke.toml --plan dp=2 --junit suites",
         {"--junit suites: it is a folder"}},
        {"NothingToCompareWith",
         "compare nowhere",
         {"'nowhere' does not exist", "a sweep's folder or the run.h5 in it"}},
        {"NowhereForTheTimes", "time " + tiny_run + "--csv /nowhere/c", {"--csv /nowhere/c: No such file"}},
        {"NowhereForFiles", train_tiny + "--scratch /nowhere", {"/nowhere: it must be a folder"}},
        {"ADeviceForADump",
         train_tiny + "--steps 1 --dump /dev/tty",
         {"cannot write '/dev/tty': it is a device"}},
        {"SettingOutOfRange", train_tiny + "--clip 0", {"clip is 0", "it must be from"}},
        {"LeavesNoPowerOfTwo", train_tiny + "--leaves 6", {"leaves is 6", "power of two"}},
        {"SegmentsNoPowerOfTwo",
         train_tiny + "--segments 6",
         {"segments is 6", "power of two that divides seq, 16"}},
        {"SegmentsThatDoNotDivide", train_tiny + "--segments 32", {"segments is 32", "divides seq, 16"}},
        {"SegmentsWithoutRanks", train_tiny + "--segments 2", {"cp=1", "segments=2", "cp-is-segments"}},
        {"UnknownPlanWord", train_tiny + "--plan 'dp=2 ttp=2'", {"no word `ttp`", "did you mean `tp`?"}},
        {"UnknownPlanValue", train_tiny + "--plan ckpt=ful", {"`ckpt=ful`", "did you mean `full`?"}},
        {"BrokenRule",
         train_tiny + "--plan tp=3",
         {"tp=3 does not divide the model's 8 attention heads", "tp-divides-heads"}},
        {"MoreRanksThanThereAre", train_tiny + "--plan 'dp=64 tp=8 pp=4'", {"2048 ranks", "at most 1024"}},
        {"MoreThanTheModelHas", train_tiny + "--plan pp=9", {"pp=9 stages", "8 layers"}},
        {"UnknownDevice", train_tiny + "--device tpu", {"no device 'tpu'", "cpu or cuda"}},
        {"GraphsOnTheProcessor", train_tiny + "--graphs", {"--graphs", "needs --device cuda"}},
        {"NcclOnTheProcessor", train_tiny + "--comm nccl", {"--comm nccl", "needs device cuda, not cpu"}},
        {"NcclOfASuiteOnTheProcessor",
         "sweep suites/smoke.toml --comm nccl --launch 'mpirun -n {ranks}'",
         {"--comm nccl", "needs --device cuda, not cpu"}},
        {"UnknownIsa", train_tiny + "--isa avx3", {"no isa 'avx3'", "plain"}},
        {"MissingModel",
         "train --model no/such.json --data datasets/excerpt-v509.tok",
         {"no/such.json", "No such file"}},
        {"ModelBeyondTheMemory",
         "train --model suites/models/llama-3.1-405b.json --data datasets/excerpt-v509.tok --batch 1 --seq "
         "16",
         {"its arenas take ", "the whole weights beside them 4870.2 GB", " GB of memory"}},  // 3 x 4 x 405.85
        // Beside these three, weights and two moments that are read, and two that are to be written.
        {"StateBeyondTheMemory",
         "train --model suites/models/llama-3.1-405b.json --data datasets/excerpt-v509.tok --batch 1 --seq "
         "16 --resume no/such --state no/such",
         {"the whole weights beside them 12987.3 GB"}},  // 8 x 4 x 405.85
        {"ResumedBf16BeyondTheMemory",
         "train --model suites/models/llama-3.1-405b.json --data datasets/excerpt-v509.tok --batch 1 --seq "
         "16 --dtype bf16 --resume no/such",
         {"the whole weights beside them 11363.9 GB"}},  // 7 x 4 x 405.85: float32 masters too
        {"TimeBeyondTheMemory",
         "time --model suites/models/llama-3.1-405b.json --data datasets/excerpt-v509.tok --batch 1 --seq 16",
         {"its arenas take ", " GB of memory"}},
        {"ClusterIsAFolder",
         "plan --model suites/models/llama-2-13b.json --cluster suites --batch 8 --seq 64",
         {"suites: this is a folder, and no file; suites/clusters/ has some"}},
        {"NoDevices",
         "plan --model suites/models/llama-2-13b.json --cluster suites/clusters/h100x64.toml --batch 8 --seq "
         "64 --devices 0",
         {"plan: --devices: 0 is not from 1 to 999999"}},
        {"NoCommandLikeIt", "certify", {"no command `certify`; `lockstep --help` lists them"}},
        {"MissingData", "train --data no/such.tok " + tiny_model, {"no/such.tok"}},
        {"MissingWeights", train_tiny + "--init no/such.safetensors", {"no/such.safetensors"}},
        {"TextTooShort", train_tiny + "--seq 300000 --batch 1", {"excerpt-v509.tok", "300001"}},
        {"DumpNotWritable", train_tiny + "--dump no/such/folder/a.h5", {"no/such/folder/a.h5"}},
        {"SaveNotWritable", train_tiny + "--save /proc/no/such", {"/proc/no/such", "cannot be written"}},
        {"NoShard", train_tiny + "--save /proc/no/such --shard-gb 0", {"--shard-gb"}},
        {"OutNotWritable",
         "sweep suites/smoke.toml --only 'dp=1 tp=1 pp=1' --out /proc/no/such",
         {"/proc/no/such"}},
        {"RankOutOfRange", show_tiny + "--plan 'dp=2 tp=2' --rank 4", {"rank 4", "0 to 3"}},
        {"NegativeRank", show_tiny + "--rank -1", {"rank -1"}},
        {"MissingSuite", "sweep no/such.toml", {"no/such.toml"}},
        {"NothingLeft", "sweep suites/smoke.toml --only dp=5", {"no plan", "dp=5"}},
        {"NotADump", "compare Makefile Makefile", {"Makefile"}},
        {"NoSweepsFolder", "compare suites suites", {"'suites' holds no run.h5", "lockstep sweep --out"}},
        {"NoRunThere", "compare no/before no/after", {"'no/before' does not exist"}},
    }),
    name_of);

TEST(ProgramErrors, NcclWithoutWhatItNeedsIsOneSentence) {
  if (why_no_device("cuda").empty()) GTEST_SKIP() << "skipped: there is a GPU";
  const Ended ended = lockstep_program(train_tiny + "--comm nccl --device cuda");
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(ended.err.starts_with("lockstep: ")) << ended.err;
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
  const bool named = ended.err.find("without NCCL") != std::string::npos ||
                     ended.err.find("device cuda") != std::string::npos ||
                     ended.err.find("NCCL cannot be used here") != std::string::npos;
  EXPECT_TRUE(named) << ended.err;
}

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

const std::string on_disk = train_tiny + "--plan 'dp=2 offload=optimizer to=disk' --scratch ";

TEST(ProgramErrors, AScratchFolderThatIsNotThereIsNamed) {
  const Ended ended = lockstep_program(on_disk + "/no/such");
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "--scratch: /no/such: it must be a folder"));
  // Nobody named it, and only the plan needs it.
  const std::string by_default = on_disk.substr(0, on_disk.rfind("--scratch"));
  const Ended unnamed = lockstep_program(by_default, "TMPDIR=/no/such ");
  EXPECT_EQ(unnamed.status, 2);
  EXPECT_TRUE(says(unnamed.err, "lockstep: rank ", "/no/such", "No such file or directory", "--scratch"));
  const Ended gate =
      lockstep_program("gate suites/smoke.toml --plan 'offload=optimizer to=disk'", "TMPDIR=/no/such ");
  EXPECT_EQ(gate.status, 2);
  EXPECT_TRUE(says(gate.err, "TMPDIR is /no/such", "--scratch"));
  EXPECT_EQ(lockstep_program(by_default, "TMPDIR= ").status, 0);
}

// The shell lets the program write files of 50 KB at most: as if the disk were full.
TEST(ProgramErrors, AFullDiskIsNamedAndNothingStaysBehind) {
  const TemporaryFolder folder;
  const Ended ended = lockstep_program(on_disk + folder.path(), "ulimit -f 100; trap '' XFSZ; ");
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "lockstep: rank ", folder.path(), "no room for", "--scratch"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

// The files a user may bring, each wrong in its own way.
class BrokenFile : public testing::Test {
 protected:
  // Ends as a mistake with these parts in its one sentence.
  template <class... Parts>
  void expect_refused(const std::string& arguments, const Parts&... parts) {
    const Ended ended = lockstep_program(arguments);
    EXPECT_EQ(ended.status, 2);
    EXPECT_TRUE(ended.err.starts_with("lockstep: ")) << ended.err;
    EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
    EXPECT_TRUE(says(ended.err, parts...));
  }
  static std::string read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  // A file like `path` with one part of its text replaced.
  std::string changed(const std::string& path, const std::string& name, const std::string& from,
                      const std::string& to) {
    std::string text = read(path);
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return folder_.write(name, text.replace(at, from.size(), to));
  }
  const TemporaryFolder folder_;
};

TEST_F(BrokenFile, SuiteWithAnUnknownKey) {
  const std::string suite = changed("suites/smoke.toml", "s.toml", "steps = 3", "stesp = 3");
  expect_refused("sweep " + suite, "s.toml:9: ", "no key `stesp` in [run]", "did you mean `steps`?");
}

TEST_F(BrokenFile, ModelOfAnotherArchitecture) {
  const std::string model =
      changed("suites/models/gate-tiny.json", "m.json", "LlamaForCausalLM", "Qwen3ForCausalLM");
  expect_refused("train --data datasets/excerpt-v509.tok --model " + model, "m.json", "Qwen3ForCausalLM",
                 "only [\"LlamaForCausalLM\"]");
}

TEST_F(BrokenFile, ModelThatIsNoJson) {
  expect_refused("train --data datasets/excerpt-v509.tok --model Makefile", "Makefile", "config.json");
}

TEST_F(BrokenFile, WeightsCutOff) {
  const std::string path = folder_.path() + "/model.safetensors";
  ASSERT_EQ(lockstep_program(train_tiny + "--steps 1 --save " + folder_.path()).status, 0);
  const std::string whole = read(path);
  for (const std::size_t length : {std::size_t{4}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    std::filesystem::resize_file(path, length);
    expect_refused(train_tiny + "--init " + folder_.path(), "model.safetensors");
    folder_.write("model.safetensors", whole);
  }
}

TEST_F(BrokenFile, WeightsWhoseHeaderLies) {
  ASSERT_EQ(lockstep_program(train_tiny + "--steps 1 --save " + folder_.path()).status, 0);
  // The final norm has 64 numbers; the same number of letters keeps the header's length.
  const std::string path = folder_.path() + "/model.safetensors";
  std::string bytes = read(path);
  const std::size_t norm = bytes.find("\"model.norm.weight\""), shape = bytes.find("[64]", norm);
  ASSERT_NE(shape, std::string::npos);
  folder_.write("lie.safetensors", bytes.replace(shape, 4, "[65]"));
  expect_refused(train_tiny + "--init " + folder_.path() + "/lie.safetensors", "lie.safetensors",
                 "model.norm.weight", "needs 260 bytes");
}

TEST_F(BrokenFile, WeightsOfAnotherModel) {
  ASSERT_EQ(lockstep_program(train_tiny + "--steps 1 --save " + folder_.path()).status, 0);
  expect_refused(
      "train --model suites/models/gate-untied.json --data datasets/excerpt-v509.tok --batch 8 --init " +
          folder_.path(),
      "model.layers.0.self_attn.k_proj.weight has the shape [16, 64]", "needs [32, 64]");
}

TEST_F(BrokenFile, TokenBeyondItsVocabulary) {
  // The hash is right, and the last token is 509, the number of ids.
  std::string bytes = read("datasets/excerpt-v509.tok");
  bytes[bytes.size() - 2] = static_cast<char>(509 & 255), bytes[bytes.size() - 1] = 509 >> 8;
  const XXH64_hash_t hash = XXH3_64bits(bytes.data() + 64, bytes.size() - 64);
  std::memcpy(bytes.data() + 32, &hash, sizeof hash);
  expect_refused("train " + tiny_model + "--data " + folder_.write("beyond.tok", bytes), "beyond.tok",
                 "not below its vocabulary, 509");
}

TEST_F(BrokenFile, DumpWithADamagedByte) {
  const std::string a = folder_.path() + "/a.h5", b = folder_.path() + "/b.h5";
  ASSERT_EQ(lockstep_program(train_tiny + "--steps 1 --dump " + a).status, 0);
  const std::string whole = read(a);
  // In the first kilobyte all is structure.
  for (const std::size_t place : {std::size_t{0}, std::size_t{9}, std::size_t{44}}) {
    std::string bytes = whole;
    bytes[place] ^= 0x20;
    folder_.write("b.h5", bytes);
    expect_refused("compare " + a + " " + b, "b.h5");
  }
}

// A run file with one plan.
void write_small_run(const std::string& path) {
  RunRecord run;
  run.plans.resize(1);
  run.plans[0].plan = "dp=1 tp=1 pp=1";
  write_run(run, path);
}

TEST_F(BrokenFile, RunsAreComparedWithRuns) {
  const std::string run = folder_.path() + "/run.h5", dump = folder_.path() + "/a.h5";
  write_small_run(run);
  ASSERT_EQ(lockstep_program(train_tiny + "--steps 1 --dump " + dump).status, 0);
  ASSERT_EQ(lockstep_program("compare " + run + " " + folder_.path()).status, 0);
  for (const std::string& two : {run + " " + dump, dump + " " + folder_.path()})
    expect_refused("compare " + two, "run.h5' is a run of a sweep and ", "a.h5' is not",
                   "two runs, or two dumps");
  expect_refused("compare " + folder_.path(), "run.h5' is a run of a sweep; name a second one");
  expect_refused("compare " + run + " Makefile", "'Makefile' cannot be read as HDF5");
  for (const std::string& two :
       {"--slower 5 " + dump, "--all " + dump + " " + dump, "--allow-missing " + dump})
    expect_refused("compare " + two, "--slower, --all and --allow-missing are for two runs of sweeps");
}

TEST_F(BrokenFile, RunCutOffOrWithADamagedByte) {
  const std::string run = folder_.path() + "/run.h5";
  write_small_run(run);
  const std::string whole = read(run);
  for (const std::size_t place : {std::size_t{0}, std::size_t{9}, std::size_t{44}}) {
    std::string bytes = whole;
    bytes[place] ^= 0x20;
    expect_refused("compare " + run + " " + folder_.write("b.h5", bytes), "b.h5");
  }
  expect_refused("compare " + run + " " + folder_.write("c.h5", whole.substr(0, whole.size() / 2)), "c.h5");
}

TEST(ProgramErrors, HelpIsNoError) {
  const Ended ended = lockstep_program("train --help");
  EXPECT_EQ(ended.status, 0);
  EXPECT_TRUE(says(ended.out, "--weight-decay", "Words of a plan", "ckpt"));
}

}  // namespace
}  // namespace lockstep
