#!/usr/bin/env python3
"""How well can the playbook's runs be ranked by what its columns say? A random forest is given every column, the peak that
was measured and our prediction, learns from nine tenths of the runs and ranks the last tenth, in turn; three times.

    build/lockstep published --rows suites/published/playbook.toml > build/rows.txt
    suites/published/ceiling.py suites/published/playbook.csv build/rows.txt       # needs scikit-learn

And: how well would the planner rank them if it were told which runs were in the slow state (README.md)?
"""
import math
import re
import statistics
import sys
from collections import defaultdict

from siblings import read, spearman


def runs_of(table, scored):
    said = {int(m[1]): float(m[2]) for m in
            (re.match(r"(\d+) .* tokens_per_s_per_gpu +([\d.e+]+) ", l) for l in open(scored, encoding="utf-8")) if m}
    rows = [r for r in read(table) if r["number"] in said and r["source"] == "hf-ultrascale-playbook"]
    for r in rows:
        tokens = int(r["global_batch"]) * int(r["seq"]) / int(r["gpus"])
        r["microbatches"] = int(r["global_batch"]) / int(r["dp"]) / int(r["micro_batch"])
        r["seconds"], r["predicted"] = tokens / float(r["value"]), tokens / said[r["number"]]
    return rows


def rank(rows, seconds):
    """Spearman's correlation by (model, GPUs), the median."""
    groups = defaultdict(list)
    for r, s in zip(rows, seconds):
        groups[r["model"], r["gpus"]].append((-s, -r["seconds"]))
    return statistics.median(spearman(pairs) for pairs in groups.values())


def handed_over(r):
    """What a microbatch of a run in the slow state takes more: 1.3 s for each hand-over but one, shared by the stages."""
    pp = int(r["pp"])
    return 1.3 * (pp - 1) / pp


def learned(rows, seed):
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold
    models = sorted({r["model"] for r in rows})
    said = [[models.index(r["model"]), *(math.log2(float(r[k])) for k in ("gpus", "dp", "tp", "pp", "micro_batch", "microbatches")),
             int(r["zero"] or 0), float(r["mem_gib"] or 0), math.log(r["predicted"])] for r in rows]
    off = [math.log(r["seconds"] / r["predicted"]) for r in rows]
    out = [0.0] * len(rows)
    for known, asked in KFold(10, shuffle=True, random_state=seed).split(said):
        forest = RandomForestRegressor(400, min_samples_leaf=2, random_state=seed, n_jobs=2)
        forest.fit([said[i] for i in known], [off[i] for i in known])
        for i, o in zip(asked, forest.predict([said[i] for i in asked])):
            out[i] = rows[i]["predicted"] * math.exp(o)
    return out


def main(table, scored):
    rows = runs_of(table, scored)
    print(f"{len(rows)} runs; rank, the median of (model, GPUs)")
    print(f"  the planner                              {rank(rows, [r['predicted'] for r in rows]):.3f}")
    slow = [r["gpus"] != "512" and r["pp"] != "1" and
            r["seconds"] - r["predicted"] > handed_over(r) * r["microbatches"] / 2 for r in rows]
    told = [r["predicted"] + s * handed_over(r) * r["microbatches"] for r, s in zip(rows, slow)]
    print(f"  the planner, told of {sum(slow):3d} slow runs         {rank(rows, told):.3f}")
    learnt = sorted(rank(rows, learned(rows, seed)) for seed in range(3))
    print(f"  a forest that learned from nine tenths   {', '.join(f'{x:.3f}' for x in learnt)}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
