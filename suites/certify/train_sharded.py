"""The loop of train_llama.py as ranks of torch.distributed, sharded by FSDP (fully_shard) or replicated by DDP:

    python=$(ci/venv.sh fixtures); $python -m torch.distributed.run --standalone --nproc-per-node 2 suites/certify/train_sharded.py run.h5
    build/lockstep compare run.h5

Both average gradients over ranks. The mean over the batch's labels is that only if each rank's loss is first weighed
by its part of them; --bug mean-of-means leaves that out, and `lockstep compare` must name it.
"""
import argparse
import gc

import torch
import torch.distributed as ranks
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from dump_step import Dump, next_tokens
from train_llama import STEPS, make_batch, make_model


def shard(model, bf16):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    for layer in model.model.layers:
        fully_shard(layer, mp_policy=policy)
    return fully_shard(model, mp_policy=policy)


def train(o):
    rank, world = ranks.get_rank(), ranks.get_world_size()
    model = make_model(tied=False, deviation=0.1)
    model = DistributedDataParallel(model) if o.ddp else shard(model, o.bf16)
    matrices, norms = ([p for p in model.parameters() if (p.dim() > 1) == wide] for wide in (True, False))
    optimizer = torch.optim.AdamW([dict(params=matrices, weight_decay=0.1), dict(params=norms, weight_decay=0.0)],
                                  lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    dump = Dump(o.path, model, dtype="bf16" if o.bf16 else "float32", clip=0.5, beta1=0.9, beta2=0.95, eps=1e-8,
                weight_decay=0.1)
    for step in range(STEPS):
        tokens, labels = make_batch()  # of all ranks alike; each takes its part
        targets = (labels[:, 1:] != -100).sum()
        tokens, labels = tokens.chunk(world)[rank], labels.chunk(world)[rank]
        with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16 and o.ddp):
            mean = model(input_ids=tokens, labels=labels).loss
        share = 1 / world if o.bug else (labels[:, 1:] != -100).sum() / targets
        optimizer.zero_grad()
        (mean * share * world).backward()
        loss = (mean.detach() * share).float()
        ranks.all_reduce(loss)
        dump.gradients(step, tokens, next_tokens(labels.numpy()), loss, lr=1e-3)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        dump.weights(step, norm)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("path")
    arguments.add_argument("--bug", choices=["mean-of-means"])
    arguments.add_argument("--ddp", action="store_true")
    arguments.add_argument("--bf16", action="store_true")
    o = arguments.parse_args()
    torch.set_num_threads(1)
    ranks.init_process_group("gloo")
    train(o)
    # What DDP keeps of the group has to go before it: as its last holder DDP would wait for the group's threads while
    # these wait for Python's lock.
    gc.collect()
    ranks.destroy_process_group()


if __name__ == "__main__":
    main()
