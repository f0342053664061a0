"""Reads what `lockstep plan --out` writes (reports/schema.md, "Planner file")."""
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy
import pandas

import plans
from run_file import Refused, check_format, read_columns

FORMAT = "lockstep planner"
MEDIA = ("device", "host", "disk")


@dataclass
class Answer:
    path: Path
    facts: dict               # the root attributes
    plans: pandas.DataFrame   # all that fit, the fastest first: plan, seconds, tokens_per_second, bytes/<medium>
    refused: pandas.DataFrame  # rule, plans
    legal: pandas.DataFrame   # word, value, plans
    best: pandas.DataFrame    # by word and value the fastest that fits: word, value, plan, seconds, bytes/<medium>
    top: pandas.DataFrame     # the best few in detail: memory/<kind>, time/<kind>, why, timeline, ...

    def columns(self, prefix):
        """{name: column} of the best few: columns("memory/")."""
        return {c[len(prefix):]: c for c in self.top.columns if c.startswith(prefix)}

    def tokens_per_second(self, seconds):
        return self.facts["batch"] * self.facts["seq"] / seconds

    def of_peak(self, seconds):
        """Part of the devices' arithmetic that the model's own operations take."""
        return self.facts["model_flops"] / self.facts["peak_flops"] / seconds

    @property
    def hardware(self):
        return f"{self.facts['devices']:,} × {self.facts['cluster']}"


def read(path):
    """The answer in `path`. Raises Refused."""
    try:
        with h5py.File(path) as file:
            check_format(file, path, FORMAT, "planner file")
            facts = dict(file.attrs)
            tables = [pandas.DataFrame(read_columns(file[name])) for name in ("plans", "refused", "legal", "best", "top")]
    except (OSError, KeyError, ValueError) as error:
        raise Refused(f"'{path}' cannot be read as a planner file: it is of another kind, or cut off ({error})") from error
    answer = Answer(Path(path), facts, *tables)
    if len(answer.plans) != facts["fit"] or not (answer.plans.seconds > 0).all():
        raise Refused(f"'{path}' cannot be reported: it does not hold the {facts['fit']} plans that it says fit")
    return answer


def label(line):
    """A plan's line as a sweep's page writes it too."""
    return plans.label(plans.changed_words(line))


def front(plans):
    """The rows, the fastest first, that no other is as fast as and smaller than, on the device and beside it."""
    kept, chosen = numpy.empty((0, 2)), []
    beside = plans["bytes/host"] + plans["bytes/disk"]
    for index, device, other in zip(plans.index, plans["bytes/device"], beside):
        if not ((kept[:, 0] <= device) & (kept[:, 1] <= other)).any():
            kept = numpy.vstack([kept, (device, other)])
            chosen.append(index)
    return chosen


def device_front(plans):
    """The same by the device's memory alone: each needs less than all that are faster."""
    least = plans["bytes/device"].cummin().shift(fill_value=numpy.inf)
    return list(plans.index[plans["bytes/device"] < least])
