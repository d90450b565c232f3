"""Drawings of a run as inline SVG, and what all drawings share: size, colours as roles, axis limits and ticks.

Every panel is drawn alone, about as wide as a phone, so that a page can set panels side by side or one below another.
Colours are roles (ink, arm 3 ...) that the page's style sheet fills in, for light and dark. Names of arms are never
parsed as mathematics, and two drawings on one page share no ids.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulator.measures.intervals import Interval
from simulator.report.result import Arm, Curve, Measures, Result
from simulator.report.words import label

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


@dataclass(frozen=True)
class Series:
    """One measure of a dot panel, with the mark that stands for it."""

    measure: str
    mark: str = "o"
    filled: bool = True


def dots(name: str, arms: list[Arm], series: list[Series], from_zero: bool = True) -> str:
    """One row per arm, one dot with its interval per series; SVG."""
    with matplotlib.rc_context(SETTINGS):
        row = 0.23 + 0.11 * len(series)
        figure, axes = canvas(0.55 + row * len(arms))
        shown = []
        for index, arm in enumerate(arms):
            for place, one in enumerate(series):
                value = arm.measures.get(one.measure)
                if value is not None:
                    shown.append(value)
                    y = index + (place - (len(series) - 1) / 2) * 0.24
                    _dot(axes, value, y, index, one)
        axes.set_yticks([])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        _name_rows(axes, arms)
        axes.set_xlim(*span(shown, from_zero))
        axes.xaxis.set_major_locator(ticks(4))
        return svg(figure, name)


def over_generations(name: str, result: Result, measure: str, bands: bool, from_zero: bool = True) -> str:
    """One line per arm over the generations, with its interval as a band if wanted; SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(2.4)
        shown = []
        for index, arm in enumerate(result.arms):
            points = [(g.number, g.arms[arm.spec][measure]) for g in result.generations if _has(g.arms, arm, measure)]
            if not points:
                continue
            x, values = [number for number, _ in points], [value for _, value in points]
            shown += values if bands else [Interval(v.mean, v.mean, v.mean) for v in values]
            style = line(index) | ({"marker": MARKS[look(index)], "markersize": 3.5} if len(points) <= 12 else {})
            axes.plot(x, [value.mean for value in values], clip_on=False, **style)
            if bands:
                low, high = [value.low for value in values], [value.high for value in values]
                axes.fill_between(x, low, high, color=colour(index), alpha=0.18, linewidth=0)
        axes.set_ylim(*span(shown, from_zero))
        axes.set_xlabel("generation")
        axes.xaxis.set_major_locator(ticks(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(ticks(5))
        return svg(figure, name)


def plane(name: str, arms: list[Arm], across: str, up: str, names: tuple[str, str]) -> str:
    """Each arm as a point with its intervals both ways, an arrow to the better corner; SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(3.2)
        both = [(i, arm.measures.get(across), arm.measures.get(up)) for i, arm in enumerate(arms)]
        placed = [(i, x, y) for i, x, y in both if x is not None and y is not None]
        for index, x, y in placed:
            hue = colour(index)
            axes.hlines(y.mean, x.low, x.high, color=hue, linewidth=1.1)
            axes.vlines(x.mean, y.low, y.high, color=hue, linewidth=1.1)
            axes.plot(x.mean, y.mean, color=hue, marker=MARKS[look(index)], markersize=6.5, clip_on=False)
        axes.set_xlim(*span([x for _, x, _ in placed], from_zero=False))
        bottom, top = span([y for _, _, y in placed], from_zero=True)
        axes.set_ylim(bottom, top * 1.2)  # the strip above the points is for the arrow
        axes.annotate(
            "better",
            (0.03, 0.86),
            (0.13, 0.97),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "->", "color": INK},
        )
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.xaxis.set_major_locator(ticks(4))
        axes.yaxis.set_major_locator(ticks(5))
        return svg(figure, name)


def curves(name: str, arms: list[Arm], gradient: bool) -> str:
    """The activations, or their gradients, over the input; SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(2.6)
        for index, arm in enumerate(arms):
            curve: Curve | None = arm.activation
            if curve is not None:
                axes.plot(curve.x, curve.gradient if gradient else curve.y, **line(index))
        axes.set_xlabel("input x")
        axes.xaxis.set_major_locator(ticks(6))
        axes.yaxis.set_major_locator(ticks(5))
        return svg(figure, name)


def _dot(axes: Axes, value: Interval, y: float, index: int, one: Series) -> None:
    hue = colour(index)
    axes.hlines(y, value.low, value.high, color=hue, linewidth=1.3)
    face = hue if one.filled else PAPER
    axes.plot(value.mean, y, marker=one.mark, markersize=5, color=hue, markerfacecolor=face, clip_on=False)


def _has(arms: dict[str, Measures], arm: Arm, measure: str) -> bool:
    return measure in arms.get(arm.spec, {})


def _name_rows(axes: Axes, arms: list[Arm]) -> None:
    """Each arm's name left of its row. Not as tick labels: their second line would not end where the first one ends."""
    for index, arm in enumerate(arms):
        lines = _lines(label(arm.spec))
        for place, text in enumerate(lines):
            down = (place - (len(lines) - 1) / 2) * 10  # points
            where: Any = ("axes fraction", "data")
            offset: Any = {"xytext": (-8, -down), "textcoords": "offset points", "ha": "right", "va": "center"}
            axes.annotate(text, (0, index), xycoords=where, annotation_clip=False, **offset)


def _lines(name: str, longest: int = 16) -> list[str]:
    """A name in at most two lines, cut before its bracket if it has one; what is longer ends in an ellipsis."""
    if len(name) <= longest:
        return [name]
    bracket = name.find(" (")
    lines = [name[:bracket], name[bracket + 1 :]] if 0 < bracket <= longest else [name[:longest], name[longest:]]
    return [line if len(line) <= longest else line[: longest - 1] + "…" for line in lines]
