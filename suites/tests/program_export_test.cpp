// What other trainers' own parsers read in an exported plan. Needs the Python of `ci/venv.sh exports`, and is
// skipped without. Expected values are written by hand, from the plan and what each system's documentation
// calls it.
#include <gtest/gtest.h>

#include "suites/planner/export/export.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

const std::string exports_python = "build/venv-exports/bin/python";

struct Case {
  const char *model, *options, *plan;
  int world;             // processes, or replicas where the system is told these
  const char* expected;  // what suites/tests/export_check.py reads
};

const std::string h100_model = " --cluster suites/clusters/h100x64.toml --model suites/models/";

void ask(const std::string& system, const std::string& arguments, const TemporaryFolder& folder) {
  const std::string log = folder.path() + "/log";
  const int status = std::system(
      (exports_python + " suites/tests/export_check.py " + system + arguments + " >" + log + " 2>&1")
          .c_str());
  std::ostringstream said;
  said << std::ifstream(log).rdbuf();
  EXPECT_EQ(status, 0) << said.str();
}

void check(const std::string& system, const std::vector<Case>& cases) {
  if (!std::filesystem::exists(exports_python))
    GTEST_SKIP() << "no " << exports_python << "; `ci/venv.sh exports` makes it (6 GB)";
  const TemporaryFolder folder;
  std::string arguments;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const std::string file = folder.path() + "/" + system + "_plan" + std::to_string(i) + ".py";
    const Ended ended = lockstep_program("plan" + h100_model + c.model + ".json " + c.options + " --export " +
                                         system + " --out " + file + " --explain '" + c.plan + "'");
    ASSERT_EQ(ended.status, 0) << c.plan << ": " << ended.err;
    EXPECT_EQ(ended.out, file + "\n");
    arguments += (i ? " -- " : " ") + file + " " + std::to_string(c.world) + " " + c.expected;
  }
  ask(system, arguments, folder);
}

// Weights of a layer on a rank: D hd (2 H + 2 K) + 3 D F + 2 D, heads and F divided by tp.
// Llama 2 13B, tp=4: 5120 128 40 + 3 5120 3456 + 10240; Llama 3 8B, tp=1: 4096 128 80 + 3 4096 14336 + 8192.
TEST(Export, MegatronParsesItsArguments) {
  check(
      "megatron",
      {{"llama-2-13b", "--batch 256 --seq 4096", "dp=8 tp=4 pp=2 sp=1 zero=1 micro=2 ckpt=full", 64,
        "dp=8 tp=4 pp=2 virtual=1 sp=True layout=None zero=1 bucket=79308800 overlap=True "
        "float32_gradients=True "
        "micro=2 batch=256 seq=4096 recompute=full method=uniform recomputed=1 offload=False activations=0 "
        "bf16=True "
        "layers=40 hidden=5120 ffn=13824 heads=40 kv_heads=40 head_dim=128 vocab=32000 norm='RMSNorm 1e-05' "
        "swiglu=True bias=False tied=False rope=10000 lr=0.001 betas='0.9 0.95' decay=0.1 clip=1"},
       {"llama-3-8b", "--devices 16 --batch 32 --seq 8192",
        "dp=2 tp=2 pp=4 schedule=interleaved virtual=2 ckpt=full every=2 bucket=2", 16,
        "dp=2 tp=2 pp=4 virtual=2 sp=False zero=0 bucket=218120192 recompute=full method=block recomputed=2 "
        "kv_heads=8 rope=500000 rope_factor=None"},
       {"llama-3.1-405b", "--batch 32 --seq 8192", "dp=2 tp=8 pp=4 sp=1 zero=1 ckpt=selective", 64,
        "dp=2 tp=8 pp=4 sp=True layout='Et*31|t*32|t*32|t*31L' recompute=selective "
        "modules=core_attn,layernorm "
        "rope_factor=8"},
       {"llama-3.1-405b", "--devices 16 --batch 32 --seq 8192",
        "dp=1 tp=8 pp=2 sp=1 schedule=interleaved virtual=4", 16,
        "tp=8 pp=2 virtual=4 layout='Et*15|t*16|t*16|t*16|t*16|t*16|t*16|t*15L'"},
       {"llama-3-8b", "--devices 8 --batch 32 --seq 8192", "dp=8 zero=3 ckpt=norms", 8,
        "dp=8 zero=3 recompute=selective modules=layernorm"},
       {"llama-3-8b", "--devices 8 --batch 32 --seq 8192 --gradient-bytes 2", "dp=4 tp=2 zero=2", 8,
        "dp=4 tp=2 zero=2 float32_gradients=False recompute=None"},
       {"smollm2-135m", "--devices 2 --batch 32 --seq 2048 --lr 0.002 --clip 0.5",
        "dp=2 zero=1 offload=optimizer", 2,
        "dp=2 zero=1 offload=True tied=True heads=9 kv_heads=3 lr=0.002 clip=0.5"},
       {"llama-3-8b", "--devices 2 --batch 8 --seq 2048", "tp=2 activations=host", 2,
        "dp=1 tp=2 zero=0 activations=31"},
       {"llama-3-8b", "--devices 2 --batch 8 --seq 2048", "pp=2 activations=host ckpt=attention", 2,
        "pp=2 activations=0 offloaded=attn_norm,qkv_linear,core_attn,attn_proj,mlp_norm modules=core_attn"},
       {"llama-3-8b", "--devices 16 --batch 8 --seq 65536", "dp=2 tp=2 cp=4 sp=1 zero=1", 16,
        "dp=2 tp=2 cp=4 exchange=a2a zero=1 sp=True seq=65536"},
       {"llama-3-8b", "--devices 8 --batch 8 --seq 65536", "cp=8 zero=3 ckpt=full", 8,
        "dp=1 cp=8 exchange=a2a zero=3"}});
}

TEST(Export, DeepSpeedParsesItsConfiguration) {
  check(
      "deepspeed",
      {{"llama-2-13b", "--batch 256 --seq 4096 --lr 0.0003 --steps 1000",
        "dp=8 tp=4 pp=2 zero=1 micro=2 ckpt=full", 8,
        "dp=8 pp=2 zero=1 bucket=79308800 overlap=True batch=256 micro=2 microbatches=16 optimizer_on=none "
        "weights_on=none recomputed=1 activations_on_host=False bf16=True gradients=fp32 sent=torch.float32 "
        "optimizer=adamw lr=0.0003 betas='(0.9, 0.95)' decay=0.1 clip=1"},
       {"llama-3-8b", "--devices 8 --batch 64 --seq 8192",
        "dp=8 zero=3 offload=weights to=disk ckpt=full activations=host micro=2", 8,
        "dp=8 tp=0 zero=3 optimizer_on=nvme weights_on=nvme activations_on_host=True microbatches=4 "
        "bucket=218112000 "
        "prefetch=218112000 smallest=0"},
       {"llama-3-8b", "--devices 8 --batch 64 --seq 8192 --gradient-bytes 2",
        "dp=2 tp=4 zero=2 offload=optimizer", 2,
        "dp=2 tp=4 zero=2 optimizer_on=cpu weights_on=none microbatches=32 gradients=bf16 "
        "sent=torch.bfloat16"},
       {"llama-3-8b", "--devices 8 --batch 64 --seq 8192", "dp=8", 8, "dp=8 zero=0 optimizer_on=none"},
       {"smollm2-135m", "--devices 1 --batch 64 --seq 2048", "offload=weights", 1,
        "dp=1 zero=3 optimizer_on=cpu weights_on=cpu"},
       {"llama-3-8b", "--devices 8 --batch 64 --seq 65536", "dp=2 cp=4 zero=3 micro=2", 2,
        "dp=2 cp=4 zero=3 batch=64 micro=2 microbatches=16"}});
}

TEST(Export, AccelerateParsesItsFile) {
  check("fsdp",
        {{"llama-2-13b", "--batch 256 --seq 4096", "dp=16 tp=4 zero=3 ckpt=full activations=host micro=2", 64,
          "kind=FSDP machines=8 mixed=bf16 dp=16 tp=4 shape=\"(('dp_shard', 'tp'), (16, 4))\" version=2 "
          "reshard=True "
          "offload=OffloadPolicy recompute=True activations_on_host=True unit=LlamaDecoderLayer"},
         {"llama-3-8b", "--devices 8 --batch 64 --seq 8192", "dp=8 zero=2 offload=weights", 8,
          "kind=FSDP machines=1 dp=None tp=1 reshard=False offload=CPUOffloadPolicy recompute=False "
          "activations_on_host=False"},
         {"llama-3-8b", "--devices 8 --batch 64 --seq 8192", "dp=8", 8, "kind=MULTI_GPU dp=None tp=1"},
         {"llama-3-8b", "--devices 8 --batch 64 --seq 8192", "tp=8", 8, "kind=MULTI_GPU dp=1 tp=8"},
         {"smollm2-135m", "--devices 1 --batch 64 --seq 2048", "offload=weights ckpt=full", 1,
          "kind=FSDP machines=1 offload=CPUOffloadPolicy recompute=True"},
         {"llama-3-8b", "--devices 16 --batch 64 --seq 65536", "dp=2 tp=2 cp=4 zero=3", 16,
          "kind=FSDP dp=2 tp=2 cp=4 shape=\"(('dp_shard', 'cp', 'tp'), (2, 4, 2))\" reshard=True"},
         {"llama-3-8b", "--devices 8 --batch 64 --seq 65536", "dp=2 cp=4", 8,
          "kind=FSDP dp=2 cp=4 shape=\"(('dp_shard', 'cp'), (2, 4))\" reshard=False"}});
}

// Numbers of parameters: as published with the models.
TEST(Export, TorchtitanParsesItsModule) {
  check("torchtitan",
        {{"llama-2-13b", "--batch 256 --seq 4096", "dp=8 tp=4 pp=2 sp=1 zero=1 micro=2 ckpt=full", 64,
          "replicas=1 shards=8 tp=4 pp=2 sp=True reshard=never schedule=Schedule1F1B chunks=20,20 batch=256 "
          "microbatches=16 seq=4096 recompute=FullAC offload=False weights=bfloat16 parameters=13015864320 "
          "layers=40 "
          "tied=False heads=40 kv_heads=40 rope='128 10000 none 8' eps=1e-05 lr=0.001 betas='(0.9, 0.95)' "
          "decay=0.1 "
          "norm_decay=0 clip=1 warmup=2 least_lr=0.1"},
         {"llama-3-8b", "--devices 16 --batch 32 --seq 8192",
          "dp=2 tp=2 pp=4 schedule=interleaved virtual=2 ckpt=selective", 16,
          "replicas=2 shards=1 schedule=ScheduleInterleaved1F1B chunks=4,4,4,4,4,4,4,4 microbatches=16 "
          "sp=False "
          "recompute=SelectiveAC parameters=8030261248 kv_heads=8"},
         {"smollm2-135m", "--devices 4 --batch 32 --seq 2048", "dp=4 zero=3 offload=weights micro=2", 4,
          "replicas=1 shards=4 reshard=always offload=True tied=True parameters=134515008 microbatches=4 "
          "chunks= "
          "recompute=None"},
         {"llama-3-8b", "--devices 32 --batch 32 --seq 65536", "dp=4 tp=2 cp=4 zero=3 replicas=2", 32,
          "replicas=2 shards=2 tp=2 cp=4 balance=ptrr microbatches=8 seq=65536"},
         {"llama-3-8b", "--devices 16 --batch 32 --seq 65536", "dp=2 cp=2 pp=4", 16,
          "replicas=2 shards=1 cp=2 pp=4 microbatches=16"},
         {"llama-3.1-405b", "--batch 32 --seq 8192", "dp=2 tp=8 pp=4 schedule=gpipe zero=1", 64,
          "schedule=ScheduleGPipe chunks=31,32,32,31 parameters=405853388800 rope='128 500000 llama 8'"}});
}

TEST(ExportCommand, WritesTheFastestPlanOrSaysWhyNot) {
  const std::string plan = "plan" + h100_model + "gate-untied.json --devices 2 --batch 8 --seq 16 --export ";
  const Ended chosen = lockstep_program(plan + "deepspeed --words 'ckpt=none'");
  EXPECT_EQ(chosen.status, 0) << chosen.err;
  EXPECT_EQ(chosen.out.front(), '{');  // nothing else on standard output
  EXPECT_TRUE(says(chosen.err, "` for deepspeed", "not expressed: model"));
  EXPECT_TRUE(says(chosen.err, "3 steps with a learning rate of 0.001 after 2 of warm-up: yours to say"));

  const Ended unknown = lockstep_program(plan + "nemo");
  EXPECT_EQ(unknown.status, 2);
  EXPECT_TRUE(says(unknown.err, "nemo", "deepspeed, fsdp, megatron, torchtitan"));
  const Ended nowhere = lockstep_program(plan + "fsdp --explain dp=2 --out /nonexistent/file");
  EXPECT_EQ(nowhere.status, 2);
  EXPECT_TRUE(says(nowhere.err, "cannot write /nonexistent/file"));
  const Ended pipeline = lockstep_program(plan + "fsdp --explain pp=2");
  EXPECT_EQ(pipeline.status, 2);
  EXPECT_EQ(pipeline.out, "");
  EXPECT_TRUE(says(pipeline.err, "no pipeline", "--words \"pp=1\""));
}

// What another trainer makes of a plan is said with what it is predicted to reach and to need.
TEST(ExportCommand, WhatIsWrittenIsForetold) {
  const std::string plan = "plan" + h100_model + "llama-2-13b.json --batch 256 --seq 4096 --export ";
  const auto said = [&](const std::string& more) {
    const Ended ended = lockstep_program(plan + more);
    EXPECT_EQ(ended.status, 0) << ended.err;
    return ended.err;
  };
  EXPECT_TRUE(
      says(said("deepspeed --explain dp=64"), "DOES NOT FIT", "252.5 GiB needed of a device that has 79.1"));
  const std::string selective = " --explain 'dp=64 micro=4 ckpt=selective zero=3'";
  EXPECT_TRUE(says(said("deepspeed" + selective),
                   "as it is written, `dp=64 tp=1 pp=1 micro=4 zero=3`: ", "DOES NOT FIT"));
  const std::string whole = said("fsdp" + selective);
  EXPECT_TRUE(says(whole, "`dp=64 tp=1 pp=1 micro=4 ckpt=full zero=3`: ", "the plan 483857"));
  EXPECT_EQ(whole.find("FIT"), std::string::npos) << whole;
  // Megatron-LM keeps attention's output, which selective drops, and SwiGLU's product; torchtitan that
  // output.
  EXPECT_TRUE(says(said("megatron" + selective),
                   "as it is written, `dp=64 tp=1 pp=1 micro=4 ckpt=norms zero=3`: ", "DOES NOT FIT"));
  EXPECT_TRUE(says(said("torchtitan" + selective),
                   "as it is written, `dp=64 tp=1 pp=1 micro=4 ckpt=swiglu zero=3`: "));
  EXPECT_TRUE(says(said("megatron --explain 'dp=64 micro=2 ckpt=attention every=2 zero=3'"),
                   "as it is written, `dp=64 tp=1 pp=1 micro=2 zero=3`: "));
  const std::string norms = said("megatron --explain 'dp=64 micro=2 ckpt=norms zero=3'");
  EXPECT_EQ(norms.find("as it is written"), std::string::npos) << norms;
  // Other words too: activations that stay on the device.
  for (const char* system : {"torchtitan", "deepspeed", "fsdp"})
    EXPECT_TRUE(says(said(std::string(system) + " --explain 'dp=64 micro=4 zero=3 activations=host'"),
                     "as it is written, `dp=64 tp=1 pp=1 micro=4 zero=3`: ", "DOES NOT FIT"))
        << system;
  // What is chosen is what will be run.
  for (const char* system : {"deepspeed", "megatron"}) {
    const std::string chosen =
        said(std::string(system) + " --words 'offload=none activations=device tp=1 pp=1'");
    EXPECT_EQ(chosen.find("as it is written"), std::string::npos) << chosen;
    EXPECT_EQ(chosen.find("FIT"), std::string::npos) << chosen;
    EXPECT_TRUE(
        says(chosen, "the first choice, `dp=64 tp=1 pp=1 micro=4 ckpt=selective zero=3`, cannot be written"));
  }
}

// Without --explain a plan is chosen that is written with its own words, or those that were asked for.
TEST(ExportCommand, WhatIsChosenIsWhatIsWritten) {
  const std::string plan = "plan" + h100_model + "llama-2-13b.json --batch 256 --seq 4096 --export ";
  const auto said = [&](const std::string& more) { return lockstep_program(plan + more).err; };
  EXPECT_TRUE(
      says(said("torchtitan --words 'zero=3 offload=optimizer,weights pp=1 tp=1'"), "offload=weights",
           "the first choice, `dp=64 tp=1 pp=1 micro=4 ckpt=selective offload=optimizer zero=3`, cannot "
           "be written"));
  const std::string pipeline = said("fsdp --words 'zero=0,1 pp=1,2'");
  EXPECT_TRUE(says(pipeline, "pp=1 micro=2 zero=1` for fsdp", "pp=2 schedule=interleaved"));
  EXPECT_EQ(pipeline.find("as it is written"), std::string::npos) << pipeline;
  const std::string asked = said("torchtitan --words 'pp=4 tp=1 micro=1 schedule=zero-bubble'");
  EXPECT_TRUE(says(asked, "schedule=zero-bubble zero=1` for torchtitan", "as it is written, `"));
  EXPECT_TRUE(says(said("fsdp --words 'pp=2 tp=1 micro=1'"), "no pipeline", "--words \"pp=1\""));
}

// Of all legal plans of a small model some are tried: whatever is not refused, the parser takes.
class Exports : public testing::TestWithParam<const char*> {};

TEST_P(Exports, AreAcceptedWhateverThePlan) {
  if (!std::filesystem::exists(exports_python))
    GTEST_SKIP() << "no " << exports_python << "; `ci/venv.sh exports` makes it (6 GB)";
  const std::string system = GetParam();
  const ModelConfig model = load_model_config("suites/models/gate-untied.json");
  Cluster cluster = load_cluster("suites/clusters/h100x64.toml");
  cluster.devices = 8;
  Settings settings = settings_on(cluster, {});
  settings.batch = 16, settings.seq = 64;
  const Values values =
      plan_values(model, settings, 8, parse_values("micro=1,2 every=1,2 bucket=1,3 virtual=1,2 cp=1,2"));
  const TemporaryFolder folder;
  std::string arguments;
  int plans = 0, written = 0;
  each_legal_plan(model, settings, 8, values, [&](const Plan& plan) {
    if (++plans % 1301) return;
    std::string text;
    try {
      text = exported(exporter(system), {model, settings, cluster}, plan).text;
    } catch (const UserError&) {
      return;
    }
    const std::string file = folder.write(system + "_plan" + std::to_string(written) + ".py", text);
    arguments += (written++ ? " -- " : " ") + file + " " +
                 std::to_string(system == "deepspeed" ? plan.number("dp") : plan.ranks());
  });
  EXPECT_GT(written, 3);
  ask(system, arguments, folder);
}

INSTANTIATE_TEST_SUITE_P(To, Exports, testing::Values("megatron", "deepspeed", "fsdp", "torchtitan"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace lockstep
