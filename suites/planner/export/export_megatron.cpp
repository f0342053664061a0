// Megatron-LM: the arguments of its pretrain_gpt.py, one a line. Data and tokenizer are left to the user.
#include <fmt/format.h>

#include <cmath>

#include "parallel/chunk.hpp"
#include "suites/planner/export/export.hpp"

namespace lockstep {
namespace {

class Megatron : PlanWriter {
 public:
  Megatron(const Question& q, const Plan& p)
      : PlanWriter(q, p),
        cp_(p.number("cp")),
        sharers_(p.sharers()),
        tp_(p.number("tp")),
        pp_(p.number("pp")),
        zero_(p.number("zero")) {}

  Exported write() {
    model();
    training();
    mesh();
    store();
    recomputation();
    offload();
    activations();
    x_.usage = {
        environment_ + torchrun(q_.cluster, p_) + " pretrain_gpt.py $(grep -v '^#' THIS_FILE)",
        "and, yours to say: --data-path ..., --tokenizer-type ... (to try: --mock-data --tokenizer-type "
        "NullTokenizer)"};
    say_nodes(q_.cluster, p_, x_.usage);
    return std::move(x_);
  }

 private:
  void flag(const char* name) { x_.text += fmt::format("--{}\n", name); }
  template <class T>
  void option(const char* name, const T& value) {
    x_.text += fmt::format("--{} {}\n", name, value);
  }

  void model() {
    const ModelConfig& m = q_.model;
    option("num-layers", m.layers), option("hidden-size", m.hidden),
        option("ffn-hidden-size", m.intermediate);
    option("num-attention-heads", m.heads), option("kv-channels", m.head_dim);
    if (m.kv_heads != m.heads) flag("group-query-attention"), option("num-query-groups", m.kv_heads);
    option("vocab-size", m.vocab),
        option("max-position-embeddings", std::max(m.max_position, q_.settings.seq));
    flag("swiglu"), option("normalization", "RMSNorm"), option("norm-epsilon", m.rms_eps);
    flag("disable-bias-linear"), option("attention-dropout", 0), option("hidden-dropout", 0);
    option("init-method-std", m.init_std);
    if (!m.tied) flag("untie-embeddings-and-output-weights");
    option("position-embedding-type", "rope"), option("rotary-base", std::llround(m.rope_theta));
    if (m.rope_theta != std::round(m.rope_theta))
      say("rope_theta {}: Megatron-LM takes a whole number", m.rope_theta);
    rope(m.rope_scaling);
  }

  void rope(const RopeScaling& r) {
    const bool known = r.low_freq_factor == 1 && r.high_freq_factor == 4 && r.original_max_position == 8192;
    if (r.kind == RopeScaling::Kind::llama3) {
      flag("use-rope-scaling"), option("rope-scaling-factor", r.factor);
      if (!known)
        say("rope_scaling: Megatron-LM has Llama 3's frequency factors 1 and 4 of 8192 positions built in");
    } else if (r.kind == RopeScaling::Kind::linear) {
      option("rotary-seq-len-interpolation-factor", std::llround(r.factor));
      if (r.factor != std::round(r.factor))
        say("rope_scaling {}: Megatron-LM takes a whole number", r.factor);
    }
  }

  void training() {
    const Settings& s = q_.settings;
    option("seq-length", s.seq), option("micro-batch-size", p_.number("micro"));
    option("global-batch-size", s.batch), option("train-iters", s.steps), option("seed", s.seed);
    option("optimizer", "adam"), option("lr", s.lr), option("min-lr", s.lr * s.min_ratio);
    option("lr-decay-style", "cosine"), option("lr-decay-iters", schedule_steps(s));
    option("lr-warmup-iters", std::min(s.warmup, schedule_steps(s) - 1));
    option("adam-beta1", s.beta1), option("adam-beta2", s.beta2), option("adam-eps", s.eps);
    option("weight-decay", s.weight_decay), option("clip-grad", s.clip);
    if (s.weight_bytes == 2) flag("bf16");
    if (s.weight_bytes == 2 && s.gradient_bytes == 2) flag("grad-reduce-in-bf16");
  }

  void mesh() {
    option("tensor-model-parallel-size", tp_), option("pipeline-model-parallel-size", pp_);
    if (p_.number("sp")) flag("sequence-parallel");
    if (cp_ > 1) sequences();
    // Up to Hopper one queue keeps communication in order, but Megatron-FSDP wants several.
    if ((tp_ > 1 || cp_ > 1) && !fsdp()) environment_ = "CUDA_DEVICE_MAX_CONNECTIONS=1 ";
    const std::string schedule = p_.text("schedule");
    const int chunks = schedule == "interleaved" ? pp_ * p_.number("virtual") : pp_;
    const bool even = q_.model.layers % chunks == 0;
    if (!even)  // says how many chunks a stage has, too
      option("pipeline-model-parallel-layout", layout(chunks));
    else if (schedule == "interleaved")
      option("num-virtual-stages-per-pipeline-rank", p_.number("virtual"));
    if (schedule != "interleaved" && schedule != "1f1b" && pp_ > 1) {
      say("{}: Megatron-LM runs 1F1B, plain or interleaved; written is plain", word("schedule"));
      x_.instead["schedule"] = "1f1b";
    }
    say_one_stage(p_, x_);
  }

  // Its exchange of heads for tokens is Transformer Engine's. It deals each rank two segments, one from
  // either end of the sequence, whatever the exchange.
  void sequences() {
    if (q_.settings.seq % (2 * cp_) != 0)
      cannot_run(
          fmt::format("Megatron-LM cuts a sequence into 2 cp segments, and {} tokens are no multiple of {}",
                      q_.settings.seq, 2 * cp_),
          p_, "--words \"cp=1\"");
    option("context-parallel-size", cp_), option("cp-comm-type", "a2a");
  }

  // Chunks of unequal length: "Et*2|t*3|t*3L".
  std::string layout(int chunks) const {
    std::string text = "E";
    for (int c = 0; c < chunks; ++c) {
      const auto [first, end] = layers_of(c, chunks, q_.model.layers);
      text += fmt::format("{}t*{}", c ? "|" : "", end - first);
    }
    return text + "L";
  }

  bool fsdp() const { return zero_ >= 2 && sharers_ > 1; }

  void store() {
    if (sharers_ == 1 && p_.text("offload") == "none") return;
    if (fsdp()) {
      flag("use-megatron-fsdp"), flag("use-distributed-optimizer"), option("ckpt-format", "fsdp_dtensor");
      flag("no-gradient-accumulation-fusion");
      option("data-parallel-sharding-strategy", zero_ == 2 ? "optim_grads" : "optim_grads_params");
      flag("overlap-grad-reduce");
      if (zero_ == 3) flag("overlap-param-gather");
      replicas();
      return;
    }
    // Host offload works on the shards of a distributed optimizer; of one replica these are whole.
    if (zero_ == 1 || p_.text("offload") != "none") flag("use-distributed-optimizer");
    if (zero_ == 0 && sharers_ > 1 && p_.text("offload") != "none") {
      say("zero=0 with {}: Megatron-LM offloads a distributed optimizer only; written is ZeRO 1",
          word("offload"));
      x_.instead["zero"] = "1", x_.instead["bucket"] = "1";  // ZeRO 1 of a plan has no other
    }
    if (sharers_ == 1) return;
    replicas();
    flag("overlap-grad-reduce");
    const int bucket = p_.number("bucket");
    option("ddp-bucket-size", bucket * layer_elements(q_.model, tp_));
    if (bucket > 1)
      say("bucket={}: Megatron-LM's buckets are counted in elements; written are those of {} layers", bucket,
          bucket);
  }

  // Groups of replicas, each with an optimizer of its own.
  void replicas() {
    if (const int groups = p_.number("replicas"); groups > 1)
      option("num-distributed-optimizer-instances", groups);
  }

  void recomputation() {
    const std::string ckpt = p_.text("ckpt");
    const int every = p_.number("every");
    if (ckpt == "none") return;
    option("recompute-granularity", ckpt == "full" ? "full" : "selective");
    if (ckpt == "full" && every == 1) {
      option("recompute-method", "uniform"), option("recompute-num-layers", 1);
    } else if (ckpt == "full") {
      const i64 chunk = (q_.model.layers + pp_ * p_.number("virtual") - 1) / (pp_ * p_.number("virtual"));
      const i64 count = (chunk + every - 1) / every;
      option("recompute-method", "block"), option("recompute-num-layers", count);
      say("every={}: Megatron-LM recomputes the first layers of a stage, not every so many; written are its "
          "first {}",
          every, count);
    } else {
      selective(ckpt);
      if (every != 1) say("every={}: Megatron-LM recomputes modules in all layers; written is all", every);
      x_.instead["every"] = "1";
    }
  }

  void selective(const std::string& ckpt) {
    const char* modules = ckpt == "norms"       ? "layernorm"
                          : ckpt == "selective" ? "core_attn layernorm"
                                                : "core_attn";
    option("recompute-modules", ckpt == "swiglu" ? "mlp" : modules);
    if (ckpt == "attention" || ckpt == "selective") {
      say("{}: Megatron-LM makes attention again, yet keeps its output, which the projection's backward "
          "needs",
          word("ckpt"));
      // What else it makes again, our kernel never kept.
      x_.instead["ckpt"] = ckpt == "selective" ? "norms" : "none";
    }
    if (ckpt == "selective")
      say("ckpt=selective: Megatron-LM has no recomputation of a dense layer's SwiGLU product alone");
    if (ckpt == "swiglu")  // stays: the MLP drops more than the product
      say("ckpt=swiglu: the nearest module of Megatron-LM is the whole MLP, which costs its matmuls");
  }

  void offload() {
    const std::string offload = p_.text("offload");
    if (offload == "none") return;
    flag("optimizer-cpu-offload"), flag("use-precision-aware-optimizer"),
        flag("overlap-cpu-optimizer-d2h-h2d");
    if (offload == "weights")
      say("offload=weights: in Megatron-LM weights stay on the device; the optimizer is offloaded");
    if (p_.text("to") == "disk") say("to=disk: Megatron-LM offloads to the host; written is the host");
    x_.instead["offload"] = "optimizer", x_.instead["to"] = "host";
    if (fsdp())
      say("{} with zero={}: Megatron-FSDP does not say that it works with host offload", word("offload"),
          zero_);
  }

  // All layers but one, by Transformer Engine, where nothing is recomputed and nothing pipelined; by module
  // else.
  void activations() {
    const std::string shelf = p_.text("activations");
    if (shelf == "device") return;
    if (shelf == "disk")
      say("activations=disk: Megatron-LM moves activations to the host; written is the host");
    const bool all = pp_ == 1 && p_.text("ckpt") == "none";
    // By module much of a layer stays, and no word of ours says how much.
    x_.instead["activations"] = all ? "host" : "device";
    if (p_.text("ckpt") == "full") {
      say("{} with ckpt=full: Megatron-LM offloads no inputs of recomputed layers; they stay",
          word("activations"));
    } else if (all) {
      option("cpu-offloading-num-layers", q_.model.layers - 1);
      say("{}: Megatron-LM offloads all layers but one", word("activations"));
    } else {
      environment_ += "NVTE_CPU_OFFLOAD_V1=1 ";
      flag("fine-grained-activation-offloading");
      option("offload-modules", "attn_norm qkv_linear core_attn attn_proj mlp_norm");
      say("{}: with a pipeline or recomputation Megatron-LM offloads by module, and has none for a dense "
          "layer's MLP",
          word("activations"));
    }
  }

  const int cp_, sharers_, tp_, pp_, zero_;
  std::string environment_;
};

Exported write_megatron(const Question& q, const Plan& p) { return Megatron(q, p).write(); }

const Exporter megatron("megatron", write_megatron, "#");

}  // namespace
}  // namespace lockstep
