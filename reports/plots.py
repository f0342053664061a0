"""The pictures of a report. Each function makes one figure of a run, or None if the run has nothing to show there.
Every one of them is described beneath the picture by page.py."""
import numpy
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

import run_file
from plans import alone, shown, solo
from style import BLACK, BLUE, GREY, ORANGE, VERMILLION, bytes_unit, look, pyplot

WIDTH = 9.6  # inches; the page shows a picture at most this wide


def memory_against_throughput(run):
    """One point per timed plan; the Pareto front drawn and labelled."""
    plans = run.plans[run.plans.shown_time]
    if plans.empty:
        return None
    scale, unit = bytes_unit(plans.peak_bytes.max())
    figure, axes = pyplot.subplots(figsize=(WIDTH, 5.2))
    for index, plan in plans.iterrows():  # each by itself, so that the page can say its name under the pointer
        axes.plot(plan.peak_bytes / scale, plan.throughput, "o", gid=f"plan-{index}", zorder=4 if plan.pareto else 3,
                  markersize=9 if plan.pareto else 6, color=ORANGE if plan.pareto else BLUE,
                  markeredgecolor=BLACK if plan.pareto else "white", markeredgewidth=0.8)
    front = plans[plans.pareto].sort_values("peak_bytes")
    axes.plot(front.peak_bytes / scale, front.throughput, "-", color=ORANGE, linewidth=1.5, zorder=2,
              drawstyle="steps-post")
    if plans.peak_bytes.max() > 4 * plans.peak_bytes.min():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"peak memory of the largest rank [{unit}]")
    axes.set_ylabel("throughput [tokens/s]")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.margins(0.08, 0.12)
    axes.plot([], [], "o", markersize=6, color=BLUE, markeredgecolor="white", label="timed plan")
    axes.plot([], [], "o-", markersize=9, color=ORANGE, markeredgecolor=BLACK, label="Pareto front")
    legend_above(figure)
    place_labels(figure, axes, front.peak_bytes / scale, front.throughput, front.label,
                 plans.peak_bytes / scale, plans.throughput)
    return figure


def place_labels(figure, axes, xs, ys, texts, all_xs, all_ys):
    """Puts each text near its point where it covers no other text, and as little else as possible."""
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the labels are placed by the axes as they are now
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    points = axes.transData.transform(numpy.column_stack([xs, ys]))
    dots = [*axes.transData.transform(numpy.column_stack([all_xs, all_ys])), *along_steps(points)]
    taken = []

    def cost(box, distance):
        outside = not (frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1))
        covered = sum(box.padded(3).contains(*dot) for dot in dots)
        return 1000 * (outside + sum(box.padded(3).overlaps(other) for other in taken)) + 25 * covered + distance / 8

    for x, y, text, at in zip(xs, ys, texts, points):
        note = label_at(axes, x, y, text, 0, 0)
        size = Text.get_window_extent(note, renderer)  # the text alone, without its leader
        note.remove()
        tries = []
        for radius in (13, 24, 38, 54, 72, 92, 114, 140):
            for angle in numpy.radians(range(90, -270, -30)):
                dx, dy = radius * numpy.cos(angle), radius * numpy.sin(angle)
                left, middle = at + numpy.array([dx, dy]) * figure.dpi / 72
                left -= size.width * {"left": 0, "center": 0.5, "right": 1}[side(dx)]
                box = Bbox.from_bounds(left, middle - size.height / 2, size.width, size.height)
                tries.append((cost(box, radius), dx, dy, box))
        _, dx, dy, box = min(tries, key=lambda attempt: attempt[0])
        label_at(axes, x, y, text, dx, dy)
        taken.append(box)


def side(dx):
    """Of its place a label lies on: it begins, ends or has its middle there."""
    return "left" if dx > 4 else "right" if dx < -4 else "center"


def label_at(axes, x, y, text, dx, dy):
    return axes.annotate(text, (x, y), (dx, dy), textcoords="offset points", fontsize=9, ha=side(dx), va="center", zorder=6,
                         arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkB": 5},
                         bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})


def along_steps(points):
    """Places on the staircase through the points, close enough together that no text fits between two."""
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        yield from ((x, y0) for x in numpy.arange(x0, x1, 12))
        yield from ((x1, y) for y in numpy.arange(y0, y1, 8))


def bar_height(rows):
    return 1.3 + 0.27 * rows


def largest_first(rows, columns):
    """{name: column} by their sums, without those that no row has any of."""
    sums = {name: rows[column].sum() for name, column in columns.items()}
    return {name: columns[name] for name in sorted(columns, key=lambda name: -sums[name]) if sums[name] > 0}


def stacked(rows, columns, xlabel):
    """A horizontal bar per plan, a colour per column."""
    figure, axes = pyplot.subplots(figsize=(WIDTH, bar_height(len(rows))))
    sums = rows[list(columns.values())].sum(axis=1)
    scale, unit = bytes_unit(sums.max())
    places, left = numpy.arange(len(rows)), numpy.zeros(len(rows))
    for number, (name, column) in enumerate(columns.items()):
        axes.barh(places, rows[column] / scale, left=left, height=0.74, label=name, **look(number))
        left = left + (rows[column] / scale).to_numpy()
    axes.set_yticks(places, rows.label)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{xlabel} [{unit}]")
    axes.set_xlim(0, max(left.max(), 1e-9) * 1.02)
    return figure, axes, places, scale


def memory_by_kind(run):
    """Each kind's own peak, stacked, and a mark where the live bytes peak together."""
    rows = shown(run.plans)
    kinds = largest_first(rows, run.columns("peak_by_kind/"))
    if not kinds:
        return None
    figure, axes, places, scale = stacked(rows, kinds, "memory of the largest rank")
    axes.plot(rows.peak_bytes / scale, places, "|", color=BLACK, markersize=13, markeredgewidth=2, label="peak of all")
    legend_above(figure)
    return figure


def bytes_by_axis(run):
    """What a step moves on each axis of the mesh, summed over ranks."""
    rows = shown(run.plans)
    rows = rows[rows.moved > 0].sort_values(["moved", "label"], ascending=False)
    axes_columns = largest_first(rows, run.columns("traffic/", "/bytes"))
    if rows.empty:
        return None
    figure, *_ = stacked(rows, axes_columns, "payload sent in one step, all ranks")
    legend_above(figure)
    return figure


def legend_above(figure, most=7):
    """Over the axes, read from left to right, so many in a row; marks after bars."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: not hasattr(handles[i], "patches"))
    columns = min(len(order), most)
    rows = [order[start:start + columns] for start in range(0, len(order), columns)]
    by_column = [row[column] for column in range(columns) for row in rows if column < len(row)]  # matplotlib's order
    figure.legend([handles[i] for i in by_column], [names[i] for i in by_column], loc="outside upper left",
                  ncols=columns, handlelength=1.2, columnspacing=1.4)


def each_alone(run):
    """Memory and throughput of each strategy by itself, in multiples of the simplest plan's."""
    rows, base = alone(run.plans), solo(run.plans)
    rows = rows[rows.index != base.name]
    if rows.empty:
        return None
    rows = rows.iloc[::-1]
    panels = [(rows.peak_bytes / base.peak_bytes, "peak memory", numpy.less)]
    faster = rows.throughput / base.throughput
    if faster.notna().any():
        panels.append((faster, "throughput", numpy.greater))
    if rows.get("simulated_seconds", faster * numpy.nan).notna().any() and base.simulated_seconds > 0:
        panels.append((base.simulated_seconds * base.ranks / (rows.simulated_seconds * rows.ranks),
                       "simulated, per rank", numpy.greater))
    figure, axes = pyplot.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(WIDTH, bar_height(len(rows))))
    memory, places = axes[0, 0], numpy.arange(len(rows))
    for axis, (ratios, xlabel, better) in zip(axes[0], panels):
        ratio_bars(axis, places, ratios, xlabel, better)
    memory.set_yticks(places, rows.label)
    memory.set_ylim(-0.6, len(rows) - 0.4)
    figure.supxlabel(f"1 = {base.label}", fontsize="medium")
    return figure


def ratio_bars(axes, places, ratios, xlabel, better):
    """Bars from 1, blue where better than it, orange where worse."""
    known = ratios.notna().to_numpy()
    axes.barh(places[known], ratios[known] - 1, left=1, height=0.66,
              color=numpy.where(better(ratios[known], 1), BLUE, ORANGE))
    axes.axvline(1, color=BLACK, linewidth=1)
    low, high = min(ratios.min(), 1), max(ratios.max(), 1)
    room = max(high - low, 0.2) * 0.24
    axes.set_xlim(low - room, high + room)
    for place, ratio in zip(places, ratios):
        if numpy.isnan(ratio):
            axes.annotate("not timed", (1, place), (5, 0), textcoords="offset points", va="center", fontsize=8, color=GREY)
        else:
            axes.annotate(f"{ratio:.2f}", (ratio, place), (-4 if ratio < 1 else 4, 0), textcoords="offset points",
                          ha="right" if ratio < 1 else "left", va="center", fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(xlabel)


def loss_curve(run):
    """Loss and gradient norm by step: one line if all plans agree, every plan that does not by name."""
    plans = run.plans[run_file.of_the_batch(run)]
    agree = plans[plans.hash == run.facts["reference_hash"]] if run.facts["reference_hash"] else plans
    agree = agree if len(agree) else plans.iloc[:0]
    others = plans.drop(agree.index)
    others = others[others.loss.map(lambda row: not numpy.isnan(row).all())]
    if agree.empty and others.empty:
        return None
    figure, panels = pyplot.subplots(1, 2, figsize=(WIDTH, 3.2))
    for axes, column, title in zip(panels, ("loss", "grad_norm"), ("loss [nats/token]", "gradient norm")):
        if len(agree):
            values = agree[column].iloc[0]
            axes.plot(numpy.arange(1, len(values) + 1), values, "o-", color=BLUE, markersize=5,
                      label=f"{len(agree)} plan{'s' if len(agree) > 1 else ''}, one hash")
        for number, (_, plan) in enumerate(others.iloc[:6].iterrows()):
            axes.plot(numpy.arange(1, len(plan[column]) + 1), plan[column], "--", color=VERMILLION,
                      marker="xs^vD+"[number], markersize=5, linewidth=1, label=plan.label)
        axes.set_xlabel("step")
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].legend(fontsize=8)
    return figure
