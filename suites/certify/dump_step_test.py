"""What dump_step.py writes, of a model that is not Hugging Face's: build/venv-fixtures/bin/python suites/certify/dump_step_test.py"""
import tempfile
import types
import unittest
from pathlib import Path

import h5py
import numpy
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from dump_step import Dump, next_tokens


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qk = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2))
        self.norm = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        self.config = types.SimpleNamespace(to_dict=lambda: {"hidden_size": 2})


def halves(tensors):
    """qk as two tensors, the first two rows and the last."""
    (name, tensor), = tensors.items()
    return {"q.weight": tensor[:2], "k.weight": tensor[2:]} if name == "qk" else {f"model.{name}": tensor}


class Writes(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name) / "run.h5"

    def step(self, model, **names):
        dump = Dump(self.path, model, dtype="float32", **names)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        dump.gradients(0, torch.tensor([[1, 2, 3]]), next_tokens(numpy.array([[1, 2, 3]])), torch.tensor(1.5), lr=0.1)
        dump.weights(0, torch.tensor(2.0))
        dump.file.close()
        return h5py.File(self.path)

    def test_a_model_by_its_own_names(self):
        file = self.step(Model())
        self.assertEqual(sorted(file["initial"]), ["norm", "qk"])
        self.assertEqual(file.attrs["model"], '{"hidden_size": 2, "architectures": ["LlamaForCausalLM"]}')
        self.assertEqual(file["step0/labels"][:].tolist(), [[2, 3, -100]])
        self.assertEqual([file[f"step0/{name}"][()] for name in ("loss", "lr", "grad_norm")], [1.5, 0.1, 2.0])
        self.assertEqual(file["step0/grad/norm"][:].tolist(), [0.5, 0.5])
        self.assertEqual(file["step0/grad/norm"].dtype, numpy.float32)

    def test_a_model_by_other_names_and_shapes(self):
        file = self.step(Model(), config={"hidden_size": 3}, to_hf=halves)
        self.assertEqual(sorted(file["step0/weight"]), ["k.weight", "model.norm", "q.weight"])
        self.assertEqual(file["initial/q.weight"][:].tolist(), [[0, 1], [2, 3]])
        self.assertEqual(file["step0/grad/k.weight"][:].tolist(), [[0.5, 0.5]])
        self.assertIn('"hidden_size": 3', file.attrs["model"])

    def test_wrappers_leave_no_trace_in_names(self):
        model = torch.nn.ModuleDict({"submodule": checkpoint_wrapper(torch.nn.ModuleDict({"inner": Model()}))})
        file = self.step(torch.compile(torch.nn.ModuleDict({"module": model})), config={"hidden_size": 2})
        self.assertEqual(sorted(file["initial"]), ["submodule.inner.norm", "submodule.inner.qk"])

    def test_flat_shards_are_refused(self):
        with self.assertRaisesRegex(ValueError, "fully_shard"):
            Dump(self.path, torch.nn.ModuleDict({"_fsdp_wrapped_module": Model()}), config={})

    def test_labels_of_a_model_are_shifted(self):
        self.assertEqual(next_tokens(torch.tensor([[4, 5, 6], [7, 8, -100]])).tolist(), [[5, 6, -100], [8, -100, -100]])

    def test_a_gradient_that_is_missing_is_named(self):
        dump = Dump(self.path, Model())
        with self.assertRaisesRegex(ValueError, "qk has no gradient"):
            dump.gradients(0, [[1]], [[2]], 1.0, lr=0.1)
        dump.file.close()


if __name__ == "__main__":
    unittest.main()
