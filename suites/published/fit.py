#!/usr/bin/env python3
"""Fits a group's constants on the rows that its [[fitted]] selects, by asking `lockstep published`.

    suites/published/fit.py suites/published/vtrain.toml suites/published/vtrain.fit.json [rounds]

The second file names the constants: {"device.dispatch_us": [5, 18, 60], ...}: least, first guess, most, of the group's
cluster. A curve is `saturating` in size, part = most / (1 + (half / size)^power):
"efficiency.matmul": {"most": [..], "half": [..], "power": [..], "sizes": [1e8, 1e9, ...]}. Prints them as TOML.
Needs Python 3.11, numpy and scipy.
"""
import csv
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares


def toml_value(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    return f"{value:g}".replace("e+0", "e") if isinstance(value, float) else json.dumps(value)


def saturating(most, half, power, sizes):
    return [[float(f"{x:.3g}"), float(f"{most / (1 + (half / x) ** power):.4g}")] for x in sizes]


class Fit:
    def __init__(self, group, constants, only=None):
        self.path = Path(group)
        self.group = tomllib.loads(self.path.read_text())
        self.constants = json.loads(Path(constants).read_text())
        self.build = Path("build/fit")
        self.build.mkdir(parents=True, exist_ok=True)
        self.names, self.low, self.first, self.high = [], [], [], []
        for name, what in self.constants.items():
            parts = {f"{name}/{k}": v for k, v in what.items() if k != "sizes"} if isinstance(what, dict) else {name: what}
            for key, (low, first, high) in parts.items():
                self.names.append(key), self.low.append(low), self.first.append(first), self.high.append(high)
        self.select()

    def select(self):
        """Only the fitted rows go into the file that is scored again and again."""
        for table in self.group["cluster"].values():
            if "base" in table:
                table["base"] = str((self.path.parent.parent / "clusters" / table["base"]).resolve())
            if "like" in table:
                table["like"] = str(self.path.parent.resolve() / table["like"])
        lines = [l for l in self.path.with_suffix(".csv").read_text().splitlines() if l and l[0] != "#"]
        out = subprocess.run(["build/lockstep", "published", "--rows", str(self.path)], capture_output=True, text=True)
        fitted = [int(l.split()[0]) for l in out.stdout.splitlines() if re.match(r"\s*\d+ ", l) and l.endswith("fitted")]
        self.csv = "\n".join([lines[0]] + [lines[n] for n in fitted])
        self.group.pop("bar", None), self.group.pop("fitted", None)

    def overrides(self, x):
        values = dict(zip(self.names, x))
        out = {}
        for name, what in self.constants.items():
            if isinstance(what, dict):
                out[name] = saturating(values[name + "/most"], values[name + "/half"], values[name + "/power"], what["sizes"])
            else:
                out[name] = float(f"{values[name]:.4g}")
        return out

    def errors(self, x):
        group = json.loads(json.dumps(self.group))
        for table in group["cluster"].values():
            for name, value in self.overrides(x).items():
                at = table
                *path, last = name.split(".")
                for key in path:
                    at = at.setdefault(key, {})
                at[last] = value
        text = "\n".join(f"{k} = {toml_value(v)}" for k, v in group.items())
        (self.build / "now.toml").write_text(text)
        (self.build / "now.csv").write_text(self.csv)
        out = subprocess.run(["build/lockstep", "published", "--rows", str(self.build / "now.toml")], capture_output=True, text=True)
        off = [float(m[1]) for m in re.finditer(r"([+-][\d.]+) %", out.stdout.split("Llama-shaped")[0].split("GPT-shaped")[0])]
        if not off:
            sys.exit(out.stdout + out.stderr)
        return np.log1p(np.array(off) / 100)

    def run(self, rounds=40):
        low, high, x = (np.log(np.array(v)) for v in (self.low, self.high, self.first))
        x = np.clip(x, low + 1e-6, high - 1e-6)
        best = least_squares(lambda v: self.errors(np.exp(v)), x, bounds=(low, high), loss="soft_l1", f_scale=0.05,
                             diff_step=0.02, max_nfev=rounds)
        e = self.errors(np.exp(best.x))
        print(f"# {len(e)} rows: mean error {100 * np.mean(np.abs(np.expm1(e))):.2f} %, worst {100 * np.max(np.abs(np.expm1(e))):.2f} %")
        for name, value in self.overrides(np.exp(best.x)).items():
            print(f"{name} = {toml_value(value)}")
        for n, v, lo, hi in zip(self.names, np.exp(best.x), self.low, self.high):
            print(f"#   {n} {v:.4g}{'  at its bound' if v < lo * 1.02 or v > hi * 0.98 else ''}")


if __name__ == "__main__":
    Fit(*sys.argv[1:3]).run(int(sys.argv[3]) if len(sys.argv) > 3 else 40)
