"""The planner's word beside the stopwatch's: predicted step times of a sweep against measured ones."""
import re

from matplotlib.ticker import FuncFormatter, NullFormatter

from style import BLACK, BLUE, GREY, ORANGE, pyplot
from plots import WIDTH, legend_above

WITHIN = 0.10  # of the measured time


def compared(run):
    """The timed plans that have a predicted step, and `error`: predicted over measured, less 1."""
    if "predicted_seconds" not in run.plans:
        return run.plans.iloc[:0].assign(error=[])
    rows = run.plans[run.plans.shown_time & run.plans.predicted_seconds.notna()]
    return rows.assign(error=rows.predicted_seconds / rows.seconds - 1)


def cluster_name(run):
    """What the cluster's file calls itself."""
    found = re.search(r'^name\s*=\s*"(.*)"', run.facts.get("predicted_with", ""), flags=re.M)
    return found[1] if found else "a cluster without a name"


def in_words(run):
    rows = compared(run)
    if rows.empty:
        return ""
    error = rows.error.abs()
    first = rows.seconds[rows.predicted_seconds.idxmin()] / rows.seconds.min() - 1
    worst = rows.loc[error.idxmax()]
    return (f"Of {len(rows)} timed plans the median error is <b>{100 * error.median():.1f} %</b>, {(error <= WITHIN).sum()} are "
            f"within {100 * WITHIN:.0f} %; the worst is {100 * worst.error:+.0f} % ({worst.label}). The plan predicted to be fastest is "
            + (f"{100 * first:.1f} % slower than the fastest measured." if first > 0 else "the fastest measured."))


def against_measured(run):
    rows = compared(run)
    if rows.empty:
        return None
    scale, unit = (1, "s") if rows.seconds.min() >= 1 else (1e-3, "ms")
    figure, axes = pyplot.subplots(figsize=(WIDTH, 5.4))
    low = 0.85 * min(rows.seconds.min(), rows.predicted_seconds.min()) / scale
    high = 1.18 * max(rows.seconds.max(), rows.predicted_seconds.max()) / scale
    axes.plot([low, high], [low, high], color=BLACK, linewidth=1, zorder=2, label="predicted = measured")
    axes.fill_between([low, high], [low * (1 - WITHIN), high * (1 - WITHIN)], [low * (1 + WITHIN), high * (1 + WITHIN)],
                      color=GREY, alpha=0.22, linewidth=0, label=f"within {100 * WITHIN:.0f} %")
    for index, plan in rows.iterrows():
        near = abs(plan.error) <= WITHIN
        axes.plot(plan.seconds / scale, plan.predicted_seconds / scale, "o", gid=f"plan-{index}", markersize=7, zorder=3,
                  color=BLUE if near else ORANGE, markeredgecolor="white", markeredgewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}") if high / low < 12 else NullFormatter())
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel(f"measured step [{unit}]")
    axes.set_ylabel(f"predicted step [{unit}]")
    legend_above(figure)
    return figure
