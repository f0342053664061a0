// No word of a plan is lost on its way to another system: it changes what is written, or a sentence names it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "suites/tests/asked_export.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// What is said to the system: the text, and how it is run.
std::string said(const Exporter& e, const Exported& x) {
  std::string kept;
  for (const std::string& line : x.usage) kept += line + "\n";
  std::istringstream lines(x.text);
  for (std::string line; std::getline(lines, line);)
    if (e.comment.empty() || !line.starts_with(e.comment)) kept += line + "\n";
  return kept;
}

TEST(ExportWords, NoneIsLost) {
  const AskedExport a("gate-untied");
  const Values values = plan_values(
      a.model, a.settings, 8, parse_values("micro=1,2 every=1,2 bucket=1,3 virtual=1,2 replicas=1,2 cp=1,2"));
  i64 plans = 0, words = 0, refused = 0;
  std::map<std::string, i64> compared;
  std::map<std::string, std::string> lost;
  each_legal_plan(a.model, a.settings, 8, values, [&](const Plan& plan) {
    if (++plans % 7) return;  // some of 20,000
    for (const std::string& system : export_names()) {
      const Exporter& e = exporter(system);
      Exported x;
      try {
        x = exported(e, a.question(), plan);
      } catch (const UserError& error) {
        ++refused;
        EXPECT_TRUE(says(error.what(), plan.line(), "--words"));
        continue;
      }
      for (const Word& word : plan_words()) {
        if (plan.text(word.name) == word.fallback) continue;
        if (word.name == "zero" && plan.sharers() == 1) continue;  // shards nothing
        Plan other = plan;
        other.set(word.name, word.fallback);
        if (refuse_anywhere(other, a.model, a.settings)) continue;  // the mesh, or others stand on this word
        ++words, ++compared[word.name];
        const std::string value = word.name + "=" + plan.text(word.name);
        if (named(x.missing, value)) continue;
        Exported y;
        try {
          y = exported(e, a.question(), other);
        } catch (const UserError&) {
          continue;
        }
        if (said(e, x) == said(e, y) && !named(y.missing, word.name + "=" + word.fallback))
          lost[value + " on the way to " + system] = plan.line();
      }
    }
  });
  for (const auto& [what, plan] : lost) ADD_FAILURE() << what << " is lost: " << plan;
  EXPECT_GT(words, 10000);
  EXPECT_GT(refused, 100);
  for (const char* word : {"cp", "micro", "activations", "bucket", "ckpt", "every", "offload", "replicas",
                           "schedule", "sp", "to", "zero"})
    EXPECT_GT(compared[word], 0) << word;
}

// A sentence for each thing that a system has no word for, of the plan's own words.
TEST(ExportWords, WhatIsMissingIsSaid) {
  const AskedExport a("gate-untied");
  const struct {
    const char *system, *plan, *says;
  } cases[] = {
      {"megatron", "dp=2 pp=4 schedule=zero-bubble", "schedule=zero-bubble"},
      {"megatron", "dp=8 ckpt=swiglu", "ckpt=swiglu"},
      {"megatron", "dp=8 zero=1 offload=optimizer to=disk", "to=disk"},
      {"megatron", "dp=8 ckpt=full activations=host", "activations=host"},
      {"megatron", "dp=8 offload=weights", "offload=weights"},
      {"megatron", "dp=8 schedule=gpipe", "schedule=gpipe"},
      {"deepspeed", "dp=2 tp=4 sp=1", "sp=1"},
      {"deepspeed", "dp=2 pp=4", "pp=4"},
      {"deepspeed", "dp=4 pp=2 schedule=interleaved virtual=2", "schedule=interleaved virtual=2"},
      {"deepspeed", "dp=8 zero=2 offload=weights", "offload=weights"},
      {"deepspeed", "dp=8 activations=host", "activations=host"},
      {"fsdp", "dp=8 zero=1", "zero=1"},
      {"fsdp", "dp=8 zero=3 ckpt=norms", "ckpt=norms"},
      {"fsdp", "dp=8 zero=3 offload=optimizer", "offload=optimizer"},
      {"fsdp", "dp=8 zero=3 activations=host", "activations=host"},
      {"deepspeed", "dp=4 cp=2 zero=3", "cp=2"},
      {"fsdp", "dp=4 cp=2 zero=3", "cp=2"},
      {"fsdp", "dp=4 cp=2", "zero=0 with cp=2"},
      {"torchtitan", "dp=4 cp=2 zero=3", "cp=2"},
      {"torchtitan", "dp=4 cp=2", "zero=0 with cp=2"},
      {"fsdp", "dp=4 cp=2 zero=3 replicas=2", "replicas=2 with cp=2"},
      {"torchtitan", "dp=4 cp=2 zero=3 replicas=2", "replicas=2 with cp=2"},
      {"torchtitan", "dp=2 pp=4 schedule=zero-bubble", "schedule=zero-bubble"},
      {"torchtitan", "dp=8 activations=disk", "activations=disk"},
      {"torchtitan", "dp=2 pp=4 zero=3", "zero=3"},
      {"torchtitan", "dp=8 zero=3 ckpt=full every=2", "every=2"},
  };
  for (const auto& c : cases) {
    EXPECT_FALSE(refuse_anywhere(Plan::parse(c.plan), a.model, a.settings)) << c.plan;
    EXPECT_TRUE(named(a.to(c.system, c.plan).missing, c.says)) << c.system << ": " << c.plan;
  }
}

// A schedule that a new file brings; in a process of its own, for words stay.
TEST(ExportWords, AScheduleThatNobodyKnowsIsSaid) {
  for (const std::string system : {"megatron", "deepspeed", "torchtitan"})
    EXPECT_EXIT(
        {
          declare_word({"schedule", "1f1b", {"mine"}, ""});
          const Exported x = AskedExport("gate-untied").to(system, "dp=2 pp=4 schedule=mine");
          std::exit(named(x.missing, "schedule=mine") ? 0 : 1);
        },
        testing::ExitedWithCode(0), "")
        << system;
}

// A number that nobody chose is written as nobody's.
TEST(ExportWords, StepsAndLearningRateAreTheUsersToSay) {
  AskedExport a("gate-untied");
  const Exported none = a.to("deepspeed", "dp=8");
  EXPECT_EQ(none.text.find("\"lr\""), std::string::npos) << none.text;
  EXPECT_EQ(none.text.find("scheduler"), std::string::npos) << none.text;
  EXPECT_TRUE(named(none.missing, "lr: nobody said it") && named(none.missing, "scheduler: nobody said"));
  for (const char* system : {"megatron", "fsdp", "torchtitan"})
    EXPECT_TRUE(says(a.to(system, "dp=8").text, "SET THIS: 3 steps"));
  a.settings.steps = 1000;  // one of two is not enough
  EXPECT_TRUE(says(a.to("megatron", "dp=8").text, "SET THIS: 1000 steps"));
  a.settings.lr = 3e-4;
  const Exported both = a.to("deepspeed", "dp=8");
  EXPECT_TRUE(says(both.text, "\"lr\": 0.0003", "\"total_num_steps\": 1000"));
  EXPECT_FALSE(named(both.missing, "nobody said"));
  EXPECT_EQ(a.to("megatron", "dp=8").text.find("SET THIS"), std::string::npos);
  a.settings.steps = Settings{}.steps, a.settings.total = 1000;  // a schedule's length is as good
  EXPECT_EQ(a.to("megatron", "dp=8").text.find("SET THIS"), std::string::npos);
}

// Numbers stand under the names that each system's documentation has for them, whether or not its parser is
// here (program_export_test.cpp). Llama 3 8B on two nodes of eight; a layer on one of two tp ranks has
// 4096 128 (2 16 + 2 4) + 3 4096 7168 + 2 4096 weights.
TEST(ExportWords, NumbersStandUnderTheirNames) {
  AskedExport a("llama-3-8b", 16);
  a.settings.batch = 64, a.settings.seq = 8192, a.settings.lr = 2e-3, a.settings.steps = 1000;
  const auto to = [&](const char* system, const char* plan) {
    const Exported x = a.to(system, plan);
    return said(exporter(system), x);
  };
  EXPECT_TRUE(says(to("megatron", "dp=4 tp=4 zero=1 micro=2"), "\n--tensor-model-parallel-size 4\n",
                   "\n--pipeline-model-parallel-size 1\n"));
  EXPECT_TRUE(says(to("megatron", "dp=4 tp=2 pp=2 zero=1 micro=2"), "torchrun --nnodes 2 --nproc-per-node 8 ",
                   "\n--num-attention-heads 32\n", "\n--num-query-groups 8\n", "\n--vocab-size 128256\n",
                   "\n--untie-embeddings-and-output-weights\n", "\n--rotary-base 500000\n",
                   "\n--seq-length 8192\n", "\n--micro-batch-size 2\n", "\n--global-batch-size 64\n",
                   "\n--lr 0.002\n", "\n--min-lr 0.0002\n", "\n--lr-decay-iters 1000\n",
                   "\n--lr-warmup-iters 2\n", "\n--adam-beta1 0.9\n", "\n--adam-beta2 0.95\n",
                   "\n--weight-decay 0.1\n", "\n--ddp-bucket-size 109060096\n"));
  // Chunks of unequal length say how many there are; then nothing else may.
  AskedExport large("llama-3.1-405b", 16);
  large.settings.batch = 64, large.settings.seq = 8192;
  const std::string chunks = large.to("megatron", "tp=8 pp=2 schedule=interleaved virtual=2").text;
  EXPECT_TRUE(says(chunks, "\n--pipeline-model-parallel-layout Et*31|t*32|t*32|t*31L\n"));
  EXPECT_EQ(chunks.find("--num-virtual"), std::string::npos) << chunks;
  EXPECT_TRUE(says(to("megatron", "tp=4 pp=4 schedule=interleaved virtual=2"),
                   "\n--num-virtual-stages-per-pipeline-rank 2\n"));
  const auto j = nlohmann::json::parse(a.to("deepspeed", "dp=8 tp=2 zero=2 micro=2").text);
  EXPECT_EQ(j["train_batch_size"], 64);
  EXPECT_EQ(j["train_micro_batch_size_per_gpu"], 2);
  EXPECT_EQ(j["gradient_accumulation_steps"], 64 / 8 / 2);
  EXPECT_EQ(j["tensor_parallel"]["autotp_size"], 2);
  EXPECT_EQ(j["zero_optimization"]["stage"], 2);
  EXPECT_EQ(j["zero_optimization"]["reduce_bucket_size"], 109060096);
  EXPECT_EQ(j["optimizer"]["params"]["betas"], (nlohmann::json{0.9, 0.95}));
  EXPECT_EQ(j["optimizer"]["params"]["lr"], 2e-3);
  EXPECT_EQ(j["scheduler"]["params"]["total_num_steps"], 1000);
  EXPECT_EQ(j["scheduler"]["params"]["cos_min_ratio"], 0.1);
  EXPECT_TRUE(says(to("fsdp", "dp=8 tp=2 zero=3 micro=2"), "\nnum_machines: 2\n", "\nnum_processes: 16\n",
                   "dp_shard_size: 8\n", "tp_size: 2\n", "--per_device_train_batch_size 2 ",
                   "--gradient_accumulation_steps 4 ", "--max_steps 1000\n", "--learning_rate 0.002 ",
                   "\"min_lr_rate\": 0.1"));
  EXPECT_TRUE(
      says(to("torchtitan", "dp=4 tp=2 pp=2 zero=1 micro=2"), "n_heads=32, n_kv_heads=8, head_dim=128",
           "hidden_dim=14336", "vocab_size=128256, enable_weight_tying=False", "theta=500000",
           "local_batch_size=16, global_batch_size=64, seq_len=8192, max_norm=1, steps=1000",
           "data_parallel_shard_degree=4", "tensor_parallel_degree=2", "pipeline_parallel_degree=2",
           "pipeline_parallel_microbatch_size=2", "parts([16, 16])", "warmup_steps=2, total_steps=1000",
           "min_lr_factor=0.1", "\"lr\": 0.002, \"betas\": (0.9, 0.95)"));
}

// Eight ranks: what is the business of some plans only, and is not said of those beside them. (Of 32 layers
// every third from the first on is 11; two layers' weights are twice those above.)
TEST(ExportWords, WhatOnePlanWantsAnotherDoesNot) {
  AskedExport a("llama-3-8b");
  a.settings.gradient_bytes = 4;
  const struct {
    const char *system, *plan, *says, *other;
  } cases[] = {
      {"deepspeed", "dp=8 zero=3 offload=weights", "offload_param", "dp=8 zero=3 offload=optimizer"},
      {"fsdp", "dp=8 zero=2", "sync_each_batch", "dp=8 zero=1"},
      {"fsdp", "dp=8 zero=2", "sync_each_batch", "dp=8 zero=2 micro=2"},
      {"fsdp", "dp=8 zero=3", "reshard_after_forward: true", "dp=8 zero=2"},
      {"fsdp", "offload=weights", "reshard_after_forward: true", "dp=8 zero=2 offload=weights"},
      {"fsdp", "dp=8 zero=3", "gradients of 4 bytes", "dp=8"},
      {"megatron", "dp=8 zero=3", "--overlap-param-gather", "dp=8 zero=2"},
      {"megatron", "dp=8 ckpt=full every=3", "--recompute-num-layers 11\n", "dp=8 ckpt=full"},
      {"megatron", "dp=4 tp=2 bucket=2", "--ddp-bucket-size 218120192\n", "dp=4 tp=2"},
      {"torchtitan", "dp=8", "replicate_degree=8, data_parallel_shard_degree=1,", "dp=8 zero=1"},
  };
  for (const auto& c : cases) {
    EXPECT_TRUE(says(a.to(c.system, c.plan).text, c.says)) << c.system << ": " << c.plan;
    EXPECT_FALSE(says(a.to(c.system, c.other).text, c.says)) << c.system << ": " << c.other;
  }
}

// What a system would refuse, or read otherwise: a warm-up is shorter than its schedule, positions reach to
// the sequence's end, gradients are summed in their own type. On 16 ranks each of 8 key/value heads is on
// two.
TEST(ExportWords, NumbersAreWhatTheSystemMeans) {
  AskedExport a("llama-3-8b", 16);
  a.settings.seq = 16384, a.settings.steps = 1000, a.settings.warmup = 5000;
  EXPECT_TRUE(says(a.to("megatron", "tp=8 cp=2").text, "\n--lr-warmup-iters 999\n",
                   "\n--max-position-embeddings 16384\n"));
  EXPECT_TRUE(says(a.to("megatron", "dp=8 cp=2").usage[0], "CUDA_DEVICE_MAX_CONNECTIONS=1 torchrun"));
  for (const int bytes : {2, 4}) {
    a.settings.gradient_bytes = bytes;
    const auto j = nlohmann::json::parse(a.to("deepspeed", "dp=16").text);
    EXPECT_EQ(j["communication_data_type"], bytes == 2 ? "bf16" : "fp32");
    EXPECT_EQ(a.to("megatron", "dp=16").text.find("--grad-reduce-in-bf16") < std::string::npos, bytes == 2);
  }
  a.settings.weight_bytes = 4, a.settings.gradient_bytes = 2;
  EXPECT_EQ(a.to("megatron", "dp=16").text.find("bf16"), std::string::npos);
  EXPECT_EQ(layer_elements(a.model, 16), 4096 * (128 * (2 * 2 + 2 * 1) + 3 * 14336 / 16 + 2));
  EXPECT_TRUE(says(AskedExport("gate-tiny").to("torchtitan", "dp=8").text, "param_init=SKIP)"));
  EXPECT_FALSE(says(AskedExport("gate-untied").to("torchtitan", "dp=8").text, "param_init=SKIP)"));
}

// Sixteen ranks in two groups of eight that share.
TEST(ExportWords, GroupsOfReplicasStandUnderTheirNames) {
  const AskedExport a("llama-3-8b", 16);
  const char* plan = "dp=16 zero=3 replicas=2";
  EXPECT_TRUE(says(a.to("megatron", plan).text, "\n--num-distributed-optimizer-instances 2\n"));
  EXPECT_TRUE(says(a.to("fsdp", plan).text, "dp_replicate_size: 2\n", "dp_shard_size: 8\n", "tp_size: 1\n"));
  EXPECT_TRUE(says(a.to("torchtitan", plan).text, "data_parallel_replicate_degree=2",
                   "data_parallel_shard_degree=8"));
  const auto j = nlohmann::json::parse(a.to("deepspeed", plan).text);
  EXPECT_EQ(j["zero_optimization"]["mics_shard_size"], 8);
  EXPECT_TRUE(named(a.to("deepspeed", "dp=16 zero=1 replicas=2").missing, "replicas=2"));
}

// Sixteen ranks, of which two share each sequence.
TEST(ExportWords, SegmentsOfSequencesStandUnderTheirNames) {
  const AskedExport a("llama-3-8b", 16);
  const char* plan = "dp=8 cp=2 zero=3 micro=2";
  const Exported megatron = a.to("megatron", plan);
  EXPECT_TRUE(says(megatron.text, "\n--context-parallel-size 2\n--cp-comm-type a2a\n",
                   "\n--data-parallel-sharding-strategy optim_grads_params\n"));
  EXPECT_TRUE(megatron.missing.empty());
  EXPECT_EQ(a.to("megatron", "dp=16 zero=3").text.find("context"), std::string::npos);
  // What is shared is so by all sixteen, with one replica too.
  EXPECT_TRUE(says(a.to("megatron", "tp=8 cp=2 zero=1").text, "--use-distributed-optimizer"));
  EXPECT_TRUE(says(a.to("fsdp", plan).text, "num_processes: 16\n", "dp_shard_size: 8\n", "cp_size: 2\n",
                   "sp_size: 1\n"));
  EXPECT_TRUE(says(a.to("fsdp", "cp=8 dp=2 zero=3 replicas=2").text, "dp_replicate_size: 2\n",
                   "dp_shard_size: 1\n", "cp_size: 8\n"));
  EXPECT_TRUE(says(a.to("torchtitan", plan).text, "data_parallel_shard_degree=8", "context_parallel_degree=2",
                   "context_parallel_load_balancer=\"ptrr\""));
  const auto j = nlohmann::json::parse(a.to("deepspeed", plan).text);
  EXPECT_EQ(j["data_parallel_size"], 8);
  EXPECT_EQ(j["sequence_parallel_size"], 2);
  EXPECT_EQ(j["gradient_accumulation_steps"], 16 / 8 / 2);
  EXPECT_EQ(
      nlohmann::json::parse(
          a.to("deepspeed", "dp=8 cp=2 zero=3 replicas=4").text)["zero_optimization"]["mics_shard_size"],
      4);
}

// Each node is told its number and where the first one is: by itself it would wait for ever.
TEST(ExportWords, TheFirstNodesAddressIsTheUsersToSay) {
  const struct {
    const char *system, *line, *names;
  } cases[] = {
      {"fsdp", "--machine_rank ... --main_process_ip ... --main_process_port ...",
       "its number from 0 (--machine_rank), the address of node 0 (--main_process_ip) and a free port there "
       "(--main_process_port)"},
      {"megatron",
       "torchrun --nnodes 2 --nproc-per-node 8 --node-rank NODE --master-addr HOST --master-port PORT",
       "its number from 0 (NODE), the address of node 0 (HOST) and a free port there (PORT)"},
      {"torchtitan",
       "--nproc-per-node 8 --node-rank NODE --master-addr HOST --master-port PORT -m torchtitan.train",
       "its number from 0 (NODE), the address of node 0 (HOST) and a free port there (PORT)"},
      {"deepspeed", "--nproc-per-node 8 --node-rank NODE --master-addr HOST --master-port PORT YOUR_SCRIPT",
       "deepspeed --hostfile HOSTS YOUR_SCRIPT --deepspeed THIS_FILE; HOSTS has a line `ADDRESS slots=8`"},
  };
  for (const auto& c : cases) {
    const auto one = AskedExport("gate-untied", 8).to(c.system, "dp=8 zero=3").usage,
               two = AskedExport("gate-untied", 16).to(c.system, "dp=16 zero=3").usage;
    EXPECT_TRUE(named(two, "on each of the 2 nodes, and yours to say")) << c.system;
    EXPECT_TRUE(named(two, c.line) && named(two, c.names)) << c.system;
    for (const char* none : {"of the", "NODE", "HOST", "machine_rank"})
      EXPECT_FALSE(named(one, none)) << c.system << ": " << none;
  }
}

// What each system has is not called missing.
TEST(ExportWords, WhatIsThereIsNotCalledMissing) {
  const AskedExport a("llama-2-7b");
  EXPECT_TRUE(a.to("megatron", "dp=2 tp=2 pp=2 sp=1 zero=1 ckpt=full schedule=interleaved virtual=2")
                  .missing.empty());
  EXPECT_TRUE(a.to("megatron", "dp=8 zero=3 ckpt=norms").missing.empty());
  EXPECT_TRUE(a.to("torchtitan", "dp=4 tp=2 sp=1 zero=3 offload=weights ckpt=full").missing.empty());
  EXPECT_TRUE(a.to("torchtitan", "dp=2 pp=4 zero=1 schedule=gpipe micro=2").missing.empty());
}

// A mesh that the system does not have is refused: a file would be of another plan.
TEST(ExportWords, MeshesThatCannotBeAreRefused) {
  const AskedExport a("gate-untied"), tied("gate-tiny");
  EXPECT_TRUE(
      says(refusal([&] { a.to("fsdp", "dp=4 pp=2"); }), "no pipeline", "dp=4 tp=1 pp=2", "--words \"pp=1\""));
  EXPECT_TRUE(says(refusal([&] { a.to("deepspeed", "dp=4 pp=2 zero=3"); }), "ZeRO", "--words"));
  for (const char* plan : {"dp=2 cp=2 pp=2", "dp=2 cp=2 tp=2"})
    EXPECT_TRUE(says(refusal([&] { a.to("deepspeed", plan); }), "Ulysses", "--words \"cp=1\""));
  for (const char* system : {"fsdp", "torchtitan"})
    EXPECT_TRUE(says(refusal([&] { a.to(system, "dp=2 cp=4 zero=1 replicas=4"); }), "4 groups", "dp=2",
                     "--words \"replicas=1\""));
  AskedExport odd("gate-untied");
  odd.settings.seq = 62;
  EXPECT_TRUE(says(refusal([&] { odd.to("megatron", "dp=4 cp=2"); }), "62 tokens", "--words \"cp=1\""));
  EXPECT_TRUE(says(refusal([&] { tied.to("torchtitan", "dp=4 pp=2"); }), "tied", "--words \"pp=1\""));
  EXPECT_TRUE(says(refusal([&] { exporter("nemo"); }), "nemo", "deepspeed, fsdp, megatron, torchtitan"));
}

}  // namespace
}  // namespace lockstep
