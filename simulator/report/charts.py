"""Drawings of a run as inline SVG, and what all drawings share: size, colours as roles, axis limits and ticks.

Every panel is drawn alone, about as wide as a phone, so that a page can set panels side by side or one below another.
Colours are roles (ink, arm 3 ...) that the page's style sheet fills in, for light and dark. Names of arms are never
parsed as mathematics, and two drawings on one page share no ids.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulator.measures.intervals import Interval
from simulator.result import Arm, Curve, Result
from simulator.words import label

WIDTH = 3.6  # inches; 72 points each
INK, GRID, PAPER, ARM = "#010203", "#010204", "#010205", "#0102f"
"""Colours that no drawing needs: they stand for var(--ink), var(--grid), var(--paper), var(--arm-N)."""
HUES = 7
"""Colour-blind-safe colours after the first arm's grey; further arms repeat them with another mark and line."""
SHAPES = {
    "o": '<circle r="4"/>',
    "s": '<rect x="-4" y="-4" width="8" height="8"/>',
    "^": '<path d="M0 -4.5 L4.5 4 L-4.5 4 Z"/>',
    "D": '<path d="M0 -4.5 L4.5 0 L0 4.5 L-4.5 0 Z"/>',
}
"""Marks in legends, around (0, 0)."""
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


def ticks(most: int, **more: Any) -> MaxNLocator:
    return MaxNLocator(most, steps=[1, 2, 5, 10], **more)


def swatch(index: int) -> str:
    """The arm's line and mark, for a legend; SVG of 26 x 12 pixels."""
    dash = {0: "", 1: ' stroke-dasharray="6 2"', 2: ' stroke-dasharray="2 2"'}[look(index)]
    colour = f"var(--arm-{hue(index)})"
    dashes = f'<path d="M-13 0 H13" style="stroke:{colour};stroke-width:1.6"{dash}/>'
    return symbol(26, f"fill:{colour}", dashes + SHAPES[MARKS[look(index)]])


def symbol(width: int, style: str, content: str) -> str:
    """A piece of a legend, `width` x 12 pixels around (0, 0); SVG."""
    box = f'viewBox="{-width / 2:g} -6 {width} 12" width="{width}" height="12"'
    return f'<svg class="swatch" {box} aria-hidden="true" style="{style}">{content}</svg>'


def legend(entries: Iterable[tuple[int, str]]) -> str:
    """Swatches with their words, by number of the look; nothing where there are none."""
    items = "".join(f"<li>{swatch(index)} {escape(words)}</li>" for index, words in entries)
    return items and f'<ul class="legend">{items}</ul>'


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


def exact(value: float) -> Interval:
    """A number that is known."""
    return Interval(value, value, value)


@dataclass(frozen=True)
class Point:
    """A place with its intervals; `label` is written beside it."""

    x: Interval
    y: Interval
    label: str = ""
    key: str = ""
    """What the place stands for, in the label column of the CSV file, where it is not written as `label`."""


@dataclass(frozen=True)
class Line:
    """Points of one colour and mark, joined; `level`: one height across the whole drawing."""

    name: str
    points: list[Point]
    look: int
    """Number of the colour, mark and dash: 0 is the neutral of the reference."""
    level: bool = False
    band: bool = False
    """Whether intervals of y are a band rather than bars."""
    strength: float = 0.8
    """How dark intervals are, 0 to 1."""
    bare: bool = False
    """Whether the line has no marks."""


@dataclass(frozen=True)
class Axis:
    """How one direction of a drawing is drawn."""

    title: str = ""
    marks: dict[float, str] = field(default_factory=dict)
    """Ticks with words of their own, where the numbers are places rather than sizes."""
    zero: bool = False
    """Whether the axis starts at 0."""
    air: float = 0.5
    """How far intervals may reach beyond the means, as a share of the spread of the means; infinite: all are held."""
    whole: bool = False
    """Whether ticks are whole numbers."""

    def limits(self, shown: list[Interval]) -> tuple[float, float]:
        """They hold all means, with some air; intervals may run out of the picture. 0 to 1 where all is zero."""
        means = [value.mean for value in shown] or [0.0]
        low, high = min(0.0, *means) if self.zero else min(means), max(means)
        reach = self.air * ((high - low) or abs(high) or 1.0)
        low = min([low, *(max(value.low, low - reach) for value in shown)])
        high = max([high, *(min(value.high, high + reach) for value in shown)])
        if self.zero and low >= 0:
            return 0.0, high * 1.06 or 1.0
        air = 0.08 * (high - low) or 0.02 * abs(high) or 0.5
        return low - air, high + air


def draw_lines(name: str, lines: list[Line], across: Axis, up: Axis, better: bool = False) -> str:
    """Lines over a number, with their intervals both ways; `better`: an arrow to the lower left. SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(2.7)
        for one in lines:
            _draw(axes, one)
        xs = [point.x for one in lines if not one.level for point in one.points]
        ys = [point.y for one in lines for point in one.points]
        for axis, own, limit, shown in ((across, axes.xaxis, axes.set_xlim, xs), (up, axes.yaxis, axes.set_ylim, ys)):
            own.set_label_text(axis.title)
            limit(*axis.limits(shown))
            if axis.marks:
                own.set_ticks(list(axis.marks), list(axis.marks.values()))
                own.set_minor_locator(matplotlib.ticker.NullLocator())
            else:
                own.set_major_locator(ticks(5, integer=axis.whole, min_n_ticks=1 if axis.whole else 2))
        if better:
            axes.set_ylim(top=axes.get_ylim()[1] * 1.2)  # the strip above the points is for the arrow
            there: Any = {"xycoords": "axes fraction", "textcoords": "axes fraction", "va": "center"}
            axes.annotate("better", (0.03, 0.86), (0.13, 0.97), arrowprops={"arrowstyle": "->", "color": INK}, **there)
        return svg(figure, name)


def _draw(axes: Axes, one: Line) -> None:
    hue, style = colour(one.look), line(one.look)
    if one.level:
        level = one.points[0].y
        axes.axhline(level.mean, **style)
        axes.axhspan(level.low, level.high, color=hue, alpha=0.15, linewidth=0)
        return
    x, y = [p.x.mean for p in one.points], [p.y.mean for p in one.points]
    axes.plot(x, y, **style)
    if one.band:
        low, high = [p.y.low for p in one.points], [p.y.high for p in one.points]
        axes.fill_between(x, low, high, color=hue, alpha=0.15, linewidth=0)
    if one.bare:
        return
    bar: Any = {"color": hue, "linewidth": 0.8, "alpha": one.strength}
    for point in one.points:
        if not one.band:
            axes.vlines(point.x.mean, point.y.low, point.y.high, **bar)
        axes.hlines(point.y.mean, point.x.low, point.x.high, **bar)
        edge: Any = {"markeredgecolor": PAPER, "markeredgewidth": 0.6}
        axes.plot(point.x.mean, point.y.mean, color=hue, marker=MARKS[look(one.look)], markersize=5, **edge)
        if point.label:
            where: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": INK}
            axes.annotate(point.label, (point.x.mean, point.y.mean), (4, 3), **where)


@dataclass(frozen=True)
class Dot:
    """A value with its interval in one of the rows of a drawing, at one of the row's places from the top."""

    row: int
    place: int
    value: Interval
    look: int
    mark: str
    filled: bool = True


def draw_dots(name: str, rows: list[str], places: int, found: list[Dot], across: Axis) -> str:
    """A row for each name with `places` places; SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(0.55 + (0.23 + 0.11 * places) * len(rows))
        for dot in found:
            y, hue = dot.row + (dot.place - (places - 1) / 2) * 0.24, colour(dot.look)
            axes.hlines(y, dot.value.low, dot.value.high, color=hue, linewidth=1.3)
            above: Any = {"markerfacecolor": hue if dot.filled else PAPER, "clip_on": False, "zorder": 3}  # 0: the edge
            axes.plot(dot.value.mean, y, marker=dot.mark, markersize=5, color=hue, **above)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _name_rows(axes, rows)
        axes.set_xlabel(across.title)
        axes.set_xlim(*across.limits([dot.value for dot in found]))
        axes.xaxis.set_major_locator(ticks(4))
        return svg(figure, name)


DOTS = (("o", True), ("D", False), ("s", False))
"""Mark of the first measure in a panel, the second and the third, and whether it is filled."""


def dots(name: str, arms: list[Arm], measures: Sequence[str], from_zero: bool = True) -> str:
    """One row per arm, one dot with its interval per measure that any arm has; SVG."""
    known = [both for both in zip(measures, DOTS, strict=False) if any(both[0] in arm.measures for arm in arms)]
    found = [
        Dot(index, place, value, index, *mark)
        for index, arm in enumerate(arms)
        for place, (measure, mark) in enumerate(known)
        if (value := arm.measures.get(measure)) is not None
    ]
    return draw_dots(name, [label(arm.spec) for arm in arms], len(known), found, Axis(zero=from_zero, air=math.inf))


def over_generations(name: str, result: Result, measure: str, bands: bool, from_zero: bool = True) -> str:
    """One line per arm over the generations, with its interval as a band if wanted; SVG."""
    lines = []
    for index, arm in enumerate(result.arms):
        known = [
            (g.number, g.arms[arm.spec][measure]) for g in result.generations if measure in g.arms.get(arm.spec, {})
        ]
        points = [Point(exact(number), value if bands else exact(value.mean)) for number, value in known]
        lines += [Line(arm.spec, points, index, band=bands, bare=len(points) > 12)] if points else []
    return draw_lines(name, lines, Axis("generation", whole=True), Axis(zero=from_zero, air=math.inf))


def plane(name: str, arms: list[Arm], across: str, up: str, names: tuple[str, str]) -> str:
    """Each arm as a point with its intervals both ways, an arrow to the better corner; SVG."""
    both = [(i, arm.measures.get(across), arm.measures.get(up)) for i, arm in enumerate(arms)]
    lines = [Line(arms[i].spec, [Point(x, y)], i) for i, x, y in both if x is not None and y is not None]
    return draw_lines(name, lines, Axis(names[0], air=math.inf), Axis(names[1], zero=True, air=math.inf), True)


def sampled(curves: list[tuple[int, str, Curve]], gradient: bool) -> list[Line]:
    """Activations, or their gradients, each with its look and name."""
    lines = []
    for index, name, curve in curves:
        ys = curve.gradient if gradient else curve.y
        points = [Point(exact(x), exact(y)) for x, y in zip(curve.x, ys, strict=True)]
        lines.append(Line(name, points, index, bare=True))
    return lines


def _name_rows(axes: Axes, names: list[str]) -> None:
    """Each name left of its row. Not as tick labels: their second line would not end where the first one ends."""
    for index, name in enumerate(names):
        lines = _lines(name)
        for place, text in enumerate(lines):
            down = (place - (len(lines) - 1) / 2) * 10  # points
            where: Any = ("axes fraction", "data")
            offset: Any = {"xytext": (-8, -down), "textcoords": "offset points", "ha": "right", "va": "center"}
            axes.annotate(text, (0, index), xycoords=where, annotation_clip=False, **offset)


def _lines(name: str, longest: int = 16) -> list[str]:
    """A name in its own lines, or in at most three, cut before its bracket or between words; then an ellipsis."""
    if len(name) <= longest or "\n" in name:
        return name.split("\n")
    before, bracket, inside = name.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}").partition(" (")
    lines = textwrap.wrap(before, longest)
    lines += textwrap.wrap(f"({inside}", longest, max_lines=max(1, 3 - len(lines)), placeholder="…") if bracket else []
    return lines[:3]
