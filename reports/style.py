"""How the pictures look: Okabe and Ito's palette, which colour-blind readers can tell apart; sizes; units."""
import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402  (after the backend is chosen)

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#8A8A8A"
# Ink, lines and paper; on the page they follow light and dark, see inline() of page.py.
INK, LINE, PAPER = BLACK, "#E4E4E4", "#FFFFFF"
# For things side by side, in this order; from the ninth on hatched.
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, GREY]
HATCHES = ["", "///", "xxx", "..."]

pyplot.rcParams.update({
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555",
    "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "xtick.color": "#333333", "ytick.color": "#333333", "legend.frameon": False,
    "figure.constrained_layout.use": True, "svg.fonttype": "path", "svg.hashsalt": "lockstep",
    "hatch.linewidth": 0.6,
})


def look(number):
    """Colour and hatch of the number-th thing."""
    return {"color": PALETTE[number % len(PALETTE)], "hatch": HATCHES[number // len(PALETTE) % len(HATCHES)],
            "edgecolor": "white", "linewidth": 0.6}


def bytes_text(count):
    """1.5 MiB: binary units, three digits."""
    count = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            break
        count /= 1024
    else:
        unit = "TiB"
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"


def bytes_unit(largest):
    """(divisor, name) so that the largest of some counts reads well on an axis."""
    power = 0
    while largest >= 1024 and power < 4:
        largest, power = largest / 1024, power + 1
    return 1024 ** power, ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
