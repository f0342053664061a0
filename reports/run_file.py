"""Reads a run file (reports/schema.md) and judges whether a report may be made of it."""
from dataclasses import dataclass
from pathlib import Path

import h5py
import pandas

FORMAT = "lockstep run"
GATES = ("numbers", "messages", "memory", "fast")
NOT_POSSIBLE = "not possible"  # an exact gate's verdict on a plan that only fast mode can sum
ENDED = ("crashed", "timeout", "out of memory")  # before a verdict


class Refused(Exception):
    """Why no report can be made: one sentence for the user."""


@dataclass
class Run:
    path: Path
    facts: dict               # the root attributes
    plans: pandas.DataFrame   # a row per plan, a column per array: "plan", "word/dp", "traffic/tp/bytes", ...
    refused: dict             # rule -> number of plans it refused

    def columns(self, prefix, suffix=""):
        """{name: column} of the columns prefix + name + suffix: columns("peak_by_kind/")."""
        return {c[len(prefix):len(c) - len(suffix)]: c for c in self.plans.columns
                if c.startswith(prefix) and c.endswith(suffix)}


def read_columns(group):
    columns = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            values = item.asstr()[:] if h5py.check_string_dtype(item.dtype) else item[:]
            columns[name] = list(values)
    group.visititems(add)
    return columns


def find(place, formats=(FORMAT,)):
    """The file that is meant: itself, or the newest of these formats in a folder."""
    place = Path(place)
    if not place.exists():
        raise Refused(f"'{place}' does not exist; name a run file, or a folder with one")
    if not place.is_dir():
        return place
    runs = [path for path in place.glob("*.h5") if format_of(path) in formats]
    if not runs:
        for path in place.glob("*.h5"):
            if why := closed(path):
                raise Refused(f"'{path}' {why}")
        raise Refused(f"'{place}' holds no run file; name a run file, or a folder with one")
    return max(runs, key=lambda path: path.stat().st_mtime)


def closed(path):
    """Why a file cannot be opened; nothing if it can."""
    try:
        with path.open("rb"):
            pass
        h5py.File(path).close()
    except PermissionError:
        return "may not be read"
    except BlockingIOError:
        return "is being written; wait for the command that writes it"
    except OSError:
        return "is damaged, or no HDF5 file; the command that wrote it writes it anew"


def format_of(path):
    """What a file says it is; nothing if it is not HDF5."""
    try:
        with h5py.File(path) as file:
            return file.attrs.get("format")
    except OSError:
        return None


def check_format(file, path, format, what):
    """Raises Refused where an open HDF5 file is no `what` (such as "run file") that this report reads."""
    if file.attrs.get("format") != format:
        raise Refused(f"'{path}' is not a {what} (reports/schema.md says what one is)")
    if file.attrs["version"] != 1:
        raise Refused(f"'{path}' is a {what} of version {file.attrs['version']}; this report reads version 1")


def read(path):
    """The run in `path`, checked. Raises Refused."""
    try:
        with h5py.File(path) as file:
            check_format(file, path, FORMAT, "run file")
            facts = dict(file.attrs)
            plans = pandas.DataFrame(read_columns(file["plans"]))
            refused = read_columns(file["refused"])
    except (OSError, KeyError, ValueError) as error:
        raise Refused(f"'{path}' cannot be read as a run file: it is of another kind, or cut off ({error})") from error
    run = Run(Path(path), facts, plans, dict(zip(refused["rule"], refused["plans"])))
    judge(run)
    return run


def of_the_batch(run):
    """Which plans train on the run's batch: all, but in weak scaling, where the batch grows with dp."""
    return run.plans.tokens_per_step == run.plans.tokens_per_step.min()


def judge(run):
    """A report of plans that nobody checked, or that contradicts its own verdict, would mislead. Raises Refused."""
    plans, path = run.plans, run.path
    if plans.empty:
        raise Refused(f"'{path}' holds no plan, so there is nothing to report")

    def complain(which, what):
        if which.any():
            first = plans.plan[which].iloc[0]
            raise Refused(f"'{path}' cannot be reported: {which.sum()} of {len(plans)} plans {what}, "
                          f"the first is '{first}'")
    ended = plans.status.isin(ENDED)   # that is its verdict: it came to no gate
    for gate in GATES:
        complain((plans[gate] == "") & ~ended, f"lack the verdict of the {gate} gate; run the sweep with all gates")
    alone = plans.numbers == NOT_POSSIBLE   # in fast mode alone: exact mode cannot sum such a plan
    passed = (plans[list(GATES)] == "pass").all(axis=1) | (alone & (plans.fast == "pass"))
    complain((plans.status == "ok") & ~passed, "say 'ok' although a gate found a fault")
    complain((plans.status == "ok") & (plans.hash == "") & ~alone, "say 'ok' without a hash of their numbers")
    verdict = run.facts["verdict"].split(":")[0].split(" ")[0]
    if verdict not in ("VALID", "INVALID"):
        raise Refused(f"'{path}' has no verdict; the sweep that writes it must end in VALID or INVALID")
    if verdict == "VALID":
        complain(plans.status != "ok", "failed although the run says VALID")
        complain((plans.hash != run.facts["hash"]) & ~alone & of_the_batch(run),
                 "have another hash than the run, which says VALID")
        for _, batch in plans[~alone & ~of_the_batch(run)].groupby("tokens_per_step"):   # weak scaling
            complain(plans.index.isin(batch.index) & (plans.hash != batch.hash.iloc[0]),
                     "have another hash than those of their batch, and the run says VALID")
        if run.facts["reference_hash"] and run.facts["hash"] != run.facts["reference_hash"] and not alone.all():
            raise Refused(f"'{path}' cannot be reported: it says VALID, but its hash {run.facts['hash']} is not "
                          f"the reference's {run.facts['reference_hash']}")
