"""Tests of what Python reads and makes. They need files that suites/tests/parallel_report_python_test.cpp writes:

    reports/reports_test.py FOLDER [TestClass]      exit status 77: skipped, the last line says why
"""
import contextlib
import copy
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unittest
import warnings
from pathlib import Path
from unittest import mock

import h5py
import numpy
import pandas

FOLDER = Path(sys.argv.pop(1)).resolve()
os.environ.setdefault("MPLCONFIGDIR", str(FOLDER / "matplotlib"))
import page  # noqa: E402  (matplotlib asks for its folder when it is first imported)

HERE = Path(__file__).resolve().parent


def schema_code(section):
    """The first block of Python after a heading of schema.md."""
    text = (HERE / "schema.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", text[text.index(f"## {section}"):], flags=re.S)[1]


def table_of(path):
    """The three lines of schema.md, as a user would copy them."""
    names = {"h5py": h5py, "pandas": pandas}
    exec(schema_code("Run file").replace("run.h5", str(path)), names)
    return names["run"], names["plans"]


def make_page(path, pictures=None):
    """Exit status and what was said on stderr. Drawing is what takes time: a test may name the pictures it looks at."""
    complaints = io.StringIO()
    draw = page.picture
    def drawn(run, folder, said, name, *of):
        return draw(run, folder, said, name, *of) if pictures is None or name in pictures else ""
    with contextlib.redirect_stderr(complaints), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), \
            mock.patch.object(page, "picture", drawn):
        warnings.simplefilter("error")
        return page.main([str(path)]), complaints.getvalue()


class Files(unittest.TestCase):
    """The values are those that the C++ test wrote."""

    def test_run_reads_as_the_schema_says(self):
        run, plans = table_of(FOLDER / "two_plans.h5")
        self.assertEqual(run.attrs["format"], "lockstep run")
        self.assertEqual(run.attrs["suite"], "smoke")
        self.assertEqual(run.attrs["parameters"], 2**40)
        self.assertEqual(list(plans["plan"]), ["dp=1 tp=1 pp=1", "dp=2 tp=1 pp=1 ckpt=full"])
        self.assertEqual(list(plans["word/dp"]), [1, 2])
        self.assertEqual(list(plans["word/ckpt"]), ["none", "full"])
        self.assertEqual(plans["numbers"][1], "gradient of größe[3]: 1 ≠ 2")
        numpy.testing.assert_array_equal(plans["loss"][1], [5.5, numpy.nan])
        self.assertEqual(list(plans["traffic/dp/bytes"]), [0, 70000])
        self.assertEqual(list(plans["peak_by_kind/optimizer"]), [2000, 0])
        self.assertEqual(plans["resident_bytes"][0], 5 << 33)
        self.assertEqual(dict(zip(run["refused/rule"].asstr()[:], run["refused/plans"][:])), {"dp-divides-batch": 4})

    def test_dump_reads_as_the_schema_says(self):
        with h5py.File(FOLDER / "dump.h5") as dump:
            config = json.loads(dump.attrs["model"])
            self.assertEqual(config["architectures"], ["LlamaForCausalLM"])
            self.assertEqual(config["rope_scaling"]["rope_type"], "llama3")
            self.assertEqual(config["rope_scaling"]["factor"], 4.5)
            self.assertEqual(dump.attrs["rope_scaling.factor"], 4.5)
            self.assertIs(config["tie_word_embeddings"], True)
            self.assertEqual(dump.attrs["vocab_size"], 5)
            self.assertEqual(dump.attrs["lr"], 0.1)
            self.assertEqual(dump.attrs["plan"], "dp=1")
            self.assertEqual(list(dump["initial"]), ["model.embed_tokens.weight", "model.norm.weight"])
            embedding = dump["step0/grad/model.embed_tokens.weight"]
            self.assertEqual(embedding.dtype, numpy.dtype("<f4"))
            numpy.testing.assert_array_equal(embedding[:], numpy.arange(10, dtype="<f4").reshape(5, 2) / 4)
            self.assertEqual(dump["initial/model.norm.weight"].shape, (2,))
            numpy.testing.assert_array_equal(dump["step0/labels"][:], [[1, -100, 2]])
            self.assertEqual(dump["step0/loss"][()], 1.0 / 3)


class Refusals(unittest.TestCase):
    def refused(self, name, *parts):
        status, said = make_page(FOLDER / name)
        self.assertEqual(status, 2, said)
        self.assertEqual(len(said.strip().splitlines()), 1, said)
        for part in parts:
            self.assertIn(part, said)
        self.assertFalse((FOLDER / name).with_suffix(".html").exists())

    def test_plans_without_a_verdict(self):
        self.refused("lacking.h5", "1 of 5 plans lack the verdict of the messages gate", "'dp=1 tp=1 pp=1 ckpt=full micro=2'")

    def test_verdicts_that_contradict_each_other(self):
        self.refused("contradiction.h5", "say 'ok' although a gate found a fault")
        self.refused("other_hash.h5", "have another hash than the run")
        self.refused("other_reference.h5", "is not the reference's")
        self.refused("no_verdict.h5", "has no verdict")
        self.refused("alone_wrong.h5", "say 'ok' although a gate found a fault")

    def test_weak_scaling_has_a_hash_for_each_batch(self):
        weak = FOLDER / "weak.h5"
        shutil.copy(FOLDER / "sample.h5", weak)
        with h5py.File(weak, "r+") as file:
            plans, dp = file["plans"], file["plans/word/dp"][:]
            plans["tokens_per_step"][:] = plans["tokens_per_step"][:] * dp
            plans["hash"][:] = ["b" * 16 if d > 1 else own for d, own in zip(dp, plans["hash"].asstr()[:])]
        self.assertEqual(make_page(weak, []), (0, ""))
        weak.with_suffix(".html").unlink()
        with h5py.File(weak, "r+") as file:
            hashes = list(file["plans/hash"].asstr()[:])
            hashes[[k for k, d in enumerate(dp) if d > 1][-1]] = "c" * 16
            file["plans/hash"][:] = hashes
        self.refused("weak.h5", "another hash than those of their batch")

    def test_a_folder_without_a_run(self):
        for name, told in (("dump.h5", "holds no run file"), ("damaged.h5", "is damaged")):
            folder = FOLDER / f"only-{name}"
            folder.mkdir(exist_ok=True)
            source = FOLDER / "dump.h5"
            (folder / name).write_bytes(source.read_bytes() if name == "dump.h5" else source.read_bytes()[:5000])
            status, said = make_page(folder, [])
            self.assertEqual((status, len(said.splitlines())), (2, 1), said)
            self.assertIn(told, said)

    def test_what_is_no_run(self):
        self.refused("empty.h5", "holds no plan")
        self.refused("dump.h5", "is not a run file")
        self.refused("nowhere.h5", "does not exist")
        cut = FOLDER / "cut.h5"
        cut.write_bytes((FOLDER / "sample.h5").read_bytes()[:5000])
        self.refused("cut.h5", "cut off")


class Rows(html.parser.HTMLParser):
    """The plans' rows of a page, in their order: the attributes of each."""

    def __init__(self, text):
        super().__init__()
        self.rows = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr" and "data-plan" in dict(attributes):
            self.rows.append(dict(attributes))


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        for name, pictures in (("sample", None), ("invalid", None), ("untimed", ["memory_throughput"]), ("older", None)):
            assert make_page(FOLDER / f"{name}.h5", pictures) == (0, "")
        cls.text = (FOLDER / "sample.html").read_text(encoding="utf-8")
        cls.rows = Rows(cls.text).rows
        _, cls.plans = table_of(FOLDER / "sample.h5")

    def test_needs_nothing_else(self):
        self.assertNotRegex(self.text, r'(src|href)="(?!#|data:)')
        self.assertNotRegex(self.text, r"@import|url\((?!#)")

    def test_identifiers_are_unique(self):
        names = re.findall(r'\bid="([^"]+)"', self.text)
        self.assertEqual(len(names), len(set(names)))

    def test_pictures_lie_beside_it(self):
        pictures = sorted(path.name for path in (FOLDER / "sample.plots").iterdir())
        names = ["bytes_by_axis", "each_alone", "loss", "memory_by_kind", "memory_throughput", "scaling", "schedules",
                 "step_parts"]
        self.assertEqual(pictures, [f"{name}.{kind}" for name in names for kind in ("png", "svg")])

    def test_a_folder_gets_an_index(self):
        folder = FOLDER / "sweep"
        folder.mkdir()
        shutil.copy(FOLDER / "two_plans.h5", folder / "any_name.h5")
        shutil.copy(FOLDER / "dump.h5", folder / "dump.h5")  # no run: passed over
        self.assertEqual(make_page(folder, ["loss"]), (0, ""))
        self.assertTrue((folder / "index.html").is_file() and (folder / "plots" / "loss.png").is_file())

    def test_what_only_fast_mode_can_sum_has_no_exact_verdict(self):
        self.assertEqual(make_page(FOLDER / "alone.h5", ["loss"]), (0, ""))
        text = (FOLDER / "alone.html").read_text(encoding="utf-8")
        self.assertEqual(text.count('title="only fast mode can sum this plan"'), 3)
        self.assertNotIn("do not agree", text)

    def test_every_plan_has_a_row(self):
        self.assertEqual([row["data-plan"] for row in self.rows], list(self.plans["plan"]))

    def test_labels_leave_out_defaults(self):
        labels = {row["data-plan"]: row["data-label"] for row in self.rows}
        self.assertEqual(labels["dp=1 tp=1 pp=1"], "solo")
        self.assertEqual(labels["dp=1 tp=2 pp=1 ckpt=full"], "tp2 ckpt=full")
        self.assertEqual(labels["dp=1 tp=1 pp=2 micro=2 schedule=gpipe"], "pp2 micro2 schedule=gpipe")

    def test_words_that_all_plans_share_are_named(self):
        self.assertEqual(make_page(FOLDER / "shared.h5", ["each_alone"]), (0, ""))
        text = (FOLDER / "shared.html").read_text(encoding="utf-8")
        self.assertEqual([row["data-label"] for row in Rows(text).rows], ["dp2 ckpt=full zero3", "dp2 tp2 ckpt=full zero3"])
        self.assertIn("from the plan <b>dp2 ckpt=full zero3</b>", text)

    def test_scaling_is_of_plans_that_share_a_word_too(self):
        self.assertEqual(make_page(FOLDER / "full.h5", ["scaling"]), (0, ""))
        rows = Rows((FOLDER / "full.html").read_text(encoding="utf-8")).rows
        self.assertTrue(all("ckpt=full" in row["data-label"] for row in rows))
        self.assertTrue((FOLDER / "full.plots" / "scaling.png").is_file())

    def test_throughput_is_of_the_median_step(self):
        for row, tokens, seconds, timed in zip(self.rows, self.plans["tokens_per_step"], self.plans["step_seconds"],
                                               self.plans["timed"]):
            if timed:
                self.assertAlmostEqual(float(row["data-throughput"]), tokens / sorted(seconds)[2], places=3)
            else:
                self.assertEqual(row["data-throughput"], "")

    def test_the_table_has_the_figures_of_the_run(self):
        keys = re.findall(r'<th scope="col" data-key="([^"]+)"', self.text)
        rows = re.findall(r"<tr data-plan=.*?</tr>", self.text, flags=re.S)
        plans = self.plans
        for index in (0, list(plans["plan"]).index("dp=1 tp=1 pp=2"), len(rows) - 1):
            cells = dict(zip(keys, re.findall(r"<td([^>]*)>(.*?)</td>", rows[index], flags=re.S), strict=True))
            timed = plans["timed"][index]

            def total(what):
                return sum(plans[f"traffic/{axis}/{what}"][index] for axis in ("dp", "tp", "pp"))
            expected = {"ranks": plans["ranks"][index], "peak": plans["peak_bytes"][index],
                        "exact_peak": plans["peak_bytes"][index] + (1 << 16), "arena": plans["arena_bytes"][index],
                        "resident": plans["resident_bytes"][index], "sent": total("messages"), "moved": total("bytes")}
            for key, value in expected.items():
                self.assertEqual(float(re.search(r'data-value="(.*)"', cells[key][0])[1]), float(f"{value:.10g}"), key)
            milliseconds = f"{1000 * sorted(plans['step_seconds'][index])[2]:.4g}" if timed else ""
            texts = {"seconds": milliseconds, "spread": "3 %" if timed else "", "fast_worst": "25 %", "wall": "1.5",
                     "bubble": "15 %" if "pp=2" in plans["plan"][index] else "20 %", "hash": "8c1f0a92",
                     "sent": f"{total('messages'):,}"}
            for key, text in texts.items():
                self.assertEqual(cells[key][1], text, key)

    def test_a_point_says_its_plans_speed_and_memory(self):
        titles = dict(re.findall(r'<g id="memory_throughput-plan-(\d+)"><title>(.*?)</title>', self.text))
        self.assertGreater(len(titles), 5)
        for index, title in titles.items():
            row = self.rows[int(index)]
            label, speed, count, unit = re.fullmatch(r"(.*): ([\d,]+) tokens/s, ([\d.]+) (\w+)", title).groups()
            self.assertEqual(label, row["data-label"])
            self.assertEqual(speed, f"{float(row['data-throughput']):,.0f}")
            self.assertAlmostEqual(float(count) * UNITS[unit] / int(row["data-peak"]), 1, delta=0.005)   # three digits

    def test_only_timed_plans_have_a_point(self):
        points = {int(i) for i in re.findall(r'id="memory_throughput-plan-(\d+)"', self.text)}
        self.assertEqual(points, {i for i, timed in enumerate(self.plans["timed"]) if timed})
        self.assertLess(len(points), len(self.plans))
        self.assertNotIn('id="memory_throughput-', (FOLDER / "untimed.html").read_text(encoding="utf-8"))

    def test_captions_count_plans(self):
        timed, all_plans = int(self.plans["timed"].sum()), len(self.plans)
        self.assertIn(f"Each of the {timed} points is a timed plan", self.text)
        self.assertIn(f"All {all_plans} plans gave <b>these very numbers, to the last bit</b>", self.text)
        shown = int(re.search(rf"Shown are (\d+) of {all_plans} plans", self.text)[1])
        run = page.run_file.read(FOLDER / "sample.h5")
        page.derived.derive(run)
        figure = page.plots.memory_by_kind(run)
        self.assertEqual(shown, len(figure.axes[0].get_yticklabels()))
        page.plots.pyplot.close(figure)
        self.assertLess(shown, all_plans)

    def test_the_others_are_said_to_be_checked_and_why(self):
        with h5py.File(FOLDER / "sample.h5") as file:
            cores = int(file.attrs["cores"])
        untimed = self.plans[self.plans["timed"] == 0]
        self.assertTrue((untimed["ranks"] * untimed["threads"] > cores).all())
        self.assertIn(f"The other {len(untimed)} plans were <b>checked</b> for right numbers but not timed, because their "
                      f"ranks × threads exceed the machine's {cores} cores", self.text)

    def test_pareto_front_is_what_nothing_dominates(self):
        timed = [row for row in self.rows if row["data-throughput"]]
        memory = numpy.array([int(row["data-peak"]) for row in timed])
        speed = numpy.array([float(row["data-throughput"]) for row in timed])
        for row, m, s in zip(timed, memory, speed):
            dominated = ((memory <= m) & (speed >= s) & ((memory < m) | (speed > s))).any()
            if dominated:
                self.assertNotIn("pareto", row["data-tags"], row["data-plan"])
        front = [row for row in timed if "pareto" in row["data-tags"]]
        self.assertEqual(len(front), len({(m, s) for m, s in zip(memory, speed) if not (
            (memory <= m) & (speed >= s) & ((memory < m) | (speed > s))).any()}))

    def test_every_simulated_step_can_be_drawn(self):
        drawn = json.loads(re.search(r'id="timelines">(.*?)</script>', self.text)[1])
        self.assertEqual(set(drawn), {str(i) for i in range(len(self.rows))})
        self.assertAlmostEqual(sum(drawn["0"]["parts"].values()), 1, places=3)
        self.assertIn("made-up rates", self.text)

    def test_predicted_stands_beside_measured(self):
        self.assertEqual(make_page(FOLDER / "predicted.h5", ["predicted"]), (0, ""))
        text = (FOLDER / "predicted.html").read_text(encoding="utf-8")
        _, plans = table_of(FOLDER / "predicted.h5")
        timed = [i for i, timed in enumerate(plans["timed"]) if timed]
        self.assertEqual({int(i) for i in re.findall(r'id="predicted-plan-(\d+)"', text)}, set(timed))
        self.assertIn(f"Of {len(timed)} timed plans the median error is <b>5.0 %</b>, {len(timed) - 1} are within 10 %", text)
        self.assertIn("the worst is +30 %", text)
        seconds = {i: sorted(plans["step_seconds"][i])[2] for i in timed}
        first = min(timed, key=lambda i: plans["predicted_seconds"][i])
        late = seconds[first] / min(seconds.values()) - 1
        self.assertIn("The plan predicted to be fastest is " + (f"{100 * late:.1f} % slower than the fastest measured."
                                                                if late > 0 else "the fastest measured."), text)
        self.assertIn("“a &lt;made-up&gt; machine”", text)
        self.assertEqual(text.count("(-5 %)</td>"), len(timed) - 1)
        self.assertEqual(text.count("(+30 %)</td>"), 1)
        self.assertNotIn("predicted [ms]", self.text)   # of a run without a cluster

    def test_a_launched_run_says_how(self):
        self.assertEqual(make_page(FOLDER / "launched.h5", ["memory_throughput"]), (0, ""))
        text = (FOLDER / "launched.html").read_text(encoding="utf-8")
        self.assertIn("srun -n {ranks}, messages by mpi", text)
        self.assertIn("exceed the cores of their hosts", text)
        self.assertNotIn("Launched with", self.text)

    def test_an_older_run_has_no_simulated_steps(self):
        text = (FOLDER / "older.html").read_text(encoding="utf-8")
        self.assertNotIn("gantt-plan", text)
        self.assertNotIn('aria-label="Pipelines in time"', text)
        bare = FOLDER / "bare.h5"   # and a file from before has no such columns at all
        shutil.copy(FOLDER / "sample.h5", bare)
        with h5py.File(bare, "r+") as file:
            for column in ("timeline", "simulated_seconds", "simulated", "fast_worst", "median_spread", "wall_seconds",
                           "exact_peak_bytes", "ended", "fast_where", "tokens_per_second", "predicted_seconds"):
                del file["plans"][column]
            del file.attrs["simulated_with"], file.attrs["predicted_with"]
        self.assertEqual(make_page(bare), (0, ""))
        self.assertEqual(len(Rows(bare.with_suffix(".html").read_text(encoding="utf-8")).rows), len(self.rows))

    def test_kernels_are_compared_with_the_plain_ones(self):
        table = self.text[self.text.index("<h2>The kernels</h2>"):]
        row = re.search(r"<tr><td><code>matmul</code></td>(.*?)</tr>", table)[1]
        # 8 / 2 and 9 / 1: a geometric mean of 6; avx512 9 / 0.5
        self.assertEqual(re.findall(r">([^<>]*)</td>", row), ["2", "6.0 ×", "18.0 ×", "63 %", ""])
        self.assertIn("17 GB/s", table)
        other = FOLDER / "unreadable"
        other.mkdir()
        shutil.copy(FOLDER / "two_plans.h5", other)
        (other / "kernels.json").write_text('{"benchmarks": [{"name": "a/b/c"}]}')
        self.assertEqual(make_page(other, []), (0, ""))
        self.assertIn("kernels.json cannot be read", (other / "index.html").read_text(encoding="utf-8"))

    def test_an_invalid_run_says_so_and_why(self):
        text = (FOLDER / "invalid.html").read_text(encoding="utf-8")
        self.assertIn('class="verdict invalid"', text)
        self.assertIn("held &lt;b&gt; bytes", text)  # a fault's text is not markup
        for gate, passed in (("numbers", 19), ("messages", 19), ("memory", 18), ("fast", 19)):
            self.assertIn(f"<b>{passed} of 20</b> plans passed the {gate} gate", text)
        marks = [row.count('class="fault">✗') for row in re.findall(r"<tr data-plan=.*?</tr>", text, flags=re.S)]
        self.assertEqual(marks, [0] * 10 + [1, 4] + [0] * 8)  # as the counts above: one memory gate, and all four
        rows = Rows(text).rows
        self.assertIn("failed", rows[10]["data-tags"])
        self.assertEqual(rows[10]["data-throughput"], "")  # timed, but failed a gate
        self.assertNotIn('id="memory_throughput-plan-10"', text)
        self.assertIn("out of memory: 3 GiB were resident, 2 are allowed", text)
        self.assertIn("failed", rows[11]["data-tags"])


class DrawnTogether(unittest.TestCase):
    def test_results_are_in_the_tasks_order(self):
        known = object()   # not to be pickled
        tasks = [lambda k=k: (k, known is not None, os.getpid()) for k in range(5)]
        for cores, others in (({0}, False), ({0, 1}, True)):
            with mock.patch.object(os, "sched_getaffinity", lambda _: cores):
                done = page.figures.drawn_together(tasks)
            self.assertEqual([k for k, *_ in done], list(range(5)))
            self.assertEqual(os.getpid() not in {process for *_, process in done}, others)

    def test_what_a_task_raises_is_raised(self):
        with mock.patch.object(os, "sched_getaffinity", lambda _: {0, 1}):
            with self.assertRaises(OSError):
                page.figures.drawn_together([int, lambda: open("/nowhere/at/all")])
            with self.assertRaises(page.BrokenProcessPool):
                page.figures.drawn_together([int, lambda: os.kill(os.getpid(), 9)])
            self.assertEqual(page.figures.drawn_together([int, str]), [0, ""])   # and the next ones are drawn


class Words(unittest.TestCase):
    def test_plans_of_several_thread_counts_say_which(self):
        threads = pandas.DataFrame({"threads": [1, 2, 1]})
        self.assertEqual(page.derived.unique(["a", "a", "b"], threads), ["a [threads 1]", "a [threads 2]", "b"])

    def test_bytes_have_three_digits(self):
        for count, text in ((500 << 10, "500 KiB"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5 TiB")):
            self.assertEqual(page.bytes_text(count), text)


UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Pictures(unittest.TestCase):
    """What is drawn is what the run file holds, by its own columns: bars and points as matplotlib has them."""

    @classmethod
    def setUpClass(cls):
        cls.sample = page.run_file.read(FOLDER / "sample.h5")
        page.derived.derive(cls.sample)
        _, cls.plans = table_of(FOLDER / "sample.h5")
        cls.speed = [tokens / sorted(seconds)[2] if timed else None for tokens, seconds, timed in
                     zip(cls.plans["tokens_per_step"], cls.plans["step_seconds"], cls.plans["timed"])]

    @classmethod
    def tearDownClass(cls):
        page.plots.pyplot.close("all")

    def unit(self, label):
        return UNITS[re.search(r"\[(.*)\]", label)[1]]

    def bars(self, axes):
        """{row's label: {legend's name: (from, length)}} of bars from left to right."""
        labels = {round(place): text.get_text() for place, text in zip(axes.get_yticks(), axes.get_yticklabels())}
        found = {}
        for group in axes.containers:
            for bar in group:
                row = labels[round(bar.get_y() + bar.get_height() / 2)]
                found.setdefault(row, {})[group.get_label()] = (bar.get_x(), bar.get_width())
        return found

    def row_of(self, label):
        """The number of the plan that a picture names so."""
        return list(self.sample.plans.label).index(label)

    def test_points_are_memory_and_speed(self):
        axes = page.plots.memory_against_throughput(self.sample).axes[0]
        unit, points = self.unit(axes.get_xlabel()), 0
        for line in axes.lines:
            if str(line.get_gid()).startswith("plan-"):
                index = int(line.get_gid().split("-")[1])
                self.assertAlmostEqual(line.get_xdata()[0] * unit, self.plans["peak_bytes"][index], delta=1)
                self.assertAlmostEqual(line.get_ydata()[0], self.speed[index], places=6)
                points += 1
        self.assertEqual(points, sum(self.plans["timed"]))

    def test_memory_is_stacked_by_kind(self):
        axes = page.plots.memory_by_kind(self.sample).axes[0]
        unit, rows = self.unit(axes.get_xlabel()), self.bars(axes)
        self.assertGreater(len(rows), 10)
        for label, bars in rows.items():
            index, end = self.row_of(label), 0
            self.assertEqual(set(bars), {"weights", "gradients", "optimizer", "activations", "buffers"})
            for kind, (start, length) in bars.items():
                self.assertAlmostEqual(length * unit, self.plans[f"peak_by_kind/{kind}"][index], delta=1)
                self.assertAlmostEqual(start, end, places=9)
                end = start + length
        marks = next(line for line in axes.lines if line.get_label() == "peak of all")
        for place, mark in zip(marks.get_ydata(), marks.get_xdata()):
            index = self.row_of(axes.get_yticklabels()[int(place)].get_text())
            self.assertAlmostEqual(mark * unit, self.plans["peak_bytes"][index], delta=1)

    def test_bytes_are_stacked_by_axis(self):
        axes = page.plots.bytes_by_axis(self.sample).axes[0]
        unit, rows = self.unit(axes.get_xlabel()), self.bars(axes)
        self.assertGreater(len(rows), 5)
        for label, bars in rows.items():
            self.assertEqual(set(bars), {"dp", "tp", "pp"})
            for axis, (_, length) in bars.items():
                self.assertAlmostEqual(length * unit, self.plans[f"traffic/{axis}/bytes"][self.row_of(label)], delta=1)

    def test_each_alone_is_in_multiples_of_the_simplest(self):
        memory, speed, simulated = page.plots.each_alone(self.sample).axes
        solo = list(self.plans["plan"]).index("dp=1 tp=1 pp=1")
        labels = [text.get_text() for text in memory.get_yticklabels()]
        self.assertIn("tp2", labels)

        def ends(axes):
            return {labels[round(bar.get_y() + bar.get_height() / 2)]: bar.get_x() + bar.get_width() for bar in axes.patches}
        for label, ratio in ends(memory).items():
            self.assertAlmostEqual(ratio, self.plans["peak_bytes"][self.row_of(label)] / self.plans["peak_bytes"][solo])
        for label, ratio in ends(speed).items():
            self.assertAlmostEqual(ratio, self.speed[self.row_of(label)] / self.speed[solo])
        self.assertEqual(set(ends(speed)), {label for label in labels if self.speed[self.row_of(label)]})
        for label, ratio in ends(simulated).items():   # of a rank: seconds times ranks
            row = self.row_of(label)
            self.assertAlmostEqual(ratio, self.plans["simulated_seconds"][solo]
                                   / (self.plans["simulated_seconds"][row] * self.plans["ranks"][row]))

    def test_loss_and_norm_are_by_step(self):
        loss, norm = page.plots.loss_curve(self.sample).axes
        for axes, column in ((loss, "loss"), (norm, "grad_norm")):
            line, = axes.lines
            self.assertEqual(list(line.get_xdata()), [1, 2, 3, 4])
            self.assertEqual(list(line.get_ydata()), list(self.plans[column][0]))
        self.assertIn("loss", loss.get_ylabel())
        self.assertIn("norm", norm.get_ylabel())

    def test_what_differs_from_the_reference_is_dashed(self):
        run = copy.copy(self.sample)
        run.facts = {**run.facts, "reference_hash": "0" * 32}
        loss, _ = page.plots.loss_curve(run).axes
        self.assertEqual({line.get_linestyle() for line in loss.lines}, {"--"})
        self.assertEqual({line.get_linestyle() for line in page.plots.loss_curve(self.sample).axes[0].lines}, {"-"})

    def test_parts_of_a_step_are_percents_of_it(self):
        rows = self.bars(page.steps.step_parts(self.sample).axes[0])
        self.assertGreater(len(rows), 5)
        for label, bars in rows.items():
            parts = {name: length for name, (_, length) in bars.items()}
            pipeline = "pp2" in label   # as parallel_report_sample.hpp has it
            expected = {"forward, backward": 70, "optimizer": 10, "waiting for pp": 5 if pipeline else 0,
                        "idle": 15 if pipeline else 20}
            self.assertEqual(set(parts), set(expected))
            for name, percent in expected.items():
                self.assertAlmostEqual(parts[name], percent, places=6)

    def test_pipelines_are_bars_with_a_number_for_each_pass(self):
        figure, axes = page.plots.pyplot.subplots()
        passes = ["forward", "backward"]
        seen = page.steps.draw_computing(axes, {"seconds": 10, "passes": passes, "streams": [[0, "compute",
            [0, 1000, 0, 0, 0,  1100, 900, 0, 0, 0,  2200, 500, 0, 0, 1,  3300, 1000, 1, 0, 1,  4400, 10, 1, 0, 0,
             5500, 1000, 1, 0, 2,  7500, 1000, 1, 0, 2]]]})
        self.assertEqual(list(seen), ["forward", "backward, or input gradients"])
        self.assertEqual([(text.get_text(), round(text.get_position()[0])) for text in axes.texts],
                         [("0", 1000), ("1", 2450), ("1", 3800), ("2", 6000), ("2", 8000)])  # ms; the short bar has no room
        spans = [(min(path.vertices[:, 0]), max(path.vertices[:, 0])) for one in axes.collections for path in one.get_paths()]
        self.assertEqual([(round(a), round(b)) for a, b in spans],
                         [(0, 1000), (1100, 2000), (2200, 2700), (3300, 4300), (4400, 4410), (5500, 6500), (7500, 8500)])
        page.plots.pyplot.close(figure)

    def test_pipelines_say_how_long_they_take_and_how_much_is_idle(self):
        panels = page.steps.schedules(self.sample).axes
        self.assertGreater(len(panels), 1)
        for axes in panels:
            label, figures = axes.get_title(loc="left").rsplit(": ", 1)
            # parallel_report_sample.hpp: of a pipeline's step 15 % are bubble, and its timeline is a step of its seconds
            milliseconds = 1e3 * self.plans["simulated_seconds"][self.row_of(label)]
            self.assertEqual(figures, f"{milliseconds:.3g} ms, of which 15 % idle")

    def test_scaling_is_speed_by_ranks(self):
        axes = page.steps.scaling(self.sample).axes[0]
        lines = {line.get_label(): line for line in axes.lines}
        one = self.plans["simulated_seconds"][list(self.plans["plan"]).index("dp=1 tp=1 pp=1")]
        simulated = lines["dp, simulated"]
        self.assertEqual(list(simulated.get_xdata()), [1, 2, 4])
        for ranks, speed in zip(simulated.get_xdata(), simulated.get_ydata()):
            row = list(self.plans["plan"]).index(f"dp={ranks} tp=1 pp=1")
            self.assertAlmostEqual(speed, one / self.plans["simulated_seconds"][row])
        measured = lines["dp, measured"]
        self.assertEqual(list(measured.get_xdata()), [2])
        self.assertAlmostEqual(measured.get_ydata()[0], self.speed[list(self.plans["plan"]).index("dp=2 tp=1 pp=1")]
                               / self.speed[list(self.plans["plan"]).index("dp=1 tp=1 pp=1")])

    def test_predicted_is_up_and_measured_is_across(self):
        run = page.run_file.read(FOLDER / "predicted.h5")
        page.derived.derive(run)
        axes = page.predicted.against_measured(run).axes[0]
        unit = {"s": 1, "ms": 1e-3}[re.search(r"\[(.*)\]", axes.get_xlabel())[1]]
        self.assertTrue(axes.get_xlabel().startswith("measured") and axes.get_ylabel().startswith("predicted"))
        for line in axes.lines:
            if str(line.get_gid()).startswith("plan-"):
                index = int(line.get_gid().split("-")[1])
                self.assertAlmostEqual(line.get_xdata()[0] * unit, sorted(run.plans.step_seconds[index])[2], places=9)
                self.assertAlmostEqual(line.get_ydata()[0] / line.get_xdata()[0], 1.3 if index == 1 else 0.95, places=9)


class InBrowser(unittest.TestCase):
    """What a page's script does, in a real browser: a script of ours acts on the page and notes what it then shows."""
    page = FOLDER / "sample.html"

    @classmethod
    def setUpClass(cls):
        cls.chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not cls.chromium:
            print("no chromium to open the page in")
            sys.exit(77)

    @classmethod
    def act(cls, actions, address="", page=None):
        """{name: {plans, count, answer}} as noted by note(name)."""
        note = """const notes = {};
            const note = name => { notes[name] = {
                plans: [...document.querySelectorAll("tr[data-plan]")].filter(row => !row.hidden).map(row => row.dataset.plan),
                count: document.getElementById("count").textContent,
                answer: document.getElementById("answer").textContent,
                line: document.getElementById("line").hidden ? "" : document.querySelector("#line code").textContent,
                reasons: [...document.querySelectorAll("#reasons li")].map(item => item.textContent),
                gantt: document.getElementById("gantt-parts").textContent,
                numbers: [...document.querySelectorAll("#gantt text[class^=on-]")].map(text => [text.textContent,
                    Number(text.getAttribute("x"))]),
                bars: [...document.querySelectorAll("#gantt rect:not(.under)")].map(bar => [bar.getAttribute("class"),
                    Number(bar.getAttribute("x")), Number(bar.getAttribute("width")), bar.textContent])}; };"""
        keep = """const kept = document.createElement("script"); kept.type = "application/json"; kept.id = "notes";
            kept.textContent = JSON.stringify(notes); document.body.append(kept);"""
        text = (page or cls.page).read_text(encoding="utf-8")
        acted = FOLDER / "acted.html"
        acted.write_text(text.replace("</body>", f"<script>{note}{actions}{keep}</script></body>"), encoding="utf-8")
        result = subprocess.run(
            [cls.chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             f"--user-data-dir={FOLDER / 'profile'}", "--dump-dom", acted.as_uri() + address],
            capture_output=True, text=True, timeout=300)
        assert "CONSOLE" not in result.stderr, result.stderr  # the page's script complained
        return json.loads(re.search(r'id="notes">(.*?)</script>', result.stdout)[1])

class Browser(InBrowser):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        assert make_page(FOLDER / "sample.h5") == (0, "")
        cls.rows = Rows((FOLDER / "sample.html").read_text(encoding="utf-8")).rows
        cls.smallest = min(int(row["data-peak"]) for row in cls.rows)
        cls.limits = [(12 << 20, 8), (16 << 20, 8), (30 << 20, 8), (30 << 20, 1)]
        asked = "".join(f"""ranks.value = "{most if most < 8 else ''}"; fit.value = {limit} / unit.value;
            fit.dispatchEvent(new Event("input")); note("limit {limit} {most}");"""
                        for limit, most in [*cls.limits, (cls.smallest, 8), (cls.smallest - 1, 8)])
        cls.notes = cls.act("""
            const click = key => document.querySelector(`th[data-key=${key}] button`).click();
            click("peak"); note("peak up");
            click("peak"); note("peak down");
            click("throughput"); note("throughput");
            filter.value = "TP2 -ckpt"; filter.dispatchEvent(new Event("input")); note("filtered");
            note("first step");
            document.querySelector("[data-gantt='40']").click(); note("step of 40");
            """ + asked)

    def values(self, note, key):
        by_plan = {row["data-plan"]: row[key] for row in self.rows}
        return [by_plan[plan] for plan in self.notes[note]["plans"]]

    def test_sorts_by_a_column_and_back(self):
        up, down = ([int(peak) for peak in self.values(note, "data-peak")] for note in ("peak up", "peak down"))
        self.assertEqual(up, sorted(up))
        self.assertEqual(down, sorted(up, reverse=True))
        self.assertEqual(len(up), len(self.rows))

    def test_sorts_the_fastest_first_and_the_untimed_last(self):
        speeds = self.values("throughput", "data-throughput")
        timed = [float(speed) for speed in speeds if speed]
        self.assertEqual(timed, sorted(timed, reverse=True))
        self.assertEqual(set(speeds[len(timed):]), {""})

    def test_filters_by_words(self):
        shown = self.notes["filtered"]["plans"]
        expected = {row["data-plan"] for row in self.rows if "tp=2" in row["data-plan"] and "ckpt" not in row["data-plan"]}
        self.assertEqual(set(shown), expected)
        self.assertGreater(len(shown), 1)
        self.assertEqual(self.notes["filtered"]["count"], f"{len(shown)} of {len(self.rows)} plans")

    def test_names_the_fastest_plan_that_fits(self):
        for limit, ranks in self.limits:
            fits = [row for row in self.rows if row["data-throughput"] and int(row["data-peak"]) <= limit
                    and int(row["data-ranks"]) <= ranks]
            best = max(fits, key=lambda row: float(row["data-throughput"]))
            self.assertIn(f"use {best['data-label']}: {float(best['data-throughput']):,.0f} tokens/s",
                          self.notes[f"limit {limit} {ranks}"]["answer"])
            self.assertEqual(self.notes[f"limit {limit} {ranks}"]["line"], f'--plan "{best["data-plan"]}"')

    def test_says_why(self):
        """Two limits: what is faster but too large, the share of the speed of what comes next, the simulated choice."""
        for limit, ranks in self.limits[:2]:
            reasons = " ".join(self.notes[f"limit {limit} {ranks}"]["reasons"])
            speed = {row["data-label"]: float(row["data-throughput"]) for row in self.rows if row["data-throughput"]}
            peak = {row["data-label"]: int(row["data-peak"]) for row in self.rows}
            fits = sorted((label for label in speed if peak[label] <= limit), key=lambda label: -speed[label])
            self.assertIn(f"the fastest of {len(fits)} timed plans that fit", reasons)
            self.assertIn(f"Next: {fits[1]} ({100 * speed[fits[1]] / speed[fits[0]]:.0f} % of its speed", reasons)
            larger = [label for label in speed if peak[label] > limit and speed[label] > speed[fits[0]]]
            self.assertEqual("Faster, but too large" in reasons, bool(larger))
            if larger:
                least = min(larger, key=lambda label: peak[label])
                self.assertIn(f"too large: {least} needs", reasons)
            simulated = {row["data-label"]: float(row["data-simulated"]) for row in self.rows if int(row["data-peak"]) <= limit}
            best = max(simulated, key=lambda label: simulated[label])
            self.assertRegex(reasons, rf"not measured\) would choose (.*): \d+ ranks?, {simulated[best]:,.0f} tokens/s")

    def test_compares_with_one_device_only_where_it_is_one(self):
        self.assertIn("Against solo (one device): ", " ".join(self.notes[f"limit {30 << 20} 8"]["reasons"]))
        self.assertEqual(make_page(FOLDER / "shared.h5"), (0, ""))
        noted = self.act('note("all");', f"#fit={1 << 40}", FOLDER / "shared.html")["all"]
        self.assertIn("use dp2 tp2 ckpt=full zero3: ", noted["answer"])
        self.assertIn("Against dp2 ckpt=full zero3: ", " ".join(noted["reasons"]))

    def test_draws_the_step_of_the_plan_that_is_asked_for(self):
        first, second = self.notes["first step"], self.notes["step of 40"]
        row = self.rows[40]
        self.assertTrue(second["gantt"].startswith(row["data-label"] + ": a step of "), second["gantt"])
        self.assertNotEqual(first["gantt"], second["gantt"])
        stages = int(re.search(r"pp=(\d)", row["data-plan"])[1])
        computing = [bar for bar in second["bars"] if bar[0] != "message"]
        self.assertEqual([bar[0] for bar in computing], ["forward", "backward", "update"] * stages)
        forward, backward, update = computing[:3]
        self.assertAlmostEqual(backward[2] / forward[2], 4000 / 3000, places=2)
        self.assertAlmostEqual(update[1] - forward[1], 3 * forward[2], delta=0.1)
        self.assertTrue(forward[3].startswith("forward, microbatch 0, chunk 0: "), forward[3])

    def test_says_when_nothing_timed_or_nothing_at_all_fits(self):
        self.assertIn("no timed plan fits", self.notes[f"limit {self.smallest} 8"]["answer"])
        self.assertIn("no plan of this run fits", self.notes[f"limit {self.smallest - 1} 8"]["answer"])
        self.assertIn(self.notes[f"limit {self.smallest - 1} 8"]["line"],
                      [f'--plan "{row["data-plan"]}"' for row in self.rows if int(row["data-peak"]) == self.smallest])

    def test_the_address_holds_the_view(self):
        noted = self.act('note("view");', f"#show=pareto&sort=peak&down&filter=dp2&fit={self.smallest - 1}")["view"]
        rows = {row["data-plan"]: row for row in self.rows}
        expected = [plan for plan, row in rows.items() if "pareto" in row["data-tags"] and "dp=2" in plan]
        self.assertEqual(noted["plans"], sorted(expected, key=lambda plan: -int(rows[plan]["data-peak"])))
        self.assertGreater(len(expected), 1)
        self.assertIn("no plan of this run fits", noted["answer"])


class Swept(InBrowser):
    """The folder of a real sweep: two limits of memory, between which and above which there are plans."""
    page = FOLDER / "index.html"

    def test_answers_for_two_limits(self):
        self.assertEqual(make_page(FOLDER), (0, ""))
        _, plans = table_of(FOLDER / "run.h5")
        peaks = sorted(set(plans["peak_bytes"]))
        limits = (peaks[len(peaks) // 2], peaks[-1])
        notes = self.act("".join(f"""unit.value = 1024; fit.value = {limit} / 1024; fit.dispatchEvent(new Event("input"));
                                     note("{limit}");""" for limit in limits) + """
            timelines[plan.value].streams = [[0, "compute", [0, 1000, 0, 0, 0,  1050, 1000, 0, 0, 0,
                2200, 1000, 0, 0, 1,  3300, 1000, 1, 0, 1,  4400, 10, 1, 0, 0,  5500, 1000, 0, 0, 2,  7500, 1000, 0, 0, 2]]];
            draw(); note("step");""")
        labels = {row["data-plan"]: row["data-label"] for row in Rows(self.page.read_text(encoding="utf-8")).rows}
        for limit in limits:
            fits = plans[(plans["peak_bytes"] <= limit) & (plans["timed"] == 1)]
            self.assertGreater(len(fits), 0)
            speed = fits["tokens_per_second"]   # of the median step, as the sweeper reckons it
            self.assertIn(f"use {labels[fits['plan'][speed.idxmax()]]}: {speed.max():,.0f} tokens/s",
                          notes[str(limit)]["answer"])
        self.assertGreater(len(notes[str(limits[0])]["bars"]), 4)
        self.number_stands_over_all_bars_of_a_pass(notes["step"])

    def number_stands_over_all_bars_of_a_pass(self, step):
        places = [(bar[1], bar[1] + bar[2]) for bar in step["bars"]]
        self.assertEqual(len(places), 7)
        # The short bar has no room, and of the last two each has its own, for they lie apart.
        self.assertEqual([text for text, _ in step["numbers"]], ["0", "1", "1", "2", "2"])
        for (_, x), first, last in zip(step["numbers"], (0, 2, 3, 5, 6), (1, 2, 3, 5, 6)):
            self.assertAlmostEqual(x, (places[first][0] + places[last][1]) / 2, places=1)


if __name__ == "__main__":
    unittest.main()
