"""What `make bench` measured of the kernels (kernels.json beside the run file, as Google Benchmark writes it): each
set of kernels against the plain one, and against the processor's peak."""
import html
import json
import math
from collections import defaultdict

FILE = "kernels.json"


class Refused(Exception):
    """The file is not what Google Benchmark writes."""


def read(path):
    """[(kernel, set, shape, seconds, {counter: value})]; names are kernel/set/shape."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        times = []
        for entry in entries:
            parts = entry["name"].split("/")
            if entry.get("run_type") == "aggregate" or len(parts) < 3 or entry.get("error_occurred"):
                continue
            seconds = entry["cpu_time"] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[entry["time_unit"]]
            times.append((parts[0], parts[1], "/".join(parts[2:]), seconds, entry))
        return times
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Refused(f"{path.name} cannot be read: it must be what `make bench` writes ({error})") from error


def summary(times):
    """A row per kernel: {"kernel", "shapes", "ratios": {set: geometric mean of plain time / its time}, "peak": best
    share of the fma peak in % or None, "rate": best GB/s or None}."""
    by_kernel = defaultdict(dict)
    for kernel, isa, shape, seconds, counters in times:
        by_kernel[kernel][shape, isa] = (seconds, counters)
    rows = []
    for kernel, cases in by_kernel.items():
        ratios = defaultdict(list)
        for (shape, isa), (seconds, _) in cases.items():
            if isa != "plain" and (shape, "plain") in cases:
                ratios[isa].append(cases[shape, "plain"][0] / seconds)
        best = {name: max((counters[name] for _, counters in cases.values() if name in counters), default=None)
                for name in ("peak%", "GB/s")}
        rows.append({"kernel": kernel, "shapes": len({shape for shape, _ in cases}),
                     "ratios": {isa: math.exp(sum(map(math.log, values)) / len(values)) for isa, values in ratios.items()},
                     "peak": best["peak%"], "rate": best["GB/s"]})
    return rows


def table(folder):
    """The page's section, or nothing where no kernels were measured."""
    path = folder / FILE
    if not path.is_file():
        return ""
    try:
        rows = summary(read(path))
    except Refused as refusal:
        return f"<h2>The kernels</h2>\n<p>{html.escape(str(refusal))}.</p>"
    sets = sorted({isa for row in rows for isa in row["ratios"]})
    if not rows:
        return ""
    heads = "".join(f'<th scope="col" class="number"><span>{text}</span></th>'
                    for text in ("shapes", *(f"{html.escape(isa)} against plain" for isa in sets), "of the FMA peak", "bytes"))
    lines = []
    for row in rows:
        cells = [str(row["shapes"]), *(f"{row['ratios'][isa]:.1f} ×" if isa in row["ratios"] else "" for isa in sets),
                 "" if row["peak"] is None else f"{row['peak']:.0f} %", "" if row["rate"] is None else f"{row['rate']:.0f} GB/s"]
        lines.append(f"<tr><td><code>{html.escape(row['kernel'])}</code></td>"
                     + "".join(f'<td class="number">{cell}</td>' for cell in cells) + "</tr>")
    return ("<h2>The kernels</h2>\n<p>What <code>make bench</code> measured, one thread: how many times faster than the "
            "plain kernels, as a mean over shapes; and at the best shape, what part of the processor's peak of fused "
            "multiply-adds, or how many bytes a second.</p>\n"
            f'<table class="small"><thead><tr><th scope="col"><span>kernel</span></th>{heads}</tr></thead>\n'
            f"<tbody>{chr(10).join(lines)}</tbody></table>")
