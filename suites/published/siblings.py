#!/usr/bin/env python3
"""Published runs that contradict each other, and how well the others are ranked.

    build/lockstep published --rows suites/published/playbook.toml > build/rows.txt
    suites/published/siblings.py suites/published/playbook.csv build/rows.txt

Runs of one model on one mesh differ in their microbatch (and ZeRO stage) alone. A microbatch of b sequences can take
neither much longer than one of more, nor much longer than b/a times one of a < b: a run that takes more than twice that
contradicts a sibling. This looks at published figures only.
"""
import csv
import re
import statistics
import sys
from collections import defaultdict


def read(path):
    lines = [l for l in open(path, encoding="utf-8") if not l.startswith("#")]
    rows = list(csv.DictReader(lines))
    for number, row in enumerate(rows, 1):
        row["number"] = number
    return [r for r in rows if r["metric"] == "tokens_per_s_per_gpu" and r["micro_batch"]]


def contradictory(rows):
    meshes = defaultdict(list)
    for r in rows:
        tokens = int(r["micro_batch"]) * int(r["seq"]) * int(r["dp"]) / int(r["gpus"])
        meshes[tuple(r[k] for k in ("source", "model", "gpus", "dp", "tp", "pp", "global_batch"))].append(
            (int(r["micro_batch"]), tokens / float(r["value"]), r["number"]))
    bad = set()
    for runs in meshes.values():
        for b, seconds, number in runs:
            if any(seconds > 2 * s * max(1, b / a) for a, s, _ in runs):
                bad.add(number)
    return bad


def ranks(values):
    order = sorted(range(len(values)), key=lambda i: values[i])
    out = [0.0] * len(values)
    i = 0
    while i < len(order):
        j = i
        while j < len(order) and values[order[j]] == values[order[i]]:
            j += 1
        for k in order[i:j]:
            out[k] = (i + j - 1) / 2
        i = j
    return out


def spearman(pairs):
    return statistics.correlation(*(ranks(list(x)) for x in zip(*pairs)))


def main(table, scored):
    rows = read(table)
    bad = contradictory(rows)
    said = {int(m[1]): float(m[2]) for m in
            (re.match(r"(\d+) .* tokens_per_s_per_gpu +([\d.e+]+) ", l) for l in open(scored, encoding="utf-8")) if m}
    groups = defaultdict(list)
    for r in rows:
        if r["number"] in said and r["source"] == rows[0]["source"]:
            groups[r["model"], int(r["gpus"])].append((said[r["number"]], float(r["value"]), r["number"] in bad))
    print(f"{'model':<14}{'GPUs':>5}{'runs':>6}{'rank':>8}{'contradictory':>15}{'rank without':>14}")
    every, kept = [], []
    for (model, gpus), runs in sorted(groups.items()):
        rest = [(p, v) for p, v, b in runs if not b]
        every.append(spearman([(p, v) for p, v, _ in runs])), kept.append(spearman(rest))
        print(f"{model:<14}{gpus:>5}{len(runs):>6}{every[-1]:>8.3f}{len(runs) - len(rest):>15}{kept[-1]:>14.3f}")
    pooled = [r for runs in groups.values() for r in runs]
    print(f"median {statistics.median(every):.3f}; without them {statistics.median(kept):.3f}; "
          f"all {len(pooled)} runs as one list {spearman([(p, v) for p, v, _ in pooled]):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
