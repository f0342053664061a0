"""Tests of the planner's page. They need folders that suites/tests/program_plan_test.cpp has filled:

    reports/plan_page_test.py FOLDER      exit status 77: skipped, the last line says why
"""
import re
import shutil
import unittest

import h5py
import pandas

from reports_test import FOLDER, UNITS, InBrowser, Rows, make_page
import plan_file
import plan_pictures


def table_of(path):
    with h5py.File(path) as file:
        plans = pandas.DataFrame({"plan": file["plans/plan"].asstr()[:], "speed": file["plans/tokens_per_second"][:]})
        for medium in ("device", "host", "disk"):
            plans[medium] = file[f"plans/bytes/{medium}"][:]
        return dict(file.attrs), plans


def made_once(name, done={}):
    """The page's text."""
    if name not in done:
        done[name] = make_page(FOLDER / name)
    assert done[name] == (0, ""), done[name]
    return (FOLDER / name / "index.html").read_text(encoding="utf-8")


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = made_once("fits")
        cls.rows = Rows(cls.text).rows
        cls.facts, cls.plans = table_of(FOLDER / "fits" / "plan.h5")

    def test_an_answer_that_lacks_plans_is_refused(self):
        lacking = FOLDER / "lacking.h5"
        shutil.copy(FOLDER / "fits" / "plan.h5", lacking)
        with h5py.File(lacking, "r+") as file:
            file.attrs["fit"] += 1
        status, said = make_page(lacking)
        self.assertEqual(status, 2)
        self.assertIn(f"it does not hold the {self.facts['fit'] + 1} plans that it says fit", said)

    def test_needs_nothing_else(self):
        self.assertNotRegex(self.text, r'(src|href)="(?!#|data:)')
        self.assertNotRegex(self.text, r"@import|url\((?!#)")

    def test_identifiers_are_unique(self):
        names = re.findall(r'\bid="([^"]+)"', self.text)
        self.assertEqual(len(names), len(set(names)))

    def test_pictures_lie_beside_it(self):
        pictures = sorted(path.name for path in (FOLDER / "fits" / "plots").iterdir())
        names = ["each_choice", "memory_by_kind", "memory_speed", "step_parts"]
        self.assertEqual(pictures, [f"{name}.{kind}" for name in names for kind in ("png", "svg")])

    def test_says_what_to_use_and_that_it_is_foretold(self):
        said = re.search(r'<div class="verdict foretold">\s*<strong>(.*?)</strong>(.*?)</div>', self.text, flags=re.S)
        self.assertEqual(said[1], f"Predicted on 4 × four small ones: use {self.plans.plan[0]}")
        self.assertIn(f"{self.plans.speed[0]:,.0f} tokens/s", said[2])
        self.assertIn("Nothing was run", said[2])
        seconds, flops, peak = 8 * 32 / self.plans.speed[0], self.facts["model_flops"], self.facts["peak_flops"]
        self.assertIn(f"</b>, {100 * flops / (seconds * peak):.1f} % of the devices' peak", said[2])
        held, there = re.search(r"([\d.]+) MiB of ([\d.]+) MiB on the device", said[2]).groups()
        self.assertAlmostEqual(float(held), self.plans.device[0] / 2**20, delta=0.005)
        self.assertAlmostEqual(float(there), 0.003 * 1024, delta=0.005)
        self.assertIn(f"The best of <b>{len(self.plans):,}</b> plans that fit, of {self.facts['legal']:,} legal ones", said[2])
        with h5py.File(FOLDER / "fits" / "plan.h5") as file:
            known = [line.strip().replace("`", "") for line in file.attrs["alike"].splitlines()]
        self.assertIn("within 1 % of the first", known[0])
        self.assertIn("; ".join(known)[1:] + ".", re.sub(r"</?code>", "", said[2]))
        self.assertEqual(self.text.count("redicted on 4 × four small ones"), 2 + 4)   # title, verdict, each picture

    def test_the_front_is_what_nothing_dominates(self):
        def dominated(a):
            return any(b.speed >= a.speed and b.device <= a.device and (b.speed, b.device) != (a.speed, a.device)
                       for b in self.plans.itertuples())
        front = {(plan.speed, plan.device) for plan in self.plans.itertuples() if not dominated(plan)}
        tagged = [row["data-plan"] for row in self.rows if "pareto" in row["data-tags"]]
        found = self.plans[self.plans.plan.isin(tagged)]
        self.assertEqual({(plan.speed, plan.device) for plan in found.itertuples()}, front)
        self.assertGreater(len(front), 3)
        points = {int(row) for row in re.findall(r'id="memory_speed-plan-(\d+)"', self.text)}
        self.assertEqual(set(self.plans.plan[sorted(points)]), set(tagged))

    def test_a_step_in_time_is_of_the_plan_beside_it(self):
        with h5py.File(FOLDER / "fits" / "plan.h5") as file:
            top = list(file["top/plan"].asstr()[:])
        buttons = re.findall(r'<tr [^>]*data-plan="([^"]*)"(?:(?!</tr>).)*?data-gantt="(\d+)"', self.text, flags=re.S)
        self.assertEqual([(plan, int(row)) for plan, row in buttons], [(plan, row) for row, plan in enumerate(top)])
        self.assertNotEqual(top, list(self.plans.plan[:len(top)]))   # there are twins among the first

    def test_the_table_has_the_fastest_and_says_what_it_left_out(self):
        shown = [row["data-plan"] for row in self.rows]
        self.assertEqual(shown[:100], list(self.plans.plan[:100]))
        self.assertLess(len(shown), len(self.plans))
        self.assertIn(f"Of {len(self.plans):,} plans that fit", self.text)

    def test_the_record_reproduces_it(self):
        self.assertIn("--batch 8 --seq 32", self.text)
        self.assertIn("<pre>name = &quot;four small ones&quot;", self.text)

    def test_nothing_fits(self):
        text = made_once("nothing")
        facts, _ = table_of(FOLDER / "nothing" / "plan.h5")
        self.assertIn("<strong>No plan fits 4 × four small ones</strong>", text)
        self.assertIn(f"<code>{facts['closest']}</code>, lacks ", text)


class PlannersPictures(unittest.TestCase):
    """Bars and points as matplotlib has them are what the record holds."""

    @classmethod
    def setUpClass(cls):
        cls.answer = plan_file.read(FOLDER / "fits" / "plan.h5")
        cls.facts, cls.plans = table_of(FOLDER / "fits" / "plan.h5")
        with h5py.File(FOLDER / "fits" / "plan.h5") as file:
            cls.memory = {kind: column[:] for kind, column in file["top/memory"].items()}
            cls.time = {kind: column[:] for kind, column in file["top/time"].items()}
            cls.top = {"seconds": file["top/seconds"][:], "device": file["top/bytes/device"][:]}

    @classmethod
    def tearDownClass(cls):
        plan_pictures.pyplot.close("all")

    def test_points_are_memory_and_speed(self):
        axes = plan_pictures.memory_against_speed(self.answer).axes[0]
        unit = UNITS[re.search(r"\[(.*)\]", axes.get_xlabel())[1]]
        points = sorted((round(x * unit), round(y, 3)) for group in axes.collections for x, y in group.get_offsets())
        expected = sorted((round(plan.device), round(plan.speed, 3)) for plan in self.plans.itertuples())
        self.assertEqual(len(points), len(expected))
        wrong = [pair for pair in zip(points, expected) if pair[0] != pair[1]]
        self.assertEqual(wrong[:3], [])

    def test_memory_is_stacked_by_kind(self):
        axes = plan_pictures.memory_by_kind(self.answer).axes[0]
        unit, ends = UNITS[re.search(r"\[(.*)\]", axes.get_xlabel())[1]], [0] * len(self.top["device"])
        for group in axes.containers:
            for row, bar in enumerate(group):
                self.assertAlmostEqual(bar.get_width() * unit, self.memory[group.get_label()][row], delta=1)
                self.assertAlmostEqual(bar.get_x(), ends[row])
                ends[row] = bar.get_x() + bar.get_width()
        marks = next(line for line in axes.lines if line.get_label() == "needed in all")
        for mark, needed in zip(marks.get_xdata(), self.top["device"], strict=True):
            self.assertAlmostEqual(mark * unit, needed, delta=1)

    def test_a_steps_parts_are_the_step(self):
        axes = plan_pictures.time_by_kind(self.answer).axes[0]
        unit, ends = {"s": 1, "ms": 1e-3}[re.search(r"\[(.*)\]", axes.get_xlabel())[1]], [0] * len(self.top["seconds"])
        names = {"forward, backward": "compute", "idle (bubble)": "bubble", "waiting for copies": "offload copies"}
        for group in axes.containers:
            name = group.get_label()
            kind = names.get(name, name.replace("waiting for", "exposed"))
            for row, bar in enumerate(group):
                self.assertAlmostEqual(bar.get_width() * unit, self.time[kind][row], places=9)
                self.assertAlmostEqual(bar.get_x(), ends[row])
                ends[row] = bar.get_x() + bar.get_width()
        for end, seconds in zip(ends, self.top["seconds"], strict=True):
            self.assertAlmostEqual(end * unit / seconds, 1, delta=0.005)   # what is least is left out

    def test_each_choice_is_a_part_of_the_best(self):
        figure = plan_pictures.each_choice(self.answer)
        panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == "tp")
        values = [text.get_text() for text in panel.get_yticklabels()]
        self.assertEqual(values, ["1", "2", "4"])
        for value, bar in zip(values, panel.patches, strict=True):
            best = self.plans.speed[self.plans.plan.str.contains(f" tp={value} ")].max()
            self.assertAlmostEqual(bar.get_width(), 100 * best / self.plans.speed.max())
        said = [text.get_text() for text in panel.texts]
        self.assertEqual(said, [f"{bar.get_width():.0f}" for bar in panel.patches])


class Browser(InBrowser):
    page = FOLDER / "fits" / "index.html"

    def test_answers_for_less_memory_and_draws(self):
        made_once("fits")
        facts, plans = table_of(FOLDER / "fits" / "plan.h5")
        device = plans.device[plans.host == 0].quantile(0.3)
        notes = self.act(f"""note("all"); limits.device.value = {device} / GiB; limits.device.dispatchEvent(new Event("input"));
            note("less"); limits.host.value = 0; limits.host.dispatchEvent(new Event("input")); note("no host");
            limits.device.value = 1e-9; limits.device.dispatchEvent(new Event("input")); note("none");
            filter.value = "zero3"; filter.dispatchEvent(new Event("input")); note("filtered");
            document.querySelector("[data-gantt='2']").click(); note("third");""")
        for name, fits in (("all", plans), ("less", plans[plans.device <= device]),
                           ("no host", plans[(plans.device <= device) & (plans.host == 0)])):
            self.assertIn(f": {fits.speed.max():,.0f} tokens/s", notes[name]["answer"], name)
            again, line = re.fullmatch(r'(.*) --explain "(.*)"', notes[name]["line"]).groups()
            self.assertEqual(again, facts["again"])
            self.assertEqual(fits.speed[fits.plan == line].tolist(), [fits.speed.max()])
        self.assertIn("No plan fits", notes["none"]["answer"])
        self.assertTrue(all("zero=3" in plan for plan in notes["filtered"]["plans"]) and notes["filtered"]["plans"])
        self.assertTrue(notes["all"]["gantt"].startswith("1: ") and notes["third"]["gantt"].startswith("3: "))
        self.assertGreater(len(notes["third"]["bars"]), 4)


if __name__ == "__main__":
    unittest.main()
