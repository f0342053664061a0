"""Pictures of simulated steps: who does what when, what a step's time goes to, and how it shrinks with more ranks.
The rates are nominal (`simulated_with` of the run file); nothing here was measured but what is marked so."""
import json

import numpy
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator, ScalarFormatter

from plans import shown, simplest_first, solo
from plots import WIDTH, bar_height, largest_first, legend_above
from style import BLUE, GREEN, GREY, INK, LINE, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, pyplot

# What a device does in a step; page.css has the same colours for the page's own drawing.
PASSES = {"forward": BLUE, "backward": ORANGE, "input gradients": ORANGE, "weight gradients": GREEN, "update": PURPLE}
PARTS = {"compute": BLUE, "update": PURPLE, "bubble": LINE, "copies": YELLOW}
NUMBER = 130  # width of a number, in 10000ths of a step
ON_BLUE, ON_OTHERS = "#FDFDFD", "#010101"  # texts on bars, in light and dark
AXIS_COLOURS = {"dp": VERMILLION, "tp": SKY, "pp": GREEN, "cp": "#9C755F", "kv": "#7FD4B8", "tie": GREY, "world": INK,
                "shard": "#EE9C66", "replica": "#8F3F00"}  # parts of dp: shades of its colour


def simulated(run):
    """The plans that have a simulated step."""
    if "timeline" not in run.plans:
        return run.plans.iloc[:0]
    return run.plans[run.plans.simulated_seconds.notna() & (run.plans.timeline != "")]


def schedules_side_by_side(run):
    """The largest set of plans that are equal in all but their schedule (and its chunks): the deepest pipeline's."""
    plans = simulated(run)
    if "word/schedule" not in plans or plans.empty:
        return plans.iloc[:0]
    others = [column for word, column in run.columns("word/").items() if word not in ("schedule", "virtual")]
    groups = [group.drop_duplicates("word/schedule")
              for _, group in plans[plans["word/pp"] > 1].groupby(others, sort=False)]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return plans.iloc[:0]
    # The simplest of those with most schedules, deepest pipelines first.
    best = max(groups, key=lambda g: (len(g), g["word/pp"].iloc[0], -g.changed.map(len).min(), -g.ranks.iloc[0]))
    return best.sort_values("simulated_seconds", ascending=False)


def schedules(run):
    """Every stage's computation in time, one panel a schedule, on one scale."""
    plans = schedules_side_by_side(run)
    if plans.empty:
        return None
    stages = int(plans["word/pp"].iloc[0])
    figure, panels = pyplot.subplots(len(plans), 1, sharex=True, squeeze=False,
                                     figsize=(WIDTH, 0.9 + len(plans) * (0.62 + 0.27 * stages)))
    seen = {}
    for axes, (_, plan) in zip(panels[:, 0], plans.iterrows()):
        seen |= draw_computing(axes, json.loads(plan.timeline))
        axes.set_title(f"{plan.label}: {1e3 * plan.simulated_seconds:.3g} ms, of which "
                       f"{100 * plan['simulated/bubble'] / plan.simulated_seconds:.0f} % idle", loc="left")
    panels[-1, 0].set_xlabel("simulated time [ms]")
    panels[-1, 0].set_xlim(0, 1e3 * plans.simulated_seconds.max() * 1.005)
    figure.legend([Patch(color=colour) for colour in seen.values()], list(seen), loc="outside upper left",
                  ncols=len(seen), handlelength=1.2, columnspacing=1.4)
    return figure


def runs(bars):
    """[(what, [(start, length)])] of bars of one pass, chunk and microbatch without a gap that a number is wider than."""
    found, end = [], 0
    for start, length, *what in bars:
        if not found or found[-1][0] != what or start - end > NUMBER:
            found.append((what, []))
        found[-1][1].append((start, length))
        end = start + length
    return found


def draw_computing(axes, timeline):
    """One row a stage, one bar a layer's pass; one number over the bars of a microbatch that follow one another.
    Returns {pass: colour} of what was drawn."""
    scale, seen = 1e3 * timeline["seconds"] / 10000, {}
    rows = [stream for stream in timeline["streams"] if stream[1] == "compute"]
    for row, (_, _, numbers) in enumerate(rows):
        bars = {}  # {pass: [(start, length)]}: those of a colour are drawn at once
        for (kind, _, microbatch), run in runs(zip(*[iter(numbers)] * 5)):
            name, run = timeline["passes"][kind], [(start * scale, length * scale) for start, length in run]
            if name not in PASSES:
                continue
            shown_as = "backward" if name == "input gradients" and "backward" not in timeline["passes"] else name
            seen["backward, or input gradients" if "backward" in shown_as else name] = PASSES[name]
            bars.setdefault(name, []).extend(run)
            begin, end = run[0][0], sum(run[-1])
            if microbatch >= 0 and end - begin > NUMBER * scale:  # in_layout: it lies inside
                axes.text((begin + end) / 2, row, str(microbatch), ha="center", va="center", fontsize=8,
                          color=ON_BLUE if name == "forward" else ON_OTHERS, in_layout=False,
                          bbox={"facecolor": PASSES[name], "edgecolor": "none", "pad": 1})
        for name, places in bars.items():
            axes.broken_barh(places, (row - 0.41, 0.82), color=PASSES[name], edgecolor="white", linewidth=0.5)
    axes.set_yticks(range(len(rows)), [f"stage {row}" for row in range(len(rows))])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return seen


def parts_of(run):
    """{name: column} of what a step's seconds go to: work, then waiting for messages by axis, copies, other ranks."""
    columns = run.columns("simulated/")
    waits = largest_first(simulated(run), {name: columns[name] for name in columns if name not in PARTS})
    order = ["compute", "update", *waits, "copies", "bubble"]
    return {name: columns[name] for name in order if name in columns and (simulated(run)[columns[name]] > 0).any()}


def step_parts(run):
    """A bar per plan: how much of a rank's step is work, and what the rest is."""
    everything = simulated(run)
    rows = shown(run.plans)
    rows = rows[rows.index.isin(everything.index) & (rows.ranks > 1)]
    if rows.empty:
        return None
    busy = (rows["simulated/compute"] + rows["simulated/update"]) / rows.simulated_seconds
    rows = rows.assign(busy=busy).sort_values(["busy", "label"])
    figure, axes = pyplot.subplots(figsize=(WIDTH, bar_height(len(rows))))
    places, left = numpy.arange(len(rows)), numpy.zeros(len(rows))
    names = {"compute": "forward, backward", "update": "optimizer", "bubble": "idle", "copies": "waiting for copies"}
    for name, column in parts_of(run).items():
        share = (100 * rows[column] / rows.simulated_seconds).to_numpy()
        axes.barh(places, share, left=left, height=0.74, color=PARTS.get(name) or AXIS_COLOURS.get(name, GREY),
                  label=names.get(name, f"waiting for {name}"), edgecolor="white", linewidth=0.5)
        left = left + share
    axes.set_yticks(places, rows.label)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("part of a simulated step, mean over ranks [%]")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    legend_above(figure, most=5)
    return figure


def scaling(run):
    """Speed by number of ranks where one axis of the mesh alone grows: simulated, and measured where there is any."""
    plans, base = simulated(run), solo(run.plans)
    if base.name not in plans.index or base.ranks != 1:
        return None
    lines = {}
    for axis in ("dp", "tp", "pp", "cp"):
        if f"word/{axis}" not in plans:
            continue
        rest = plans.changed.map(lambda words: {word: value for word, value in words.items() if word != axis})
        only = plans[(plans[f"word/{axis}"] == plans.ranks) & rest.map(lambda words: words == base.changed)]
        if only["ranks"].nunique() >= 3:
            lines[axis] = simplest_first(only).drop_duplicates("ranks").sort_values("ranks")
    if not lines:
        return None
    figure, axes = pyplot.subplots(figsize=(WIDTH, 4))
    most = max(rows.ranks.max() for rows in lines.values())
    axes.plot([1, most], [1, most], "--", color=GREY, linewidth=1, label="ideal")
    for (axis, rows), colour, mark in zip(lines.items(), (VERMILLION, BLUE, GREEN, AXIS_COLOURS["cp"]), "os^D"):
        speed = base.simulated_seconds * rows.tokens_per_step / (base.tokens_per_step * rows.simulated_seconds)
        axes.plot(rows.ranks, speed, "-" + mark, color=colour, markersize=7, label=f"{axis}, simulated")
        timed = rows[rows.shown_time & (rows.ranks > 1)]
        if len(timed) and base.shown_time:
            axes.plot(timed.ranks, timed.throughput / base.throughput, mark, color="none", markeredgecolor=colour,
                      markersize=10, markeredgewidth=2, label=f"{axis}, measured")
    for set_scale, one in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
        set_scale("log", base=2)
        one.set_major_formatter(ScalarFormatter())
        one.set_minor_locator(NullLocator())
    axes.set_xticks([2 ** power for power in range(int(numpy.log2(most)) + 1)])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("ranks")
    axes.set_ylabel("speed (one device = 1)")
    axes.legend(loc="upper left")
    return figure
