"""An ordinary training loop over Hugging Face's LlamaForCausalLM, judged from outside:

    $(ci/venv.sh fixtures) suites/certify/train_llama.py run.h5 && build/lockstep compare run.h5

Each batch is shared by two replicas with two microbatches each, as data parallelism and gradient accumulation do.
Labels are ignored unevenly, as prompts are, so that a mean of means is not the mean. --bug puts one of five
well-known faults in, and `lockstep compare` must name it. --bf16 computes in mixed precision.
"""
import argparse
import copy
import pathlib
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from dump_step import Dump, next_tokens  # noqa: E402

BATCH, LENGTH, STEPS, REPLICAS, MICROBATCHES = 8, 24, 3, 2, 2
BUGS = ("mean-of-means", "no-averaging", "lost-microbatch", "stale-weight", "decayed-norms")


def make_model(tied, deviation):
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        initializer_range=deviation, attn_implementation="eager", use_cache=False))


def make_batch():
    tokens = torch.randint(0, 101, (BATCH, LENGTH))
    labels = tokens.clone()
    for row, prompt in zip(labels, torch.randint(0, LENGTH - 2, (BATCH,))):
        row[:prompt] = -100
    return tokens, labels


def backward(replicas, tokens, labels, bug, bf16):
    """Leaves the gradient of the batch's mean loss in the first replica; returns that loss."""
    targets = (labels[:, 1:] != -100).sum()  # the model shifts labels itself: the first is nobody's target
    total = 0.0
    parts = zip(tokens.chunk(REPLICAS), labels.chunk(REPLICAS))
    for replica, (its_tokens, its_labels) in zip(replicas, parts):
        for micro, (micro_tokens, micro_labels) in enumerate(
                zip(its_tokens.chunk(MICROBATCHES), its_labels.chunk(MICROBATCHES))):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                mean = replica(input_ids=micro_tokens, labels=micro_labels).loss
            share = (micro_labels[:, 1:] != -100).sum() / targets
            if bug == "mean-of-means":
                share = 1 / (REPLICAS * MICROBATCHES)
            total += (mean * share).item()
            if bug == "lost-microbatch" and replica is replicas[-1] and micro == MICROBATCHES - 1:
                continue  # its gradient came after the replicas' were reduced
            (mean * share).backward()
    for all_of_one in zip(*(replica.parameters() for replica in replicas)):  # all_reduce
        all_of_one[0].grad = torch.stack([p.grad for p in all_of_one]).sum(0)
        if bug == "no-averaging":  # each replica had the mean of its own part, and nobody divided by two
            all_of_one[0].grad *= REPLICAS
    return total


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("path")
    arguments.add_argument("--bug", choices=BUGS)
    arguments.add_argument("--tied", action="store_true")
    arguments.add_argument("--bf16", action="store_true")
    arguments.add_argument("--deviation", type=float, default=0.1, help="of the first weights")
    o = arguments.parse_args()
    torch.set_num_threads(1)
    model = make_model(o.tied, o.deviation)
    replicas = [model] + [copy.deepcopy(model) for _ in range(REPLICAS - 1)]
    decayed = [p for p in model.parameters() if p.dim() > 1 or o.bug == "decayed-norms"]
    others = [p for p in model.parameters() if p.dim() == 1 and o.bug != "decayed-norms"]
    settings = dict(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    optimizer = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=others, weight_decay=0.0)],
                                  lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    dump = Dump(o.path, model, dtype="bf16" if o.bf16 else "float32", clip=0.5, **settings)
    for step in range(STEPS):
        tokens, labels = make_batch()
        for replica in replicas:
            replica.zero_grad(set_to_none=False)
        loss = backward(replicas, tokens, labels, o.bug, o.bf16)
        dump.gradients(step, tokens, next_tokens(labels.numpy()), loss, lr=1e-3)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        dump.weights(step, norm)
        for replica in replicas[1:]:  # broadcast
            for name, parameter in replica.named_parameters():
                if o.bug == "stale-weight" and name == "model.layers.1.self_attn.v_proj.weight":
                    continue
                parameter.data.copy_(model.get_parameter(name).data)
        print(f"step {step}  loss {loss:.6f}")


if __name__ == "__main__":
    main()
