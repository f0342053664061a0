"""What a report derives from a run's plans: short labels, throughput, the Pareto front, which plans to show."""
import numpy
import pandas


def derive(run):
    """Adds to every plan: label, changed, seconds, throughput, moved, sent, shown_time, pareto."""
    plans = run.plans
    defaults = default_words(run)
    changed = [changed_words(run, row, defaults) for _, row in plans.iterrows()]
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


def default_words(run):
    """A plan's line leaves out words at their defaults, so a word's default is its value where it is left out.
    Of a word that every line names: the smallest number (dp, tp, pp), or the commonest text."""
    plans, defaults = run.plans, {}
    for word, column in run.columns("word/").items():
        named = plans.plan.map(lambda line: word in (token.split("=")[0] for token in line.split()))
        if not named.all():
            defaults[word] = plans[column][~named].iloc[0]
        elif pandas.api.types.is_integer_dtype(plans[column]):
            defaults[word] = plans[column].min()
        else:
            defaults[word] = plans[column].mode().iloc[0]
    return defaults


def changed_words(run, plan, defaults):
    """{word: value} of what is not at its default, in the order of the plan's own line."""
    words = {word: plan[column] for word, column in run.columns("word/").items() if plan[column] != defaults[word]}
    order = [token.split("=")[0] for token in plan.plan.split()]
    return dict(sorted(words.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def label(words):
    """dp2 tp2 ckpt=full; solo where nothing is changed."""
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
    """The plan that everything is compared with: nothing changed; else the one with the fewest ranks and words."""
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
    """The subset for pictures with a bar per plan: solo, each strategy alone, the Pareto front; a small run whole."""
    passed = simplest_first(plans)
    picked = [solo(plans).name, *alone(plans).index, *plans.index[plans.pareto]]
    picked = list(passed.index) if len(passed) <= most else list(dict.fromkeys(picked))[:most]
    return plans.loc[picked].sort_values(["peak_bytes", "label"], ascending=False)
