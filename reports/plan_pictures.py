"""The pictures of a planner's page. Each function makes one figure of an answer (plan_file.Answer), or None if there is
nothing to show. All of it is predicted, and each picture says so on its axis."""
import textwrap

import numpy
from matplotlib.ticker import FuncFormatter

import plan_file
from plots import WIDTH, largest_first, legend_above, place_labels
from steps import AXIS_COLOURS, PARTS
from style import BLACK, BLUE, GREY, LINE, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, bytes_unit, look, pyplot

MOST_NAMES = 7  # of points on the Pareto front that are named


def memory_against_speed(answer):
    """A point per plan that fits; the Pareto front drawn, and some of it named. Its points are plan-<row>."""
    plans = answer.plans
    if plans.empty:
        return None
    limit = answer.facts["has_device"]
    scale, unit = bytes_unit(limit)
    figure, axes = pyplot.subplots(figsize=(WIDTH, 5.4))
    beside = plans["bytes/host"] + plans["bytes/disk"] > 0
    for rows, colour, name in ((plans[beside], SKY, "something on the host or disk"), (plans[~beside], BLUE, "all on the device")):
        if len(rows):   # so many points are a picture in the picture
            axes.scatter(rows["bytes/device"] / scale, rows.tokens_per_second, s=7 if len(plans) > 2000 else 25,
                         color=colour, linewidths=0, alpha=0.5, rasterized=True, zorder=2)
            axes.plot([], [], "o", color=colour, markersize=6, label=name)
    front = plans.loc[plan_file.device_front(plans)]
    axes.plot(front["bytes/device"] / scale, front.tokens_per_second, "-", color=ORANGE, linewidth=1.5, zorder=3,
              drawstyle="steps-pre")
    for index, plan in front.iterrows():
        axes.plot(plan["bytes/device"] / scale, plan.tokens_per_second, "o", gid=f"plan-{index}", zorder=5, markersize=8,
                  color=ORANGE, markeredgecolor=BLACK, markeredgewidth=0.8)
    axes.plot([], [], "o-", markersize=8, color=ORANGE, markeredgecolor=BLACK, label="Pareto front")
    axes.axvline(limit / scale, color=VERMILLION, linestyle="--", linewidth=1.2, label="what a device has")
    axes.set_xlim(0, limit / scale * 1.04)
    axes.set_ylim(0, plans.tokens_per_second.max() * 1.12)
    axes.set_xlabel(f"predicted memory of the fullest device [{unit}]")
    axes.set_ylabel("predicted throughput [tokens/s]")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    legend_above(figure)
    named = spread(front, MOST_NAMES)
    place_labels(figure, axes, named["bytes/device"] / scale, named.tokens_per_second, named.plan.map(plan_file.label),
                 front["bytes/device"] / scale, front.tokens_per_second)
    return figure


def spread(front, most):
    """Some of the front's rows, the fastest first, that lie apart."""
    chosen, x, y = [], front["bytes/device"] / front["bytes/device"].max(), front.tokens_per_second / front.tokens_per_second.max()
    for index in front.index:
        if all(abs(x[index] - x[other]) + abs(y[index] - y[other]) > 0.12 for other in chosen):
            chosen.append(index)
    return front.loc[chosen[:most]]


def bars(answer, count, panels=1, widths=None):
    """Axes with a row for each of the best few, the best at the top."""
    figure, axes = pyplot.subplots(1, panels, sharey=True, squeeze=False, figsize=(WIDTH, 1.4 + 0.42 * count), width_ratios=widths)
    axes[0, 0].set_yticks(range(count), [textwrap.fill(f"{number}: {label}", 40) for number, label in
                                         enumerate(answer.top.plan.map(plan_file.label), 1)], fontsize=9)
    axes[0, 0].set_ylim(count - 0.4, -0.6)
    for one in axes[0]:
        one.grid(axis="y", visible=False)
        one.tick_params(axis="y", length=0)
    return figure, axes[0]


def stack(axes, rows, columns, scale, looks):
    left = numpy.zeros(len(rows))
    for name, column in columns.items():
        axes.barh(range(len(rows)), rows[column] / scale, left=left, height=0.74, label=name, **looks(name))
        left = left + (rows[column] / scale).to_numpy()
    return left


def memory_by_kind(answer):
    """What the fullest device of the best plans holds, each kind at its own peak; what it needs in all, and has."""
    top, kinds = answer.top, answer.columns("memory/")
    if top.empty:
        return None
    on_device = largest_first(top, {name: c for name, c in kinds.items() if name not in ("host", "disk")})
    beside = largest_first(top, {f"on the {medium}": f"bytes/{medium}" for medium in ("host", "disk")})
    figure, panels = bars(answer, len(top), 2 if beside else 1, [3, 1] if beside else None)
    scale, unit = bytes_unit(answer.facts["has_device"])
    order = list(on_device)
    left = stack(panels[0], top, on_device, scale, lambda name: look(order.index(name)))
    panels[0].plot(top["bytes/device"] / scale, range(len(top)), "|", color=BLACK, markersize=15, markeredgewidth=2,
                   label="needed in all")
    panels[0].axvline(answer.facts["has_device"] / scale, color=VERMILLION, linestyle="--", linewidth=1.2,
                      label="what a device has")
    panels[0].set_xlim(0, max(left.max(), answer.facts["has_device"] / scale) * 1.03)
    panels[0].set_xlabel(f"predicted, on the fullest device [{unit}]")
    if beside:
        other, name_of_it = bytes_unit(max(top[column].max() for column in beside.values()))
        stack(panels[1], top, beside, other, lambda name: {"color": PURPLE if "host" in name else YELLOW})
        panels[1].set_xlabel(f"{' and '.join(beside)} [{name_of_it}]")
    legend_above(figure, most=6)
    return figure


TIMES = {"compute": "forward, backward", "bubble": "idle (bubble)", "offload copies": "waiting for copies"}


def colour_of_time(kind):
    if kind.startswith("exposed "):
        return AXIS_COLOURS.get(kind.split()[1], GREY)
    return {"compute": PARTS["compute"], "optimizer": PARTS["update"], "bubble": LINE, "offload copies": PARTS["copies"]}[kind]


def time_by_kind(answer):
    """What a step of the best plans goes to, in seconds, a mean over stages."""
    top = answer.top
    if top.empty:
        return None
    kinds = answer.columns("time/")
    order = ["compute", "optimizer", *largest_first(top, {k: c for k, c in kinds.items() if k.startswith("exposed ")}),
             "offload copies", "bubble"]
    kinds = {kind: kinds[kind] for kind in order if kind in kinds and (top[kinds[kind]] > 0.0005 * top.seconds).any()}
    figure, (axes,) = bars(answer, len(top))
    scale, unit = (1, "s") if top.seconds.max() >= 1 else (1e-3, "ms")
    names = {kind: TIMES.get(kind, kind.replace("exposed", "waiting for")) for kind in kinds}
    left = numpy.zeros(len(top))
    for kind, column in kinds.items():
        axes.barh(range(len(top)), top[column] / scale, left=left, height=0.74, color=colour_of_time(kind),
                  label=names[kind], edgecolor="white", linewidth=0.5)
        left = left + (top[column] / scale).to_numpy()
    for row, (end, seconds) in enumerate(zip(left, top.seconds)):
        axes.annotate(f"{seconds / scale:#.4g} {unit}", (end, row), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlim(0, left.max() * 1.1)
    axes.set_xlabel(f"a predicted step, mean over stages [{unit}]")
    legend_above(figure, most=6)
    return figure


def each_choice(answer):
    """A small panel per word of a plan: how fast the best plan with each of its values is."""
    legal = answer.legal.assign(number=answer.legal.value.map(lambda v: int(v) if v.isdigit() else -1))
    order = ["tp", "pp", "cp", "dp", "zero", "micro", "ckpt", "offload", "activations", "schedule", "virtual", "sp"]
    words = [word for word in dict.fromkeys([*order, *sorted(legal.word)]) if (legal.word == word).sum() > 1]
    if answer.plans.empty or not words:
        return None
    across, fastest = 4, answer.plans.tokens_per_second.max()
    down = -(-len(words) // across)
    figure, panels = pyplot.subplots(down, across, figsize=(WIDTH, 0.3 + 1.75 * down), squeeze=False, sharex=True)
    best = answer.best.set_index(["word", "value"]).seconds
    for axes, word in zip(panels.flat, words):
        values = legal[legal.word == word].sort_values(["number", "value"], kind="stable").value
        for row, value in enumerate(values):
            part = 100 * answer.tokens_per_second(best[word, value]) / fastest if (word, value) in best.index else 0
            axes.barh(row, part, height=0.7, color=ORANGE if part > 100 - 1e-6 else BLUE)
            axes.annotate(f"{part:.0f}" if part else "none fits", (max(part, 0), row), (-3 if part > 25 else 3, 0),
                          textcoords="offset points", va="center", ha="right" if part > 25 else "left", fontsize=7,
                          color="white" if part > 25 and part <= 100 - 1e-6 else BLACK)
        axes.set_yticks(range(len(values)), values, fontsize=8)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_title(word, loc="left", fontweight="bold")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 104)
    for axes in panels.flat[len(words):]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("% of the best", fontsize=8)
    return figure
