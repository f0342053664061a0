"""Writes a training run of a Hugging Face Llama as `lockstep compare FILE` judges it (reports/schema.md, "Dump").

    dump = Dump("run.h5", model, dtype="float32", clip=1.0, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    for step, (tokens, labels) in enumerate(batches):         # of all microbatches and replicas, in any order; in that
        ...forward and backward of all of it...               # of replicas, then microbatches, what is lost is named
        dump.gradients(step, tokens, labels, loss, lr)        # whole and reduced, before clipping
        norm = ...clip; optimizer.step()...
        dump.weights(step, norm)                              # the gradients' norm before clipping, if there is one

dtype="bf16" is for a trainer in mixed precision (torch.autocast, FSDP's param_dtype, a bf16 copy of the weights); `model`
is then the one whose float32 weights the optimizer updates.

Under torch.distributed (DDP, FSDP2's fully_shard) every rank calls all of it. Shards are gathered, and so are the tokens
and labels that each rank of `group` has, all of one sequence length; the first rank writes. `loss` is the whole batch's.
`group` is the data-parallel one (all ranks, unless told); ranks that split a sequence join it first. With gather=False
tokens and labels are the whole batch's, and the first rank may call it alone where its tensors are whole.

A model under other names, or with matrices in other orders, brings `config`, that of the Hugging Face Llama that it is, and
`to_hf`, which turns {name: tensor} into one or several tensors under Hugging Face's names: of torchtitan's Llama 3
Llama3StateDictAdapter(model_config, None).to_hf.
"""
import json

import h5py
import numpy
import torch.distributed as ranks

WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module"}  # DDP's, torch.compile's, checkpoint_wrapper's


def whole(tensor):
    """The tensor on the host, gathered if it is sharded."""
    tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return tensor.detach().cpu() if hasattr(tensor, "detach") else tensor


def next_tokens(labels):
    """From labels as Hugging Face's models take them, which shift them inside, to targets by position."""
    labels = numpy.asarray(whole(labels))
    return numpy.concatenate([labels[:, 1:], numpy.full_like(labels[:, :1], -100)], axis=1)


class Dump:
    def __init__(self, path, model, group=None, gather=True, config=None, to_hf=dict, **settings):
        self.model, self.group, self.to_hf = model, group, to_hf
        started = ranks.is_available() and ranks.is_initialized()
        self.many = gather and started
        self.file = h5py.File(path, "w") if not started or ranks.get_rank() == 0 else None
        if self.file:
            config = getattr(model, "module", model).config.to_dict() if config is None else config
            self.file.attrs.update(format="lockstep dump", version=1, plan="outside", **settings,
                                   model=json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
        self._tensors("initial", lambda parameter: parameter)

    def _tensors(self, folder, values_of):
        for name, parameter in self.model.named_parameters():  # a tied head is not in it twice
            name = ".".join(part for part in name.split(".") if part not in WRAPPERS)
            if "_fsdp_wrapped_module" in name:
                raise ValueError("FSDP1 keeps flat shards; fully_shard (FSDP2) keeps tensors that can be gathered")
            values = values_of(parameter)
            if values is None:
                raise ValueError(f"{name} has no gradient: nothing reached it, or it was freed before this call")
            for hf_name, tensor in self.to_hf({name: whole(values)}).items():
                self._write(f"{folder}/{hf_name}", tensor.float())

    def _write(self, name, value):
        if self.file:
            self.file[name] = value

    def _of_all(self, ids):
        """Those of all ranks, the first rank's first."""
        ids = numpy.asarray(whole(ids), dtype=numpy.int32)
        if not self.many:
            return ids
        parts = [None] * ranks.get_world_size(self.group)
        ranks.all_gather_object(parts, ids, group=self.group)
        return numpy.concatenate(parts)

    def gradients(self, step, tokens, labels, loss, lr):
        self._write(f"step{step}/tokens", self._of_all(tokens))
        self._write(f"step{step}/labels", self._of_all(labels))
        self._write(f"step{step}/loss", float(whole(loss)))
        self._write(f"step{step}/lr", float(lr))
        self._tensors(f"step{step}/grad", lambda parameter: parameter.grad)

    def weights(self, step, grad_norm=None):
        if grad_norm is not None:
            self._write(f"step{step}/grad_norm", float(whole(grad_norm)))
        self._tensors(f"step{step}/weight", lambda parameter: parameter)
        if self.file:
            self.file.flush()
