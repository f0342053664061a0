// torchtitan: a Python module with one configuration, as its configurations are since 0.3 (before, TOML with
// names of built-in models). The model is built from torchtitan's own parts, so any Llama's shape can be
// said.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "parallel/chunk.hpp"
#include "suites/planner/export/export.hpp"

namespace lockstep {
namespace {

const char* python_bool(bool b) { return b ? "True" : "False"; }

constexpr const char* imports = R"(from functools import partial

import torch.nn as nn
from torchtitan.components.loss import CrossEntropyLoss
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer, ParamGroupConfig
from torchtitan.config import DebugConfig, ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import get_attention_config, make_ffn_config, make_gqa_config
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.llama3 import Llama3Model, parallelize_llama
from torchtitan.models.llama3.model import Llama3TransformerBlock
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer
)";

constexpr const char* model_text = R"(
NORMAL = {{"weight": partial(nn.init.normal_, std={std})}}
SKIP = {{"weight": skip_param_init}}


def norm():
    return RMSNorm.Config(normalized_shape={hidden}, eps={eps}, param_init={{"weight": nn.init.ones_}})


def layer():
    rope = ComplexRoPE.Config(dim={head_dim}, max_seq_len={positions}, theta={theta}{scaling})
    return Llama3TransformerBlock.Config(
        attention_norm=norm(),
        attention=make_gqa_config(
            dim={hidden}, n_heads={heads}, n_kv_heads={kv_heads}, head_dim={head_dim}, fuse_qkv=True, rope=rope,
            inner_attention=get_attention_config("flex"), wqkv_param_init=NORMAL, wo_param_init=NORMAL),
        ffn_norm=norm(),
        feed_forward=make_ffn_config(
            dim={hidden}, hidden_dim={ffn}, w1_param_init=NORMAL, w2w3_param_init=NORMAL))


def model():
    return Llama3Model.Config(
        dim={hidden}, vocab_size={vocab}, enable_weight_tying={tied},
        tok_embeddings=Embedding.Config(num_embeddings={vocab}, embedding_dim={hidden}, param_init={embedding_init}),
        layers=[layer() for _ in range({layers})],
        norm=norm(),
        lm_head=Linear.Config(in_features={hidden}, out_features={vocab}, param_init=NORMAL))
)";

constexpr const char* stages_text = R"(

def parts(layers_of_each):
    """Names of the modules of each chunk of layers; chunk c lives on stage c mod pp."""
    names, first = [], 0
    for n in layers_of_each:
        names.append([f"layers.{i}" for i in range(first, first + n)])
        first += n
    return [["tok_embeddings"] + names[0]] + names[1:-1] + [names[-1] + ["norm", "lm_head"]]
)";

constexpr const char* config_text = R"(

def adamw(pattern, weight_decay):
    return ParamGroupConfig(pattern=pattern, optimizer_name="AdamW", optimizer_kwargs={{
        "lr": {lr}, "betas": ({beta1}, {beta2}), "eps": {eps}, "weight_decay": weight_decay}})


def plan() -> Trainer.Config:
    return Trainer.Config(
        model_spec=ModelSpec(
            name="llama3", flavor="lockstep", model=model(), parallelize_fn=parallelize_llama,
            pipelining_fn=pipeline_llm, post_optimizer_build_fn=None, state_dict_adapter=Llama3StateDictAdapter),
        loss=CrossEntropyLoss.Config(global_vocab_size={vocab}),
        dataloader=HuggingFaceTextDataLoader.Config(dataset="c4"),
        optimizer=OptimizersContainer.Config(param_groups=[adamw(r"norm", 0.0), adamw(r".*", {weight_decay})]),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps={warmup}, total_steps={total}, decay_type="cosine", min_lr_factor={min_ratio}),
        training=TrainingConfig(
            local_batch_size={local}, global_batch_size={batch}, seq_len={seq}, max_norm={clip}, steps={steps},
            enable_cpu_offload={offload}, mixed_precision_param="{dtype}", disable_cuda_graphs={pipelined}),
        parallelism=ParallelismConfig(
            data_parallel_replicate_degree={replicas}, data_parallel_shard_degree={shards},
            fsdp_reshard_after_forward="{reshard}",
            tensor_parallel_degree={tp}, enable_sequence_parallel={sp}, pipeline_parallel_degree={pp}{sequences}{pipeline}),
        activation_checkpoint={ckpt},
        debug=DebugConfig(seed={seed}))
)";

class Torchtitan : PlanWriter {
 public:
  Torchtitan(const Question& q, const Plan& p)
      : PlanWriter(q, p),
        dp_(p.number("dp")),
        cp_(p.number("cp")),
        tp_(p.number("tp")),
        pp_(p.number("pp")),
        zero_(p.number("zero")) {}

  Exported write() {
    if (q_.model.kv_heads % tp_ != 0)
      cannot_run(fmt::format("torchtitan's tp divides the {} key/value heads", q_.model.kv_heads), p_,
                 "--words \"tp=1\"");
    if (q_.model.tied && pp_ > 1)
      cannot_run("torchtitan has no pipeline for tied embeddings", p_, "--words \"pp=1\"");
    say_groups(p_, "torchtitan", x_.missing);
    x_.text = imports;
    model();
    if (pp_ > 1) x_.text += stages_text;
    config();
    x_.usage = {
        "as a file NAME.py where Python looks (PYTHONPATH); its tokenizer and data set are yours to say:",
        torchrun(q_.cluster, p_) + " -m torchtitan.train --module NAME --config plan --hf_assets_path ..."};
    say_nodes(q_.cluster, p_, x_.usage);
    return std::move(x_);
  }

 private:
  void model() {
    const ModelConfig& m = q_.model;
    const RopeScaling& r = m.rope_scaling;
    std::string scaling;
    if (r.kind == RopeScaling::Kind::llama3)
      scaling = fmt::format(
          ",\n        scaling=\"llama\", scaling_factor={}, low_freq_factor={}, high_freq_factor={}, "
          "original_max_position_embeddings={}",
          r.factor, r.low_freq_factor, r.high_freq_factor, r.original_max_position);
    if (r.kind == RopeScaling::Kind::linear)
      say("rope_scaling linear: torchtitan has Llama 3's and YaRN; written is none");
    x_.text += fmt::format(
        model_text, fmt::arg("std", m.init_std), fmt::arg("hidden", m.hidden), fmt::arg("eps", m.rms_eps),
        fmt::arg("head_dim", m.head_dim), fmt::arg("positions", std::max(m.max_position, q_.settings.seq)),
        fmt::arg("theta", m.rope_theta), fmt::arg("scaling", scaling), fmt::arg("heads", m.heads),
        fmt::arg("kv_heads", m.kv_heads), fmt::arg("ffn", m.intermediate), fmt::arg("vocab", m.vocab),
        fmt::arg("tied", python_bool(m.tied)), fmt::arg("embedding_init", m.tied ? "SKIP" : "NORMAL"),
        fmt::arg("layers", m.layers));
  }

  void config() {
    const Settings& s = q_.settings;
    const int micro = p_.number("micro");
    const std::string reshard = sharding(), recomputed = recomputation(),
                      stages = pp_ > 1 ? pipeline(micro) : "";
    say_one_stage(p_, x_);
    if (s.gradient_bytes == 2) say("gradients of 2 bytes: torchtitan reduces them in float32");
    if (p_.text("activations") != "device") {
      say("{}: torchtitan keeps activations on the device", word("activations"));
      x_.instead["activations"] = "device";
    }
    x_.text += fmt::format(
        config_text, fmt::arg("lr", s.lr), fmt::arg("beta1", s.beta1), fmt::arg("beta2", s.beta2),
        fmt::arg("eps", s.eps), fmt::arg("weight_decay", s.weight_decay), fmt::arg("vocab", q_.model.vocab),
        fmt::arg("warmup", s.warmup), fmt::arg("total", schedule_steps(s)),
        fmt::arg("min_ratio", s.min_ratio),
        // A pipeline divides the replica's whole batch into microbatches; without one they are accumulated.
        fmt::arg("local", pp_ > 1 ? s.batch / dp_ : micro), fmt::arg("batch", s.batch),
        fmt::arg("seq", s.seq), fmt::arg("clip", s.clip), fmt::arg("steps", s.steps),
        fmt::arg("offload", python_bool(offloads())),
        fmt::arg("dtype", s.weight_bytes == 2 ? "bfloat16" : "float32"),
        fmt::arg("pipelined", python_bool(pp_ > 1)),
        fmt::arg("replicas", zero_ ? p_.number("replicas") : dp_),
        fmt::arg("shards", zero_ ? dp_ / p_.number("replicas") : 1), fmt::arg("reshard", reshard),
        fmt::arg("tp", tp_), fmt::arg("sp", python_bool(p_.number("sp"))), fmt::arg("pp", pp_),
        fmt::arg("sequences", sequences()), fmt::arg("pipeline", stages), fmt::arg("ckpt", recomputed),
        fmt::arg("seed", s.seed));
  }

  // Its balance is for flexible attention, which is the model's above.
  std::string sequences() {
    if (cp_ == 1) return "";
    say("cp={}: torchtitan does not exchange heads for tokens: each rank attends from its own tokens, and "
        "gathers all keys and values of the sequence for that",
        cp_);
    if (zero_ == 0) {
      say("zero=0 with cp={}: torchtitan shards over cp whatever is asked for; written is FSDP2 of cp ranks "
          "that keeps gathered weights until backward",
          cp_);
      if (dp_ % cp_ == 0 || cp_ % dp_ == 0)  // groups of replicas that a plan has
        x_.instead["zero"] = pp_ > 1 ? "1" : "2", x_.instead["replicas"] = std::to_string(dp_);
    }
    return fmt::format(",\n            context_parallel_degree={}, context_parallel_load_balancer=\"ptrr\"",
                       cp_);
  }

  std::string sharding() {
    if (pp_ > 1 && zero_ >= 2) {
      say("zero={}: in a pipeline PyTorch's stages keep gathered weights, and gradients, whole until the "
          "last "
          "microbatch, as ZeRO 1 does",
          zero_);
      x_.instead["zero"] = "1";
    } else if (zero_ == 2) {
      say("zero=2: the nearest in FSDP2 is to keep gathered weights until backward; they are shards between "
          "steps and "
          "gathered once a microbatch");
    }
    if (pp_ == 1 && zero_ == 1) {
      say("zero=1: FSDP2 shards weights and gradients too; written is its nearest, gathered weights kept "
          "until backward");
      x_.instead["zero"] = "2";  // which reduces gradients every microbatch, too
    }
    if (pp_ == 1 && p_.sharers() > 1 && zero_ <= 1 && microbatches(q_.settings, p_) > 1)
      say("zero={}: torchtitan reduces gradients every microbatch, the plan once a step", zero_);
    if (const int bucket = p_.number("bucket"); bucket > 1) {
      say("bucket={}: FSDP2 reduces layer by layer", bucket);
      x_.instead["bucket"] = "1";
    }
    return zero_ == 3 ? "always" : "never";
  }

  bool offloads() {
    const std::string offload = p_.text("offload");
    if (offload == "none") return false;
    if (offload == "optimizer")
      say("offload=optimizer: torchtitan offloads weights, gradients and optimizer state together; written "
          "is all three");
    if (p_.text("to") == "disk") say("to=disk: torchtitan offloads to the host; written is the host");
    const bool stay = zero_ < 3 || pp_ > 1;  // once they are gathered
    if (offload == "weights" && stay)
      say("offload=weights with {}: gathered weights stay on the device until backward",
          word(pp_ > 1 ? "pp" : "zero"));
    x_.instead["offload"] = stay ? "optimizer" : "weights", x_.instead["to"] = "host";
    return true;
  }

  std::string pipeline(int micro) {
    const std::string schedule = p_.text("schedule");
    const int chunks = pp_ * p_.number("virtual");
    std::vector<int> layers;
    for (int c = 0; c < chunks; ++c) {
      const auto [first, end] = layers_of(c, chunks, q_.model.layers);
      layers.push_back(end - first);
    }
    if (schedule == "zero-bubble")
      say("schedule=zero-bubble: torchtitan's zero-bubble schedules put two stages or more on a rank; "
          "written is 1F1B, "
          "which has the plan's stages");
    else if (schedule != "1f1b" && schedule != "gpipe" && schedule != "interleaved")
      say("schedule={}: torchtitan has no such schedule; written is 1F1B", schedule);
    if (schedule != "gpipe" && schedule != "interleaved") x_.instead["schedule"] = "1f1b";
    return fmt::format(
        ",\n            pipeline_parallel_schedule=\"{}\", pipeline_parallel_microbatch_size={},\n"
        "            module_fqns_per_model_part=parts([{}])",
        schedule == "gpipe"         ? "GPipe"
        : schedule == "interleaved" ? "Interleaved1F1B"
                                    : "1F1B",
        micro, fmt::join(layers, ", "));
  }

  std::string recomputation() {
    const std::string ckpt = p_.text("ckpt");
    if (ckpt == "none") return "None";
    x_.instead["every"] = "1";
    if (p_.number("every") != 1)
      say("{}: torchtitan recomputes in every layer or none; written is every layer", word("every"));
    if (ckpt == "full") return "FullAC.Config()";
    say("{}: the nearest in torchtitan is selective by operator: it makes norms, SwiGLU's product and every "
        "second matmul "
        "again, and keeps attention's output",
        word("ckpt"));
    // Of what it drops, which is more than norms or SwiGLU's product, no word of ours drops all.
    if (ckpt != "norms") x_.instead["ckpt"] = "swiglu";
    return "SelectiveAC.Config()";
  }

  const int dp_, cp_, tp_, pp_, zero_;
};

Exported write_torchtitan(const Question& q, const Plan& p) { return Torchtitan(q, p).write(); }

const Exporter torchtitan("torchtitan", write_torchtitan, "#");

}  // namespace
}  // namespace lockstep
