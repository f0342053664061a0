"""Writes a training run of a Hugging Face Llama as `lockstep compare FILE` judges it (reports/schema.md, "Dump").

    dump = Dump("run.h5", model, dtype="float32", clip=1.0, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
    for step, (tokens, labels) in enumerate(batches):         # of all microbatches and replicas, in any order; in that
        ...forward and backward of all of it...               # of replicas, then microbatches, what is lost is named
        dump.gradients(step, tokens, labels, loss, lr)        # whole and reduced, before clipping
        norm = ...clip; optimizer.step()...
        dump.weights(step, norm)                              # the gradients' norm before clipping, if there is one

dtype="bf16" is for a trainer in mixed precision (torch.autocast, FSDP's param_dtype, a bf16 copy of the weights); `model`
is then the one whose float32 weights the optimizer updates.
"""
import json

import h5py
import numpy


def next_tokens(labels):
    """From labels as Hugging Face's models take them, which shift them inside, to targets by position."""
    return numpy.concatenate([labels[:, 1:], numpy.full_like(labels[:, :1], -100)], axis=1)


class Dump:
    def __init__(self, path, model, **settings):
        self.file, self.model = h5py.File(path, "w"), model
        config = json.dumps({**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]})
        self.file.attrs.update(format="lockstep dump", version=1, plan="outside", model=config, **settings)
        self._write("initial", lambda parameter: parameter)

    def _write(self, group, values_of):
        for name, parameter in self.model.named_parameters():  # a tied head is not in it twice
            self.file[f"{group}/{name}"] = values_of(parameter).detach().float().cpu().numpy()

    def gradients(self, step, tokens, labels, loss, lr):
        self.file[f"step{step}/tokens"] = numpy.asarray(tokens, dtype=numpy.int32)
        self.file[f"step{step}/labels"] = numpy.asarray(labels, dtype=numpy.int32)
        self.file[f"step{step}/loss"] = loss.item() if hasattr(loss, "item") else float(loss)
        self.file[f"step{step}/lr"] = float(lr)
        self._write(f"step{step}/grad", lambda parameter: parameter.grad)

    def weights(self, step, grad_norm=None):
        if grad_norm is not None:
            self.file[f"step{step}/grad_norm"] = float(grad_norm)
        self._write(f"step{step}/weight", lambda parameter: parameter)
        self.file.flush()
