"""Makes the page of the planner's answer. Nothing on it was run, and it says so."""
import html
import json
import re
import string
from functools import partial
from pathlib import Path

import figures
import plan_file
import plan_pictures
from plan_file import FORMAT, front, device_front, label  # FORMAT: for who chooses the page
from style import bytes_text
from table import heads

HERE = Path(__file__).resolve().parent
FASTEST = 100  # plans in the table, beside those on the Pareto front and the best with each word

PICTURES = [
    ("memory_speed", "Memory against speed", plan_pictures.memory_against_speed,
     "Each of the {fit} points is a plan that fits, <b>predicted on {hardware}</b>. Up and left is better. Orange: no plan is "
     "both faster and smaller on the device, so only these need be considered; hover over one for its name. Light points keep "
     "something on the host or on disk, and need less of the device for it."),
    ("each_choice", "What each choice costs", plan_pictures.each_choice,
     "For every value of every word the <b>best plan that has it</b>, as a part of the best of all (orange). All other words "
     "are free, so a value near 100 loses little if the rest is chosen well. <i>None fits</i>: there are legal plans with "
     "that value, and all need more memory than there is. Predicted on {hardware}."),
    ("memory_by_kind", "Where the memory goes", plan_pictures.memory_by_kind,
     "The best {top} plans' fullest device, every kind of data at <b>its own</b> peak, so a bar may be longer than what is needed "
     "at once. The black mark is what is needed in all: the most alive at one time, and what a process holds besides (its "
     "context, communicators, workspace and gaps: {beside} of the best plan). Predicted on {hardware}."),
    ("step_parts", "What a step's time goes to", plan_pictures.time_by_kind,
     "The best {top} plans' step, a mean over stages. <b>Waiting for</b> an axis of the mesh is communication that no computation "
     "hides (exposed); <b>idle</b> is what a pipeline calls its bubble. <b>Predicted on {hardware}</b>, not measured."),
]


def verdict(answer):
    if answer.plans.empty:
        return f"No plan fits {answer.hardware}"
    best = answer.plans.iloc[0]
    return f"Predicted on {answer.hardware}: use {best.plan}"


def verdict_lines(answer):
    known = answer.facts
    if answer.plans.empty:
        closest = f"; the closest, <code>{html.escape(known['closest'])}</code>, lacks {bytes_text(known['least_lack'])}" if known["closest"] else ""
        return f"<p>None of {known['legal']:,} legal plans fits{closest}. More devices, or more words to choose from, may help.</p>"
    best = answer.plans.iloc[0]
    needs = ", ".join(f"{bytes_text(best[f'bytes/{medium}'])} of {bytes_text(known[f'has_{medium}'])} on the {medium}"
                      for medium in plan_file.MEDIA if best[f"bytes/{medium}"] > 0)
    return (f"<p><b>{best.tokens_per_second:,.0f} tokens/s</b>, {100 * answer.of_peak(best.seconds):.1f} % of the devices' peak, "
            f"a step of {seconds_text(best.seconds)}; {needs}.</p>\n"
            f"<p>The best of <b>{known['fit']:,}</b> plans that fit, of {known['legal']:,} legal ones, weighed in "
            f"{known['weighing_seconds']:.1f} s. Nothing was run: this is a prediction.{alike(known.get('alike', ''))}</p>")


def alike(said):
    """The planner's own lines about plans as good as the first, as a sentence; of a record from before there are none."""
    lines = [with_code(line.strip()) for line in said.splitlines()]
    return f" {lines[0][0].upper()}{'; '.join(lines)[1:]}." if lines else ""


def with_code(line):
    """Plans stand between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(line))


def seconds_text(seconds):
    return f"{seconds:#.3g}".rstrip(".") + " s" if seconds >= 1 else f"{1000 * seconds:#.3g}".rstrip(".") + " ms"


def summary(answer):
    known = answer.facts
    types = "weights of {weight_bytes} bytes, gradients of {gradient_bytes}, activations of {activation_bytes}".format(**known)
    return html.escape(f"{Path(known['model']).stem}, {known['parameters']:,} parameters; {known['batch']:,} sequences of "
                       f"{known['seq']:,} tokens a step; {types}; revision {known['revision']}")


def why(answer):
    """The planner's own words: a line each, plans between backticks."""
    if answer.top.empty:
        return ""
    lines = [line.strip() for line in answer.top.why[0].strip().splitlines()[1:]]

    def item(line):
        what, _, rest = with_code(line).partition(":")
        return f"<b>{what}</b>:{rest}"
    items = "\n".join(f"<li>{item(line)}</li>" for line in lines)
    return (f"<h2>Why this one</h2>\n<p>Against the next, and against the best plan without each of its words; parts are "
            f"of the winner's step.</p>\n<ul class=\"why\">{items}</ul>") if items else ""


def limits(answer):
    if answer.plans.empty:
        return ""
    rows = [[label(plan.plan), round(plan.tokens_per_second, 3), int(plan["bytes/device"]),
             int(plan["bytes/host"] + plan["bytes/disk"]), plan.plan]
            for _, plan in answer.plans.loc[front(answer.plans)].iterrows()]
    data = json.dumps(rows, separators=(",", ":")).replace("</", "<\\/")
    return f"""<h2>With less memory</h2>
<p>The fastest plan where less of a device is free, or less beside it. The speed stays that of {html.escape(answer.facts['cluster'])}.</p>
<div class="choose">
<form><label for="device-limit">On a device at most</label> <input type="number" id="device-limit" min="0" step="any" placeholder="{answer.facts['has_device'] / 2**30:.1f}"> GiB,
<label for="host-limit">on the host and disk</label> <input type="number" id="host-limit" min="0" step="any" placeholder="{answer.facts['has_host'] / 2**30:.1f}"> GiB</form>
<p id="answer" aria-live="polite">This answer needs JavaScript; the table below holds the same numbers.</p>
<p id="line" data-again="{html.escape(answer.facts['again'])}" hidden>What it needs and takes: <code class="whole"></code></p>
</div>
<script type="application/json" id="front">{data}</script>"""


# ---- A step in time ---------------------------------------------------------------------------------

PART_NAMES = {"compute": "forward and backward", "update": "optimizer", "copies": "waiting for copies", "bubble": "idle"}
GANTT_SAID = ("<b>Simulated</b> from the plan's whole trace on {hardware}; nothing was run. One rank of each stage stands for the "
              "others, which do the same. Numbers are microbatches; point at a bar for more.{parts}{left_out}")


def gantt(answer):
    found, names = {}, {}
    for row, plan in answer.top.iterrows():
        for key, text, part in ((str(row), plan.timeline, "its beginning"), (f"{row}-end", plan.timeline_end, "its end")):
            if text:
                timeline = json.loads(text)
                timeline["parts"] = {PART_NAMES.get(name, f"waiting for {name}"): round(value, 4)
                                     for name, value in timeline["parts"].items()}
                found[key] = timeline
                names[key] = f"{row + 1}: {label(plan.plan)}" + (f", {part}" if "step" in timeline else "")
    left_out = [label(plan.plan) for _, plan in answer.top.iterrows() if not plan.timeline]
    told = f" Too long to trace whole, and left out: {html.escape('; '.join(left_out))}." if left_out else ""
    if not found:
        return f"<h2>A step in time</h2><p>{told.strip()}</p>" if told else ""
    options = "".join(f'<option value="{key}">{html.escape(name)}</option>' for key, name in names.items())
    parts = " A step with too many bars to see is shown as its beginning and its end." if any("step" in t for t in found.values()) else ""
    return string.Template((HERE / "gantt.html").read_text(encoding="utf-8")).substitute(
        options=options, said=GANTT_SAID.format(hardware=html.escape(answer.hardware), parts=parts, left_out=told),
        data=json.dumps(found, separators=(",", ":")).replace("</", "<\\/"))


# ---- The table --------------------------------------------------------------------------------------

def columns(answer):
    fastest = answer.plans.tokens_per_second.max()

    def held(medium):
        return lambda p: (bytes_text(p[f"bytes/{medium}"]) if p[f"bytes/{medium}"] else "–", p[f"bytes/{medium}"])
    return [
        ("plan", "plan", True, None),
        ("throughput", "tokens/s", False, lambda p: (f"{p.tokens_per_second:,.0f}", p.tokens_per_second)),
        ("of_best", "of the best", False, lambda p: (f"{100 * p.tokens_per_second / fastest:.1f} %", p.tokens_per_second)),
        ("of_peak", "of peak", False, lambda p: (f"{100 * answer.of_peak(p.seconds):.1f} %", p.tokens_per_second)),
        ("seconds", "step", True, lambda p: (seconds_text(p.seconds), p.seconds)),
        *[(medium, medium, True, held(medium)) for medium in plan_file.MEDIA
          if medium == "device" or (answer.plans[f"bytes/{medium}"] > 0).any()],
    ]


def chosen(answer):
    """{row of plans: its tags} of what the table shows."""
    rows = {index: ["fastest"] for index in answer.plans.index[:FASTEST]}
    by_line = dict(zip(answer.plans.plan, answer.plans.index))
    for tag, some in (("pareto", device_front(answer.plans)), ("best", dict.fromkeys(by_line[plan] for plan in answer.best.plan))):
        for index in some:
            rows.setdefault(index, []).append(tag)
    return dict(sorted(rows.items()))


def row(plan, tags, shown, drawn):
    """drawn: by line, the row among the best few whose step can be shown; twins of theirs are further down in the table."""
    chart = (f'<button type="button" class="link" data-gantt="{drawn[plan.plan]}" title="its step in time">▤</button>'
             if plan.plan in drawn else "")
    tag = '<span class="tag">Pareto</span>' if "pareto" in tags else ""
    cells = [f"<td><b>{html.escape(label(plan.plan))}</b>{chart}{tag}</td>"]
    for _, _, _, text in shown[1:]:
        said, value = text(plan)
        cells.append(f'<td class="number" data-value="{value:.10g}">{said}</td>')
    return f'<tr data-plan="{html.escape(plan.plan)}" data-tags="{" ".join(tags)}">{"".join(cells)}</tr>'


def table_note(answer, count):
    fit = answer.facts["fit"]
    what = "All plans that fit." if count == fit else \
        f"Of {fit:,} plans that fit: the {FASTEST} fastest, the Pareto front, and the best with each value of each word; " \
        f"<code>{html.escape(answer.path.name)}</code> beside this page has all."
    return (f"{what} All figures are predicted. <b>Device</b>, <b>host</b> and <b>disk</b> are bytes of the fullest one. "
            "Click a column to sort by it. The filter takes words that must all occur (<code>tp2 zero=3</code>), or with a "
            "minus must not (<code>-host</code>).")


# ---- What was weighed -------------------------------------------------------------------------------

def small_table(heads_, rows):
    head = "".join(f'<th scope="col"{" class=number" if number else ""}><span>{name}</span></th>' for name, number in heads_)
    body = "".join("<tr>" + "".join(f'<td{" class=number" if number else ""}>{value}</td>' for (_, number), value in zip(heads_, row_))
                   + "</tr>" for row_ in rows)
    return f'<table class="small"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def counts(answer):
    known = answer.facts
    refused = answer.refused.sort_values("plans", ascending=False)
    lack = f" by {bytes_text(known['least_lack'])} to {bytes_text(known['most_lack'])}; the closest is <code>{html.escape(known['closest'])}</code>" \
        if known["misfits"] else ""
    rows = [[f"<code>{html.escape(rule)}</code>", f"{plans:,}"] for rule, plans in zip(refused.rule, refused.plans)]
    said = (f"<h2>What was weighed</h2>\n<p>{known['combinations']:,} combinations of words; {known['legal']:,} are legal plans; "
            f"{known['misfits']:,} of these do not fit{lack}; {known['fit']:,} fit.</p>")
    words = []
    for word, values in answer.legal.groupby("word"):
        if len(values) > 1:
            values = values.assign(number=values.value.map(lambda v: int(v) if v.isdigit() else -1)).sort_values(["number", "value"])
            words.append([f"<code>{html.escape(word)}</code>", ", ".join(f"{html.escape(v)}: {n:,}" for v, n in zip(values.value, values.plans))])
    if rows:
        said += f"\n<h3>Refused, by rule</h3>\n{small_table([('rule', False), ('combinations', True)], rows)}"
    return said + f"\n<h3>Legal plans, by word</h3>\n<div class=\"scroll\">{small_table([('word', False), ('value: plans', False)], words)}</div>"


def facts(answer):
    known = answer.facts
    entries = [
        ("Again", known["again"]),
        ("Model", f"{known['model']}, {known['parameters']:,} parameters"),
        ("Cluster", f"{known['cluster_path']}: {answer.hardware}, {known['devices_per_node']} a node"),
        ("Step", f"{known['batch']:,} sequences of {known['seq']:,} tokens"),
        ("Words", known["words"] or "all"),
        ("Revision", known["revision"]),
        ("Weighed on", f"{known['host']}: {known['cpu']}"),
        ("Started", known["started"].replace("T", " ").replace("Z", " UTC")),
    ]
    return "\n".join(f"<div{' class=wide' if len(str(text)) > 60 else ''}><dt>{name}</dt><dd>{html.escape(str(text))}</dd></div>"
                     for name, text in entries)


# ---- The page ---------------------------------------------------------------------------------------

def pictures(answer, folder):
    known = {"hardware": html.escape(answer.hardware), "fit": f"{answer.facts['fit']:,}", "top": len(answer.top),
             "beside": bytes_text(answer.top.beside[0]) if len(answer.top) else ""}

    def say(index):
        plan = answer.plans.loc[index]
        return f"{label(plan.plan)}: {plan.tokens_per_second:,.0f} tokens/s, {bytes_text(plan['bytes/device'])}"

    def picture(name, heading, draw, caption):
        figure = draw(answer)
        return "" if figure is None else figures.figure_html(figure, folder, name, heading, caption.format(**known), say)
    return "\n\n".join(filter(None, figures.drawn_together([partial(picture, *entry) for entry in PICTURES])))


def make(path, page, folder):
    answer = plan_file.read(path)
    folder.mkdir(parents=True, exist_ok=True)
    shown, rows, time = columns(answer), chosen(answer), gantt(answer)
    drawn = {plan.plan: row for row, plan in answer.top.iterrows() if plan.timeline}
    scripts = ["table.js"] + (["plan_page.js"] if len(answer.plans) else []) + (["gantt.js"] if 'id="timelines"' in time else [])
    text = string.Template((HERE / "plan_page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{Path(answer.facts['model']).stem}: {verdict(answer)}"),
        style=(HERE / "page.css").read_text(encoding="utf-8"), verdict=html.escape(verdict(answer)),
        verdict_class="foretold" if len(answer.plans) else "invalid", verdict_lines=verdict_lines(answer),
        summary=summary(answer), why=why(answer), limits=limits(answer),
        pictures="\n\n".join(filter(None, [pictures(answer, folder), time])), count=len(rows), heads=heads(shown),
        rows="\n".join(row(answer.plans.loc[index], tags, shown, drawn) for index, tags in rows.items()),
        table_note=table_note(answer, len(rows)), counts=counts(answer), facts=facts(answer),
        cluster=html.escape(answer.facts["cluster_text"]),
        script="\n".join((HERE / name).read_text(encoding="utf-8") for name in scripts))
    page.write_text(text, encoding="utf-8")
