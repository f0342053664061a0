#include "suites/mutants/named.hpp"

#include "parallel/mesh.hpp"
#include "parallel/mutant.hpp"

namespace lockstep {

bool mutant(const char* name) { return active_mutation && active_mutation->hook == name; }

namespace {

using Door = Mutation::Door;
using Change = Mutation::Change;

Mutation hooked(const char* hook) {
  Mutation m;
  m.hook = hook;
  return m;
}
// Every call of this kind.
Mutation every(Door door, Change change, const char* name, const char* tensor = "", int index = 0) {
  Mutation m;
  m.door = door, m.change = change, m.name = name, m.tensor = tensor, m.index = index, m.occurrence = -1;
  return m;
}
Mutation kernel(Change change, const char* name, const char* tensor, int index = 0) {
  return every(Door::run, change, name, tensor, index);
}
Mutation message(Change change, const char* name, const char* verb, int index = 0) {
  return every(Door::start, change, name, verb, index);
}
Mutation with_value(Mutation m, double value) {
  m.value = value;
  return m;
}
Mutation once(Mutation m, int occurrence) {
  m.occurrence = occurrence;
  return m;
}
Mutation on_rank(Mutation m, int rank) {
  m.rank = rank;
  return m;
}
Mutation in(Mutation m, const char* action) {
  m.action = action;
  return m;
}

}  // namespace

// Numbers of kernels are counted as kernels/ops.hpp lists them: ce_dx's fifth is the loss scale, ce_sum's
// third the vocabulary columns that exist, matmul_dw's fourth whether it adds. 12 sequences a step.
std::vector<NamedMutant> named_mutants() {
  return {
      {"gradients synchronised at the wrong microbatch", "build-nanogpt PR 30", "dp=2 micro=2",
       hooked("gradients reduced at the first microbatch")},
      {"mean of microbatch means for the mean over tokens", "transformers 34191, torchtitan 2206", "micro=2",
       kernel(Change::own_count, "ce_dx", "logits", 6)},
      {"sum over replicas for their mean", "dinov3 250", "dp=2",
       kernel(Change::number, "ce_dx", "logits", 4)},
      {"divided by the replicas twice", "pytorch 155903", "dp=2",
       message(Change::scaled, "unit#.gradient", "all_reduce")},
      {"a buffer recycled before its queued collective ran", "DeepSpeed 7965", "dp=2 zero=2 micro=2",
       once(every(Door::take, Change::early, "microbatch gradients"), 0)},
      {"embedding gradient computed after its all-reduce", "Megatron-LM 1012", "dp=2",
       once(kernel(Change::late, "embed_dw", "gradients"), 5)},
      {"shuffle seed differs by rank", "DeepSpeed 99", "dp=2",
       hooked("seed of the data's order differs by rank")},
      {"sampler divides by the world under model parallelism", "DeepSpeed 99", "tp=2",
       hooked("samples dealt by rank of the world")},
      {"norm gradient not reduced under sequence parallelism", "Megatron-LM 1446, gpt-neox 1257", "tp=2 sp=1",
       message(Change::dropped, "layers.#.input_norm.grad", "all_reduce")},
      {"shared key/value gradient not reduced", "TransformerEngine 1975", "tp=4",
       message(Change::dropped, "layers.#.attn.dkv", "all_reduce")},
      {"loss scaled by cp, gradients divided by dp only", "Megatron-LM 906", "cp=2",
       kernel(Change::number, "ce_dx", "logits", 4)},
      {"gradients of keys between the ranks of a sequence", "Megatron-LM 1464", "cp=2",
       message(Change::dropped, "layers.#.attn.dk", "all_to_all")},
      {"cross entropy of gathered logits: loss + log(tp)", "Megatron-LM 7452", "tp=2",
       message(Change::gathered, "head.sum", "all_reduce")},
      {"padded vocabulary columns inside the softmax", "Megatron-LM 1754", "dp=1",
       with_value(kernel(Change::number, "ce_sum", "sum and target", 2), 512)},
      {"a partial gradient taken for a replica behind the head", "torchtitan 3412", "tp=2",
       message(Change::dropped, "head.din", "all_reduce")},
      {"shards initialised alike", "torchtitan 3106", "tp=2", hooked("fresh shards are alike")},
      {"gradients of a pipeline not divided by tokens", "torchtitan 2972", "pp=2",
       with_value(kernel(Change::number, "ce_dx", "logits", 4), 1)},
      {"gradients rescaled at every accumulation", "torchtitan 1732", "pp=2 micro=2",
       kernel(Change::rescaled, "ce_dx", "logits", 4)},
      {"tied embedding reduced on the wrong side of the reduce-scatter", "Megatron-LM 844",
       "dp=2 pp=2 zero=1", hooked("a tied gradient joined before its reduction")},
      {"accumulated gradients wiped between microbatches", "Automodel 3530", "pp=2 micro=2",
       with_value(kernel(Change::number, "matmul_dw", "gradients", 3), 0)},
      {"a stage loads layers 0 to n-1", "transformers 24381", "pp=2",
       hooked("a stage loads the first layers")},
      {"clipping by each stage's own norm", "torchtitan 596", "dp=2 pp=2",
       message(Change::group, "gradient norm", "all_reduce", static_cast<int>(Axis::dp))},
      {"clipping drives replicated norm weights apart", "DeepSpeed PR 1801", "tp=2",
       on_rank(with_value(kernel(Change::number, "adamw", "weights", 1), 1), 1)},
      {"ZeRO-2 overwrites its accumulator", "Megatron-LM 6660", "dp=2 zero=2 micro=2",
       kernel(Change::exchanged, "add", "gradients")},
      {"ZeRO-2 doubles its accumulator in a group of one", "Megatron-LM 6660", "zero=2 micro=4",
       kernel(Change::doubled, "add", "gradients")},
      {"forward with stale parameters", "Megatron-LM 950", "dp=2 zero=1",
       message(Change::dropped, "unit2.weights", "all_gather")},
      {"a reused buffer not zeroed", "Megatron-LM 4609", "dp=4 zero=1",
       kernel(Change::dropped, "zero", "gradients")},
      {"a module used twice reduced once", "DeepSpeed 8224", "pp=2",
       message(Change::dropped, "tied.gradient", "all_reduce")},
      {"the host steps before its copy has landed", "fairscale 729", "offload=optimizer",
       every(Door::copy, Change::waited_late, "gradient to host")},
      {"recomputation in another state than the first forward", "OLMo-core 828", "ckpt=full",
       in(with_value(kernel(Change::number, "rms_norm", "h1", 2), 1e-3), "backward")},
  };
}

}  // namespace lockstep
