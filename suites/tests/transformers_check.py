"""What transformers makes of a model that lockstep saved. Run by program_transformers_test.cpp:

    transformers_check.py FOLDER DUMP AGAIN

FOLDER is the saved model, DUMP a run that began with it. Its weights must be the dump's initial ones bit for bit, and
the loss of the dump's first batch the dump's. AGAIN gets the model as transformers saves it, in several files.
"""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import h5py  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402


def main(folder, dump, again):
    model, info = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    wrong = {what: names for what, names in info.items() if names}
    assert not wrong, f"loading: {wrong}"
    assert model.dtype == torch.float32, model.dtype
    with h5py.File(dump) as file:
        state = model.state_dict()
        for name, values in file["initial"].items():
            stored = torch.from_numpy(values[:])
            assert torch.equal(state[name], stored), f"{name}: {state[name]} instead of {stored}"
        tokens, labels = (torch.from_numpy(file[f"step0/{name}"][:]).long() for name in ("tokens", "labels"))
        loss = file["step0/loss"][()]
    with torch.no_grad():
        logits = model(tokens).logits
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), labels.flatten(), ignore_index=-100)
    # float32 in another order of summation: some 1e-7 of the loss.
    assert abs(theirs - loss) < 3e-6 * loss, f"loss {theirs} instead of {loss}"
    model.save_pretrained(again, max_shard_size="100KB")
    print(f"loss {theirs:.7f}, lockstep's {loss:.7f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
