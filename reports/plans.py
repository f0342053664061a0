"""What a report derives from a run's plans: short labels, throughput, the Pareto front, which plans to show."""
import numpy
import pandas


def derive(run):
    """Adds to every plan: label, changed, seconds, throughput, moved, sent, shown_time, pareto."""
    plans = run.plans
    changed = [changed_words(line) for line in plans.plan]
    plans["changed"] = changed
    plans["label"] = unique([label(words) for words in changed], plans)
    steps = plans.step_seconds.map(lambda row: row[~numpy.isnan(row)])
    plans["seconds"] = steps.map(lambda row: numpy.median(row) if len(row) else numpy.nan)
    # Only what was checked and had a core for every thread has a speed.
    plans["shown_time"] = (plans.status == "ok") & (plans.timed != 0) & plans.seconds.notna()
    plans["throughput"] = (plans.tokens_per_step / plans.seconds).where(plans.shown_time)
    plans["moved"] = total(plans, run.columns("traffic/", "/bytes"))
    plans["sent"] = total(plans, run.columns("traffic/", "/messages"))
    plans["pareto"] = pareto(plans)


def total(plans, columns):
    return plans[list(columns.values())].sum(axis=1) if columns else pandas.Series(0, index=plans.index)


def changed_words(line):
    """{word: value} of a plan's line, which leaves out what is at the program's default: the mesh's axes alone, which it
    always names, have theirs here. What all plans of a run share is no default, so no run is asked."""
    words = dict(token.split("=", 1) for token in line.split())
    return {word: int(value) if value.isdigit() else value for word, value in words.items()
            if not (word in ("dp", "tp", "pp") and value == "1")}


def label(words):
    """dp2 tp2 ckpt=full; solo where nothing is changed: one rank that does all as the program does by default."""
    return " ".join(f"{word}={value}" if isinstance(value, str) else f"{word}{value}"
                    for word, value in words.items()) or "solo"


def unique(labels, plans):
    """The same plan may be run with several thread counts; then the label says which."""
    twice = pandas.Series(labels).duplicated(keep=False)
    return [f"{text} [threads {value}]" if again else text
            for text, value, again in zip(labels, plans["threads"], twice)]


def pareto(plans):
    """Whether no other timed plan is at least as fast with at most as much memory, and better in one of them."""
    front = pandas.Series(False, index=plans.index)
    fastest = -numpy.inf
    timed = plans[plans.shown_time].sort_values(["peak_bytes", "throughput"], ascending=[True, False])
    for index, plan in timed.iterrows():
        if plan.throughput > fastest:
            front[index], fastest = True, plan.throughput
    return front


def simplest_first(plans):
    """The plans that passed (all if none did), those that change least first, smaller meshes before larger."""
    passed = plans[plans.status == "ok"] if (plans.status == "ok").any() else plans
    return passed.assign(size=passed.changed.map(len)).sort_values(["size", "ranks"], kind="stable")


def solo(plans):
    """The plan that everything is compared with: nothing changed; else the one with the fewest words and ranks."""
    return simplest_first(plans).iloc[0]


def alone(plans):
    """Every strategy by itself: for each word and value the plan that changes least else, smallest mesh first."""
    chosen = {}
    for index, plan in simplest_first(plans).iterrows():
        for item in plan.changed.items():
            chosen.setdefault(item, index)
    # A plan may be the simplest for several values (pp2 schedule=gpipe); it is shown once.
    return plans.loc[sorted(set(chosen.values()), key=lambda index: plans.label[index])]


def shown(plans, most=24):
    """The subset for pictures with a bar per plan: the simplest, each strategy alone, the Pareto front; a small run whole."""
    passed = simplest_first(plans)
    picked = [solo(plans).name, *alone(plans).index, *plans.index[plans.pareto]]
    picked = list(passed.index) if len(passed) <= most else list(dict.fromkeys(picked))[:most]
    return plans.loc[picked].sort_values(["peak_bytes", "label"], ascending=False)
