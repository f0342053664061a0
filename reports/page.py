#!/usr/bin/env python3
"""Makes the report of a sweep, or of the planner's answer: one HTML page that needs no network, and the same pictures
as PNG files beside it.

    reports/page.py RUN.h5          writes RUN.html and RUN.plots/
    reports/page.py FOLDER          of the newest run or planner file in it: FOLDER/index.html and FOLDER/plots/

Refuses, with exit status 2, a record whose plans lack verdicts. A plan that was only checked has no speed here.
Needs the packages of `ci/venv.sh report`.
"""
import argparse
import html
import json
import math
import string
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pandas

import figures
import kernels
import plan_page
import plans as derived
import plots
import predicted
import run_file
import steps
from style import bytes_text
from table import heads, nothing_or

HERE = Path(__file__).resolve().parent


# ---- Pictures ---------------------------------------------------------------------------------------
# name, heading, figure, how to read it. {words} are filled in by `numbers`.

PICTURES = [
    ("memory_throughput", "Memory against speed", plots.memory_against_throughput,
     "<b>Up and left is better:</b> more tokens per second, less memory. {points}; "
     "hover over it for its name. Orange points with a name are the <b>Pareto front</b>: no other timed plan is both "
     "faster and smaller, so only these need be considered. {not_timed}"),
    ("each_alone", "What each strategy does by itself", plots.each_alone,
     "Each row changes as little as it can from the plan <b>{solo}</b>, whose value is 1. <b>Blue is better, "
     "orange is worse</b>: left of 1 is less memory, right of 1 is more speed. Speed is the whole job's, on as many "
     "cores as the plan has ranks × threads; the simulated one, at nominal rates given below, is of each rank, so that 1 "
     "means that nothing is lost by splitting. A strategy that needs another one is shown with it."),
    ("memory_by_kind", "Where the memory goes", plots.memory_by_kind,
     "Each bar stacks what the fullest rank holds, every kind of data at <b>its own</b> peak. Kinds do not all peak at "
     "once, so the real peak (black mark) can lie inside the bar. <b>host</b> and <b>disk</b> are beside the device. "
     "These are fast mode's bytes; exact mode keeps up to log2(n) partial sums of each gradient besides. {subset}"),
    ("bytes_by_axis", "What is sent, and to whom", plots.bytes_by_axis,
     "Payload of one training step, summed over all ranks, by axis of the mesh{axes}. The messages gate compares every one of these messages with a closed formula. "
     "Plans that send nothing are left out. {subset}"),
    ("step_parts", "What a step's time goes to", steps.step_parts,
     "<b>Simulated</b>, not measured: every rank has a device of its own, with {rates}. <b>Idle</b> is what a pipeline "
     "calls its bubble, waiting for other ranks; waiting for an axis is communication that no computation hides "
     "(exposed). The fullest bars of work are at the top. {subset}"),
    ("predicted", "Predicted against measured", predicted.against_measured,
     "Each point is a timed plan: its median step as <b>measured</b> here, and as <b>predicted</b> by the planner on “{cluster}”, "
     "which knows this machine by its calibration alone. On the line they are equal; orange points are more than 10 % off. "
     "{predicted}"),
    ("schedules", "Pipelines in time", steps.schedules,
     "<b>Simulated</b> at the same rates, one rank of each stage. Numbers are microbatches; gaps are idle time. All of "
     "these plans give the same bits, and differ in their schedule alone."),
    ("scaling", "More ranks", steps.scaling,
     "Speed where one axis of the mesh alone grows, in multiples of one device's. The batch stays (strong scaling), or "
     "grows with dp (a suite of weak scaling): "
     "<b>simulated</b> at the same rates, and as rings what was measured on this machine, where there were cores enough."),
    ("loss", "Did it train?", plots.loss_curve,
     "{loss} Nothing can be read here about which plan is faster: how a step is split must not change what it "
     "computes."),
]


# Whom a rank talks to on an axis; an axis that is not here is only named.
AXES = {"dp": "between replicas that hold other samples", "tp": "within a layer", "pp": "between stages",
        "cp": "between segments of a sequence",
        "kv": "between slices that share a key/value head", "tie": "between the two copies of a tied embedding",
        "shard": "within a group of replicas that share what ZeRO cuts", "replica": "between such groups",
        "world": "all ranks"}


def cores(run):
    """What the threads of timed ranks must find."""
    return "the cores of their hosts" if run.facts.get("launch") else f"the machine's {run.facts['cores']} cores"


def numbers(run):
    """What the captions say about this run."""
    plans = run.plans
    timed, good = int(plans.shown_time.sum()), plans[plans.status == "ok"]
    untimed = good[~good.shown_time]
    crowded = bool(run.facts.get("launch")) or (untimed.ranks * untimed.threads > run.facts["cores"]).all()
    agree = plans.hash[(plans.numbers != run_file.NOT_POSSIBLE) & run_file.of_the_batch(run)].nunique() == 1
    shown, solo = len(derived.shown(plans)), html.escape(derived.solo(plans).label)
    return {
        "points": f"Each of the {timed} points is a timed plan" if timed > 1 else "The point is the only timed plan",
        "not_timed": f"The other {len(untimed)} plans were <b>checked</b> for right numbers but not timed"
                     + (f", because their ranks × threads exceed {cores(run)}" if crowded
                        else "") + "; they are not in this picture." if len(untimed) else "Every plan was timed.",
        "cluster": html.escape(predicted.cluster_name(run)),
        "predicted": predicted.in_words(run),
        "rates": html.escape(run.facts.get("simulated_with", "")),
        "axes": ": " + "; ".join(f"<b>{axis}</b> {AXES[axis]}" for axis, column in
                                 run.columns("traffic/", "/bytes").items() if axis in AXES and derived.shown(plans)[column].any()),
        "solo": solo,
        "subset": "All plans are shown." if shown == len(plans) else
                  f"Shown are {shown} of {len(plans)} plans: {solo}, each strategy alone, and the Pareto front; "
                  "the table below has the rest.",
        "loss": f"All {len(plans)} plans gave <b>these very numbers, to the last bit</b>, so one line stands for them "
                "all." if agree else "<b>The plans do not agree.</b> Dashed lines are plans whose numbers differ "
                "from the single-device reference's.",
    }


def picture(run, folder, said, name, heading, draw, caption):
    figure = draw(run)
    if figure is None:
        if name == "memory_throughput":
            return f"<h2>{heading}</h2><p>No plan of this run was timed, so there is no speed to show. A plan is timed " \
                   f"when its ranks × threads fit {cores(run)}.</p>"
        return ""
    def say(index):
        plan = run.plans.loc[index]
        return f"{plan.label}: {plan.throughput:,.0f} tokens/s, {bytes_text(plan.peak_bytes)}"
    return figures.figure_html(figure, folder, name, heading, caption.format(**said), say)


# ---- A step in time ---------------------------------------------------------------------------------

GANTT_SAID = ("Where it does not say <i>measured</i>: <b>simulated</b> from the plan's trace, every rank with a device of its "
              "own, with {rates}. <b>Measured</b>: one step on this machine, where a rank's row ends while it waits for a "
              "message or for the ranks that send it. One rank of each stage stands for the others, which do the same. "
              "Numbers are microbatches; point at a bar for more.")
PART_NAMES = {"compute": "forward and backward", "update": "optimizer", "copies": "waiting for copies", "bubble": "idle"}


def timelines(run):
    """{row, or row-measured: what reports/gantt.js draws} of the plans that have a simulated step, or a measured one."""
    found, parts = {}, steps.parts_of(run)
    for index, plan in steps.simulated(run).iterrows():
        timeline = json.loads(plan.timeline)
        timeline["parts"] = {PART_NAMES.get(name, f"waiting for {name}"): round(plan[column] / plan.simulated_seconds, 4)
                             for name, column in parts.items()}
        found[str(index)] = timeline
        measured = getattr(plan, "measured_timeline", "")
        if measured:
            timeline = json.loads(measured)
            timeline["parts"] = {PART_NAMES.get(name, f"waiting for {name} and other ranks"): round(part, 4)
                                 for name, part in timeline["parts"].items()}
            timeline["measured"] = True
            found[f"{index}-measured"] = timeline
    return found


def gantt(run):
    """The section with the plan to choose, and what is needed to draw it; its default is the busiest to look at."""
    found = timelines(run)
    if not found:
        return ""
    some = derived.simplest_first(run.plans.loc[[int(name) for name in found if name.isdigit()]])
    first = some.assign(streams=[len(found[str(index)]["streams"]) for index in some.index]).sort_values(
        ["size", "streams"], ascending=[True, False], kind="stable").index[0]
    side = steps.schedules_side_by_side(run)
    first = side.index[-1] if len(side) else first
    options = "".join(f'<option value="{name}"{" selected" if name == str(first) else ""}>'
                      f'{html.escape(run.plans.label[int(name.split("-")[0])])}{"" if name.isdigit() else ", measured"}</option>'
                      for name in found)
    text = (HERE / "gantt.html").read_text(encoding="utf-8")
    return string.Template(text).substitute(options=options, said=GANTT_SAID.format(rates=html.escape(run.facts.get("simulated_with", ""))),
                                            data=json.dumps(found, separators=(",", ":")).replace("</", "<\\/"))


# ---- Verdict and facts ------------------------------------------------------------------------------

def verdict_lines(run):
    plans = run.plans
    what = {"numbers": "losses, gradients and weights equal one device's, bit for bit",
            "messages": "what is sent equals a closed formula", "memory": "what is held equals a closed formula",
            "fast": "sums in any order, within the bound of float64, and the same two formulas' messages and memory"}
    lines = [f"<p><b>{(plans[gate] == 'pass').sum()} of {len(plans)}</b> plans passed the {gate} gate: {meaning}.</p>"
             for gate, meaning in what.items()]
    bad = plans[plans.status != "ok"]
    for _, plan in bad.head(5).iterrows():
        lines.append(f"<p><code>{html.escape(plan.plan)}</code>: {html.escape(faults(plan))}</p>")
    if len(bad) > 5:
        lines.append(f"<p>and {len(bad) - 5} more; choose “failed” above the table.</p>")
    return "\n".join(lines)


def faults(plan):
    found = [f"{gate}: {plan[gate]}" for gate in run_file.GATES if plan[gate] not in ("", "pass", run_file.NOT_POSSIBLE)]
    if plan.status in run_file.ENDED:
        return f"{plan.status}: {plan.get('ended', '')}"
    return "; ".join(found) or plan.status


def processor(known):
    """What computed: the kernels' instruction set, and the accelerator if there was one."""
    device = known.get("device", "cpu")
    return known["isa"] if device == "cpu" else f"{known['isa']} and {device}"


def summary(run):
    known = run.facts
    return html.escape(f"Suite {known['suite']}: {Path(known['model']).stem}, {known['parameters']:,} parameters; "
                       f"{known['batch']} sequences of {known['seq']} tokens a step; {known['cpu']}, {known['cores']} cores, "
                       f"{processor(known)}; revision {known['revision']}")


def facts(run):
    known = run.facts
    entries = [
        ("Suite", known["suite"]),
        ("Model", f"{known['model']}, {known['parameters']:,} parameters, {known['dtype']}"),
        ("Data", known["data"]),
        ("Step", f"{known['batch']} sequences of {known['seq']} tokens; {known['steps']} steps checked"),
        ("Machine", f"{known['host']}: {known['cpu']}, {known['cores']} cores, {processor(known)}"),
        *([("Launched with", f"{known['launch']}, messages by {known['comm']}")] if known.get("launch") else []),
        *([("Predicted on", predicted.cluster_name(run))] if known.get("predicted_with") else []),
        ("Revision", known["revision"]),
        ("Compiler", known["compiler"]),
        ("Started", known["started"].replace("T", " ").replace("Z", " UTC")),
        ("Numbers", f"hash {known['hash'] or '(the plans disagree)'}, seed {known['seed']}"),
        ("Inputs", f"model hash {known['model_hash']}, data hash {known['data_hash']}"),
        ("Flags", known["flags"]),
    ]
    wide = ' class="wide"'
    return "\n".join(f"<div{wide if len(str(text)) > 60 else ''}><dt>{name}</dt><dd>{html.escape(str(text))}</dd></div>"
                     for name, text in entries)


CAUTION = "<p><b>This run is INVALID.</b> Only plans that passed every gate are recommended; mend the others first.</p>"


# ---- The choice -------------------------------------------------------------------------------------

def limits(plans):
    """Round limits of memory from just above the smallest timed plan to just above the largest."""
    timed = plans[plans.shown_time] if plans.shown_time.any() else plans
    low, high = timed.peak_bytes.min(), timed.peak_bytes.max()
    steps = [digit * 2 ** power for power in range(10, 51) for digit in (1, 1.25, 1.5, 1.75)]
    inside = [step for step in steps if low <= step <= high * 1.25] or [2 ** math.ceil(math.log2(max(high, 1024)))]
    picks = sorted({inside[round(i * (len(inside) - 1) / 4)] for i in range(5)})
    return picks


def choice(plans):
    picks = limits(plans)
    middle = picks[len(picks) // 2]
    power = min(4, max(1, int(math.log2(middle)) // 10))
    units = "".join(f'<option value="{1024 ** p}"{" selected" if p == power else ""}>{name}</option>'
                    for p, name in enumerate(("KiB", "MiB", "GiB", "TiB"), 1))
    presets = "".join(f'<button type="button" data-limit="{int(limit)}">{bytes_text(limit)}</button>' for limit in picks)
    ranks = "".join(f"<option>{count}</option>" for count in sorted(plans.ranks.unique()))
    return {"fit_start": int(middle), "solo": html.escape(derived.solo(plans).plan), "units": units, "presets": presets, "rank_choices": ranks}


# ---- The table --------------------------------------------------------------------------------------
COLUMNS = [
    ("plan", "plan", True, None),
    ("ranks", "ranks", True, lambda p: (str(p.ranks), p.ranks)),
    ("numbers", "numbers", True, None),
    ("messages", "messages", True, None),
    ("memory", "memory", True, None),
    ("fast", "fast", True, None),
    ("fast_worst", "of fast's bound", True,
     lambda p: nothing_or(lambda v: f"{100 * v:.0f} %", p.get("fast_worst", math.nan))),
    ("throughput", "tokens/s", False, lambda p: nothing_or(lambda v: f"{v:,.0f}", p.throughput)),
    ("seconds", "step [ms]", True,
     lambda p: nothing_or(lambda v: f"{1000 * v:.4g}", p.seconds if p.shown_time else math.nan)),
    ("predicted", "predicted [ms]", True, lambda p: nothing_or(
        lambda v: f"{1000 * v:.4g} ({100 * (v / p.seconds - 1):+.0f} %)",
        p.get("predicted_seconds", math.nan) if p.shown_time else math.nan)),
    ("spread", "±", True, lambda p: nothing_or(lambda v: f"{100 * v:.0f} %" if math.isfinite(v) else "?",
                                               p.get("median_spread", math.nan) if p.shown_time else math.nan)),
    ("bubble", "idle, simulated", True,
     lambda p: nothing_or(lambda v: f"{100 * v:.0f} %", p.get("simulated/bubble", math.nan) / p.simulated_seconds
                          if p.get("simulated_seconds", 0) > 0 else math.nan)),
    ("peak", "peak / rank", True, lambda p: (bytes_text(p.peak_bytes), p.peak_bytes)),
    ("exact_peak", "peak, exact", True, lambda p: nothing_or(bytes_text, p.get("exact_peak_bytes", 0) or math.nan)),
    ("arena", "arena / rank", True, lambda p: (bytes_text(p.arena_bytes), p.arena_bytes)),
    ("resident", "resident / job", True, lambda p: nothing_or(bytes_text, p.resident_bytes or math.nan)),
    ("sent", "messages sent", True, lambda p: (f"{p.sent:,}", p.sent)),
    ("moved", "bytes sent", True, lambda p: (bytes_text(p.moved), p.moved)),
    ("wall", "took [s]", True, lambda p: nothing_or(lambda v: f"{v:.1f}", p.get("wall_seconds", math.nan))),
    ("hash", "hash", True, lambda p: (p.hash[:8], None)),
]
TABLE_NOTE = ("Gates: <b>numbers</b> equal the reference's bits, <b>messages</b> and <b>memory</b> equal their formulas; "
              "<b>fast</b>, whose sums have any order, is within its bound of float64. Speeds and bytes are fast mode's. "
              "<b>Of fast's bound</b> is the largest difference as a part of what is allowed; <b>±</b> is half the 95 % "
              "interval of the median step; <b>idle</b> is the simulated bubble; ▤ draws the plan's step. "
              "Peak is the most that a rank's live data takes at one time; the arena is what is set aside for it; "
              "resident is what the whole job's processes hold, code and libraries included. "
              "A plan without a speed was checked, not timed.")


def cell(key, text, plan):
    if key == "plan":
        tag = '<span class="tag">Pareto</span>' if plan.pareto else ""
        fault = f'<div class="fault">{html.escape(faults(plan))}</div>' if plan.status != "ok" else ""
        chart = "" if pandas.isna(plan.get("simulated_seconds", math.nan)) else \
            f'<button type="button" class="link" data-gantt="{plan.name}" title="its step in time">▤</button>'
        return f"<td><b>{html.escape(plan.label)}</b>{chart}{tag}{fault}</td>"
    if key in run_file.GATES:
        if plan[key] == run_file.NOT_POSSIBLE:
            return '<td class="soft" title="only fast mode can sum this plan">–</td>'
        return '<td class="pass" title="pass">✓</td>' if plan[key] == "pass" else '<td class="fault">✗</td>'
    shown, value = text(plan)
    if value is None:
        return f'<td class="mono">{html.escape(shown)}</td>'
    if key == "throughput" and math.isnan(value):
        shown = f'<span class="soft">{"checked" if plan.status == "ok" else plan.status}</span>'
    return f'<td class="number" data-value="{value:.10g}">{shown}</td>'


def columns_of(run):
    """Those of COLUMNS that this run has something for."""
    return COLUMNS if len(predicted.compared(run)) else [column for column in COLUMNS if column[0] != "predicted"]


def row(plan, columns):
    tags = [plan.status.replace(" ", "-"), "timed" if plan.shown_time else "checked" if plan.status == "ok" else "failed",
            "pareto" if plan.pareto else ""]
    speed = f"{plan.throughput:.10g}" if plan.shown_time else ""
    simulated = plan.get("simulated_seconds", math.nan)
    simulated = f"{plan.tokens_per_step / simulated:.10g}" if simulated > 0 and plan.status == "ok" else ""
    cells = "".join(cell(key, text, plan) for key, _, _, text in columns)
    return (f'<tr data-plan="{html.escape(plan.plan)}" data-label="{html.escape(plan.label)}" '
            f'data-tags="{" ".join(tags)}" data-ranks="{plan.ranks}" data-peak="{plan.peak_bytes}" '
            f'data-throughput="{speed}" data-simulated="{simulated}">{cells}</tr>')


def rules(run):
    if not run.refused:
        return ""
    rows = "".join(f'<tr><td><code>{html.escape(rule)}</code></td><td class="number">{count:,}</td></tr>'
                   for rule, count in sorted(run.refused.items(), key=lambda item: -item[1]))
    return (f"<h2>Plans refused by rule</h2>\n<p>{sum(run.refused.values()):,} combinations of the suite cannot be run; "
            "each was refused by one of these rules before it started, and is not counted above.</p>\n"
            f'<table class="rules"><thead><tr><th scope="col"><button type="button">rule</button></th>'
            '<th scope="col" class="number"><button type="button">plans</button></th></tr></thead>'
            f"<tbody>{rows}</tbody></table>")


def scripts(run):
    names = ["table.js", "page.js"] + ([] if steps.simulated(run).empty else ["gantt.js"])
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


# ---- The page ---------------------------------------------------------------------------------------

def make(path, page, folder):
    run = run_file.read(path)
    derived.derive(run)
    folder.mkdir(parents=True, exist_ok=True)
    said = numbers(run)
    drawn = figures.drawn_together([partial(picture, run, folder, said, *entry) for entry in PICTURES])
    pictures = {entry[0]: text for entry, text in zip(PICTURES, drawn)}
    pictures["schedules"] += gantt(run)
    shown = columns_of(run)
    pictures = "\n\n".join(filter(None, pictures.values()))
    text = string.Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{run.facts['suite']}: {run.facts['verdict']}"),
        style=(HERE / "page.css").read_text(encoding="utf-8"), script=scripts(run),
        verdict=html.escape(run.facts["verdict"]),
        verdict_class="invalid" if run.facts["verdict"].startswith("INVALID") else "valid",
        verdict_lines=verdict_lines(run), facts=facts(run), summary=summary(run), pictures=pictures,
        kernels=kernels.table(path.parent), count=len(run.plans), heads=heads(shown),
        rows="\n".join(row(plan, shown) for _, plan in run.plans.iterrows()), table_note=TABLE_NOTE, rules=rules(run),
        caution=CAUTION if run.facts["verdict"].startswith("INVALID") else "", **choice(run.plans))
    page.write_text(text, encoding="utf-8")


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run file, or a folder with one")
    arguments = parser.parse_args(words)
    try:
        path = run_file.find(arguments.run, (run_file.FORMAT, plan_page.FORMAT))
        page, folder = path.with_suffix(".html"), path.with_suffix(".plots")
        if arguments.run.is_dir():
            page, folder = arguments.run / "index.html", arguments.run / "plots"
        (plan_page.make if run_file.format_of(path) == plan_page.FORMAT else make)(path, page, folder)
    except run_file.Refused as refusal:
        print(f"page.py: {refusal}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"page.py: cannot write the page: {error}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print("page.py: a process that drew was killed; was there no memory?", file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
