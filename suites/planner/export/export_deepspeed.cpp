// DeepSpeed's configuration file (deepspeed.ai/docs/config-json). It says nothing of the model, and what the
// model's code must do (stages, recomputation) it can only be told beside it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "suites/planner/export/export.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

const char* bytes_name(int bytes) { return bytes == 2 ? "bf16" : "fp32"; }

Json schedule_of(const Settings& s) {
  return {{"type", "WarmupCosineLR"},
          {"params",
           {{"total_num_steps", schedule_steps(s)},
            {"warmup_num_steps", std::max<i64>(s.warmup, 1)},
            {"warmup_min_ratio", 0.0},
            {"warmup_type", "linear"},
            {"cos_min_ratio", s.min_ratio}}}};
}

class DeepSpeed : PlanWriter {
 public:
  DeepSpeed(const Question& q, const Plan& p)
      : PlanWriter(q, p),
        dp_(p.number("dp")),
        cp_(p.number("cp")),
        sharers_(p.sharers()),
        tp_(p.number("tp")),
        pp_(p.number("pp")),
        zero_(p.number("zero")) {}

  Exported write() {
    if (pp_ > 1 && zero_ >= 2)
      cannot_run("DeepSpeed's pipeline takes no ZeRO above 1", p_, "--words \"zero=0,1\" or \"pp=1\"");
    if (cp_ > 1 && (pp_ > 1 || tp_ > 1))
      cannot_run("DeepSpeed joins Ulysses with neither its pipeline nor AutoTP", p_,
                 "--words \"cp=1\" or \"tp=1 pp=1\"");
    const Settings& s = q_.settings;
    Json j = {
        {"train_batch_size", s.batch},
        {"train_micro_batch_size_per_gpu", p_.number("micro")},
        {"gradient_accumulation_steps", microbatches(s, p_)},
        {"bf16", {{"enabled", s.weight_bytes == 2}}},
        {"communication_data_type", bytes_name(s.gradient_bytes)},
        {"data_types", {{"grad_accum_dtype", bytes_name(s.gradient_bytes)}}},
        {"gradient_clipping", s.clip},
        {"optimizer",
         {{"type", "AdamW"},
          {"params", {{"betas", {s.beta1, s.beta2}}, {"eps", s.eps}, {"weight_decay", s.weight_decay}}}}}};
    // This file has no comment to say that a number is nobody's: it is left out.
    if (says_rate(s))
      j["optimizer"]["params"]["lr"] = s.lr;
    else
      say("lr: nobody said it (--lr), and it is left out");
    if (says_steps(s))
      j["scheduler"] = schedule_of(s);
    else
      say("scheduler: nobody said for how many steps (--steps or --total), and it is left out");
    zero(j);
    if (tp_ > 1) tensor(j);
    if (cp_ > 1) sequences(j);
    if (pp_ > 1) pipeline(j);
    say_one_stage(p_, x_);
    recomputation(j);
    say("model: its shape is not in this file; the config.json that the plan was made with is transformers' "
        "own");
    say("weight decay: of the matrices only in the plan; DeepSpeed decays norms too unless the script gives "
        "it "
        "parameter groups");
    x_.text = j.dump(2) + "\n";
    x_.usage = {torchrun(q_.cluster, p_) + " YOUR_SCRIPT --deepspeed THIS_FILE"};
    say_nodes(q_.cluster, p_, x_.usage);
    if (const int nodes = machines(q_.cluster, p_); nodes > 1)
      x_.usage.push_back(
          fmt::format("or on one of them, by its own launcher over ssh: deepspeed --hostfile HOSTS "
                      "YOUR_SCRIPT --deepspeed THIS_FILE; HOSTS has a line `ADDRESS slots={}` for each node",
                      p_.ranks() / nodes));
    return std::move(x_);
  }

 private:
  void zero(Json& j) {
    const std::string offload = p_.text("offload");
    const bool disk = offload != "none" && p_.text("to") == "disk", weights = offload == "weights";
    // A ZeRO of one rank shards nothing: there any stage is the plan's own.
    int stage = zero_;
    if (pp_ == 1 && sharers_ == 1 && (weights || disk)) stage = 3;
    if (offload != "none" && stage == 0) {
      stage = 1;
      if (sharers_ > 1) {
        say("{} with zero=0: DeepSpeed offloads from ZeRO 1 on; written is 1", word("offload"));
        x_.instead["zero"] = "1", x_.instead["bucket"] = "1";  // ZeRO 1 of a plan has no other
      }
    }
    Json z = {{"stage", stage}};
    if (offload != "none") {
      const bool nvme = disk && stage == 3;
      if (disk && !nvme) {
        say("{}: DeepSpeed keeps moments on a disk with ZeRO 3 only; written is the host", word("to"));
        x_.instead["to"] = "host";
      }
      const Json rest = nvme ? Json{{"device", "nvme"}, {"nvme_path", "/local_nvme"}}
                             : Json{{"device", "cpu"}, {"pin_memory", true}};
      z["offload_optimizer"] = rest;
      if (weights && stage == 3) z["offload_param"] = rest;
      if (weights && stage < 3) {
        say("{}: DeepSpeed offloads weights with ZeRO 3 only; they stay", word("offload"));
        x_.instead["offload"] = "optimizer";
      }
      if (nvme) say("{}: which folder; write it for /local_nvme", word("to"));
    }
    if (stage > 0) {
      z["overlap_comm"] = true;
      z["reduce_bucket_size"] = layer_elements(q_.model, tp_);  // a unit of the plan
    } else if (sharers_ > 1) {
      say("{}: without ZeRO DeepSpeed reduces gradients after the last backward, 500,000,000 elements at a "
          "time",
          word("bucket"));
    }
    if (stage == 3) {
      z["stage3_prefetch_bucket_size"] = layer_elements(q_.model, tp_);  // the next unit
      z["stage3_param_persistence_threshold"] = 0;                       // norms are shards too
    }
    if (const int replicas = p_.number("replicas"); replicas > 1 && stage == 3) {
      z["mics_shard_size"] = sharers_ / replicas;
      say("{}: DeepSpeed's MiCS, for which the model is made within deepspeed.zero.MiCS_Init",
          word("replicas"));
    } else if (replicas > 1) {
      say("{}: DeepSpeed has groups with ZeRO 3 only; written is one of all replicas", word("replicas"));
      x_.instead["replicas"] = "1";
    }
    j["zero_optimization"] = z;
  }

  void tensor(Json& j) {
    x_.instead["sp"] = "0";
    if (p_.number("sp"))
      say("{}: AutoTP keeps norms and the residual stream whole on every rank (DeepSpeed's own sequence "
          "parallelism "
          "is Ulysses, another thing)",
          word("sp"));
    if (pp_ == 1) {
      j["tensor_parallel"] = {{"autotp_size", tp_}};
      return;
    }
    say("{}: AutoTP does not split a PipelineModule; its layers must be tensor-parallel themselves, with the "
        "topology "
        "PipeModelDataParallelTopology(num_pp={}, num_mp={}, num_dp={})",
        word("tp"), pp_, tp_, dp_);
  }

  // With both sizes DeepSpeed makes the groups itself; ZeRO's are of both together, as the plan's.
  void sequences(Json& j) {
    j["data_parallel_size"] = dp_, j["sequence_parallel_size"] = cp_;
    say("{}: attention is replaced in code, deepspeed.sequence.layer.DistributedAttention around the model's "
        "own or UlyssesSPAttentionHF.register_with_transformers(...) of "
        "deepspeed.runtime.sequence_parallel.ulysses_sp; the script gives each rank its segment of a "
        "sequence",
        word("cp"));
  }

  void pipeline(Json& j) {
    j["pipeline"] = {{"stages", pp_}, {"partition", "uniform"}};
    say("{}: DeepSpeed takes the number of stages in code, PipelineModule(layers, num_stages={}, "
        "partition_method=\"uniform\")",
        word("pp"), pp_);
    x_.instead["schedule"] = "1f1b", x_.instead["virtual"] = "1";
    if (const std::string schedule = p_.text("schedule"); schedule != "1f1b")
      say("{}{}: DeepSpeed's pipeline runs 1F1B", word("schedule"),
          schedule == "interleaved" ? " " + word("virtual") : "");
  }

  void recomputation(Json& j) {
    const std::string ckpt = p_.text("ckpt"), shelf = p_.text("activations");
    const bool full = ckpt == "full", each = p_.number("every") == 1;
    x_.instead["ckpt"] = full ? "full" : "none", x_.instead["every"] = "1";
    if (shelf != "device") x_.instead["activations"] = full ? "host" : "device";
    if (ckpt != "none" && !full)
      say("{}: DeepSpeed recomputes whole layers or nothing; written is nothing", word("ckpt"));
    if (!each) say("{}: DeepSpeed's file recomputes every layer or none", word("every"));
    if (full && pp_ > 1) j["pipeline"]["activation_checkpoint_interval"] = 1;
    if (full && pp_ == 1)
      say("{}: it is switched on in code, model.gradient_checkpointing_enable() of transformers or "
          "deepspeed.checkpointing.checkpoint",
          word("ckpt"));
    if (full)
      j["activation_checkpointing"] = {{"number_checkpoints", q_.model.layers},
                                       {"partition_activations", false},
                                       {"cpu_checkpointing", shelf != "device"}};
    if (shelf == "disk")
      say("{}: DeepSpeed keeps activations on the device or the host", word("activations"));
    if (shelf != "device" && full && pp_ == 1)
      say("{}: cpu_checkpointing is heeded by deepspeed.checkpointing.checkpoint only", word("activations"));
    if (shelf != "device" && !full)
      say("{}: DeepSpeed takes to the host the inputs of recomputed layers only; they stay",
          word("activations"));
  }

  const int dp_, cp_, sharers_, tp_, pp_, zero_;
};

Exported write_deepspeed(const Question& q, const Plan& p) { return DeepSpeed(q, p).write(); }

const Exporter deepspeed("deepspeed", write_deepspeed, "");

}  // namespace
}  // namespace lockstep
