// PyTorch's FSDP2 by way of Hugging Face accelerate: the file of `accelerate launch --config_file`. It is
// about processes and sharding; batch, optimizer and model belong to the script that it launches.
#include <fmt/format.h>

#include "suites/planner/export/export.hpp"

namespace lockstep {
namespace {

const char* yaml_bool(bool b) { return b ? "true" : "false"; }

class Fsdp : PlanWriter {
 public:
  Fsdp(const Question& q, const Plan& p)
      : PlanWriter(q, p),
        dp_(p.number("dp")),
        cp_(p.number("cp")),
        tp_(p.number("tp")),
        zero_(p.number("zero")) {}

  Exported write() {
    if (p_.number("pp") > 1) cannot_run("accelerate's FSDP2 has no pipeline", p_, "--words \"pp=1\"");
    say_groups(p_, "accelerate", x_.missing);
    const Settings& s = q_.settings;
    const bool shards = fully_sharded();
    const bool bf16 = s.weight_bytes == 2;
    x_.text = fmt::format(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: {}\nmain_training_function: main\n",
        shards            ? "FSDP"
        : p_.ranks() == 1 ? "'NO'"
                          : "MULTI_GPU");
    x_.text += fmt::format("machine_rank: 0\nnum_machines: {}\nnum_processes: {}\nmixed_precision: {}\n",
                           machines(q_.cluster, p_), p_.ranks(), bf16 ? "bf16" : "'no'");
    if (shards) sharding();
    if (tp_ > 1 || cp_ > 1 || p_.number("replicas") > 1) mesh(shards);
    activations(shards);
    say_one_stage(p_, x_);
    if (bf16 && shards && s.gradient_bytes == 4)
      say("gradients of 4 bytes: accelerate's bf16 reduces them in bfloat16; a float32 reduction takes "
          "MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) in code");
    if (shards) x_.instead["bucket"] = "1";
    if (const int bucket = p_.number("bucket"); p_.sharers() > 1 && (bucket != 1 || !shards))
      say("bucket={}: {}", bucket,
          shards ? "FSDP2 reduces layer by layer"
                 : "DistributedDataParallel counts megabytes (bucket_cap_mb), in code");
    say("micro={}, batch, optimizer and model: the script's own; transformers' Trainer takes them as in the "
        "lines above",
        p_.number("micro"));
    usage();
    return std::move(x_);
  }

 private:
  // FSDP, or plain replicas? It is FSDP too where one rank offloads or recomputes, which only its section can
  // say.
  bool fully_sharded() {
    const bool wants = p_.text("offload") != "none" || p_.text("ckpt") != "none";
    if (p_.sharers() == 1) return tp_ == 1 && wants;
    if (zero_ == 0 && tp_ == 1 && cp_ == 1) return false;
    if (zero_ == 0) {
      x_.instead["zero"] = "1";  // gradients are whole until the last microbatch
      say("zero=0 with {}: accelerate joins {} parallelism with FSDP2 only; written is FSDP2 that keeps "
          "gathered weights until backward",
          word(cp_ > 1 ? "cp" : "tp"), cp_ > 1 ? "context" : "tensor");
    }
    if (zero_ == 1)
      say("zero=1: FSDP2 shards weights and gradients too; written is its nearest, gathered weights kept "
          "until "
          "backward");
    if (zero_ == 2)
      say("zero=2: the nearest in FSDP2 is fsdp_reshard_after_forward: false, which keeps weights as shards "
          "between "
          "steps and gathers them once a microbatch");
    return true;
  }

  void sharding() {
    const std::string offload = p_.text("offload"), ckpt = p_.text("ckpt"), shelf = p_.text("activations");
    const bool recompute = ckpt != "none";
    const bool reshard = zero_ == 3 || p_.sharers() == 1;
    x_.text += fmt::format(
        "fsdp_config:\n  fsdp_version: 2\n  fsdp_reshard_after_forward: {}\n"
        "  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP\n  fsdp_transformer_layer_cls_to_wrap: "
        "LlamaDecoderLayer\n"
        "  fsdp_offload_params: {}\n  fsdp_activation_checkpointing: {}\n"
        "  fsdp_activation_checkpointing_offload: {}\n"
        "  fsdp_cpu_ram_efficient_loading: false\n  fsdp_state_dict_type: SHARDED_STATE_DICT\n",
        yaml_bool(reshard), yaml_bool(offload != "none"), yaml_bool(recompute),
        yaml_bool(recompute && shelf != "device"));
    if (offload != "none")
      x_.instead["offload"] = reshard ? "weights" : "optimizer", x_.instead["to"] = "host";
    if (offload == "weights" && !reshard)
      say("offload=weights with {}: gathered weights stay on the device until backward", word("zero"));
    if (offload == "optimizer")
      say("offload=optimizer: FSDP2 offloads weights, gradients and optimizer state together; written is all "
          "three");
    if (offload != "none" && p_.text("to") == "disk")
      say("to=disk: FSDP2 offloads to the host; written is the host");
    if (recompute && ckpt != "full")
      say("{}: accelerate recomputes whole layers or nothing; written is whole layers", word("ckpt"));
    if (recompute && p_.number("every") != 1)
      say("{}: accelerate recomputes every layer or none; written is every layer", word("every"));
  }

  void mesh(bool shards) {
    x_.text += fmt::format(
        "parallelism_config:\n  parallelism_config_dp_replicate_size: {}\n  "
        "parallelism_config_dp_shard_size: "
        "{}\n"
        "  parallelism_config_tp_size: {}\n  parallelism_config_cp_size: {}\n  parallelism_config_sp_size: "
        "1\n",
        p_.number("replicas"), shards ? dp_ / p_.number("replicas") : 1, tp_, cp_);
    if (cp_ > 1)
      say("cp={}: FSDP2's context parallelism does not exchange heads for tokens: each rank attends from its "
          "own tokens, and gathers keys and values for that (sp_size of accelerate is Ulysses, and "
          "DeepSpeed's "
          "alone); the script's steps run within accelerator.maybe_context_parallel(...)",
          cp_);
    if (tp_ == 1) return;
    x_.instead["sp"] = "0";
    if (p_.number("sp"))
      say("{}: the Llama of transformers splits matrices only; norms and the residual stream stay whole on "
          "every rank",
          word("sp"));
    say("tp={}: the script loads the model so, from_pretrained(..., tp_plan=\"auto\", "
        "device_mesh=accelerator.torch_device_mesh)",
        tp_);
  }

  void activations(bool shards) {
    const std::string shelf = p_.text("activations");
    const bool recompute = p_.text("ckpt") != "none";
    if (recompute) x_.instead["ckpt"] = "full", x_.instead["every"] = "1";
    if (shelf != "device") x_.instead["activations"] = shards && recompute ? "host" : "device";
    if (!shards && p_.text("offload") != "none") {
      say("{} {}: accelerate offloads with FSDP2 only, which needs zero=3 and dp > 1; nothing is offloaded",
          word("offload"), word("to"));
      x_.instead["offload"] = "none", x_.instead["to"] = "host";
    }
    if (!shards && recompute)
      say("{} {}: this file can say so with FSDP2 only, which needs zero=3 and dp > 1; in the script "
          "model.gradient_checkpointing_enable() recomputes every layer whole",
          word("ckpt"), word("every"));
    if (shelf == "device") return;
    if (!shards || !recompute)
      say("{}: accelerate takes to the host the inputs of recomputed layers only; they stay",
          word("activations"));
    else if (p_.text("ckpt") == "full" && shelf == "disk")
      say("activations=disk: accelerate knows the host only; written is the host");
    else if (shelf == "disk" || p_.text("ckpt") != "full")
      say("{}: written is the host, for the inputs of recomputed layers", word("activations"));
  }

  void usage() {
    const Settings& s = q_.settings;
    x_.usage = {
        fmt::format("accelerate launch --config_file THIS_FILE{} YOUR_SCRIPT",
                    machines(q_.cluster, p_) == 1
                        ? ""
                        : " --machine_rank ... --main_process_ip ... --main_process_port ..."),
        fmt::format("--per_device_train_batch_size {} --gradient_accumulation_steps {} --max_steps {}",
                    p_.number("micro"), microbatches(s, p_), s.steps),
        fmt::format(
            "--optim adamw_torch --learning_rate {} --adam_beta1 {} --adam_beta2 {} --adam_epsilon {}", s.lr,
            s.beta1, s.beta2, s.eps),
        fmt::format(
            "--weight_decay {} --max_grad_norm {} --warmup_steps {} --lr_scheduler_type cosine_with_min_lr",
            s.weight_decay, s.clip, s.warmup),
        fmt::format("--lr_scheduler_kwargs '{{\"min_lr_rate\": {}}}'", s.min_ratio)};
    say_nodes(q_.cluster, p_, x_.usage, "--machine_rank", "--main_process_ip", "--main_process_port");
    // Else accumulation keeps gradients whole until the last microbatch.
    if (zero_ >= 2 && microbatches(s, p_) > 1)
      x_.usage.push_back(
          "--accelerator_config '{\"gradient_accumulation_kwargs\": {\"sync_each_batch\": true}}'");
  }

  const int dp_, cp_, tp_, zero_;
};

Exported write_fsdp(const Question& q, const Plan& p) { return Fsdp(q, p).write(); }

const Exporter fsdp("fsdp", write_fsdp, "#");

}  // namespace
}  // namespace lockstep
