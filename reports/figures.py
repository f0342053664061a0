"""A picture as files beside the page and as part of it."""
import html
import io
import multiprocessing
import os
import re
import warnings
from concurrent.futures import ProcessPoolExecutor

from style import INK, LINE, PAPER, pyplot


def save(figure, folder, name):
    """Writes NAME.png and NAME.svg, and returns the latter."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once is enough for both files
    figure.savefig(folder / f"{name}.png", dpi=160, facecolor="white")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
    pyplot.close(figure)
    return text.getvalue()


def inline(svg, name, heading, say):
    """The picture as part of the page: identifiers of its own, a name for who cannot see it. What is drawn with
    gid="plan-N" is called say(N)."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    for ink, name_of_it in ((INK, "ink"), ("#333333", "ink"), ("#555555", "soft"), (LINE, "grid"), (PAPER, "paper")):
        svg = svg.replace(ink.lower(), f"var(--{name_of_it})")  # so that it follows light and dark
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(heading)}" ', 1)
    return re.sub(rf'<g id="{name}-plan-(\d+)">', lambda match: f"{match[0]}<title>{html.escape(say(int(match[1])))}</title>",
                  svg)


def figure_html(figure, folder, name, heading, caption, say=str):
    return (f"<h2>{heading}</h2>\n<figure>\n{inline(save(figure, folder, name), name, heading, say)}\n"
            f"<figcaption>{caption}</figcaption>\n</figure>")


_tasks = []  # of drawn_together(), for its processes


def _task(number):
    return _tasks[number]()


def drawn_together(tasks):
    """What each function returns, in their order. They run in forked processes, one per core, so only their results
    need to be picklable."""
    global _tasks
    workers = min(len(os.sched_getaffinity(0)), len(tasks))
    try:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) if workers > 1 else None
    except (ImportError, OSError):  # no semaphores, as where there is no /dev/shm
        pool = None
    if pool is None:
        return [task() for task in tasks]
    try:
        _tasks = tasks
        with warnings.catch_warnings(), pool:  # Python 3.12 and later warn, since numpy has threads; they are idle
            warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
            return list(pool.map(_task, range(len(tasks))))
    finally:
        _tasks = []
