"""What all drawings share: size, colours as roles, axis limits and ticks, and the way to inline SVG.

Colours are roles (ink, arm 3 ...) that the page's style sheet fills in, for light and dark. Names of arms are never
parsed as mathematics, and two drawings on one page share no ids.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulator.measures.intervals import Interval

WIDTH = 3.6  # inches; 72 points each
INK, GRID, PAPER, ARM = "#010203", "#010204", "#010205", "#0102f"
"""Colours that no drawing needs: they stand for var(--ink), var(--grid), var(--paper), var(--arm-N)."""
HUES = 7
"""Colour-blind-safe colours after the first arm's grey; further arms repeat them with another mark and line."""
MARKS, LINES = ("o", "s", "^"), ("solid", (0, (4, 1.5)), (0, (1.2, 1.2)))
SETTINGS: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
}


def hue(index: int) -> int:
    """Number of the style sheet's colour for the arm at `index`: 0 is the neutral of the first arm."""
    return 0 if index == 0 else 1 + (index - 1) % HUES


def look(index: int) -> int:
    """Which mark and line the arm at `index` has: they change once all hues are used."""
    return 0 if index == 0 else (index - 1) // HUES % len(MARKS)


def canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    return figure, axes


def colour(index: int) -> str:
    return f"{ARM}{hue(index):x}"


def line(index: int) -> dict[str, Any]:
    return {"color": colour(index), "linestyle": LINES[look(index)], "linewidth": 1.8 if index == 0 else 1.3}


def span(values: list[Interval], from_zero: bool) -> tuple[float, float]:
    """Axis limits that hold all intervals, with some air; 0 to 1 where there is nothing but zeros."""
    low = min((min(v.low, v.mean) for v in values), default=0.0)
    high = max((max(v.high, v.mean) for v in values), default=0.0)
    if from_zero and low >= 0:
        return 0.0, high * 1.06 or 1.0
    air = 0.08 * (high - low) or 0.02 * abs(high) or 0.5
    return low - air, high + air


def ticks(most: int, **more: Any) -> MaxNLocator:
    return MaxNLocator(most, steps=[1, 2, 5, 10], **more)


def swatch(index: int) -> str:
    """The arm's line and mark, for a legend; SVG of 26 x 12 pixels."""
    dash = {0: "", 1: ' stroke-dasharray="6 2"', 2: ' stroke-dasharray="2 2"'}[look(index)]
    mark = {
        "o": '<circle cx="13" cy="6" r="4"/>',
        "s": '<rect x="9" y="2" width="8" height="8"/>',
        "^": '<path d="M13 1.5 L17.5 10 L8.5 10 Z"/>',
    }[MARKS[look(index)]]
    colour = f"var(--arm-{hue(index)})"
    return (
        f'<svg class="swatch" viewBox="0 0 26 12" width="26" height="12" aria-hidden="true" style="fill:{colour}">'
        f'<path d="M0 6 H26" style="stroke:{colour};stroke-width:1.6"{dash}/>{mark}</svg>'
    )


def svg(figure: Figure, name: str) -> str:
    """The figure as an element to put in a page: no date, no namespaces, roles for colours, ids of its own."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "matplotlib wrote no viewBox"
    text = f'<svg {box[0]} aria-hidden="true">' + text[text.index(">") + 1 :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)  # the page chooses the family
    text = re.sub(r"font-family: [^;\"]*; |\btransform=\"rotate\(-?0 [^\"]*\"", "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text).replace("url(#", f"url(#{name}-")
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    for role, stand_in in {"ink": INK, "grid": GRID, "paper": PAPER}.items():
        text = text.replace(stand_in, f"var(--{role})")
    return re.sub(ARM + "([0-9a-f])", lambda found: f"var(--arm-{int(found[1], 16)})", text)
