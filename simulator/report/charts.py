"""The one kit of drawings: points become inline SVG and the rows of a CSV file, so that the two cannot disagree.

Every panel is drawn alone, about as wide as a phone, so that a page can set panels side by side or one below another.
Colours are roles (ink, arm 3 ...) that the page's style sheet fills in, for light and dark. Names of arms are never
parsed as mathematics, and two drawings on one page share no ids.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import MaxNLocator

from simulator.files import as_csv
from simulator.measures.words import label
from simulator.report.kit import hue, look
from simulator.result import Arm, Curve, Result
from simulator.types import Interval, exact

WIDTH = 3.6  # inches; 72 points each
INK, GRID, PAPER, ARM = "#010203", "#010204", "#010205", "#0102f"
"""Colours that no drawing needs: they stand for var(--ink), var(--grid), var(--paper), var(--arm-N)."""
SHAPES = {
    "o": '<circle r="4"/>',
    "s": '<rect x="-4" y="-4" width="8" height="8"/>',
    "^": '<path d="M0 -4.5 L4.5 4 L-4.5 4 Z"/>',
    "D": '<path d="M0 -4.5 L4.5 0 L0 4.5 L-4.5 0 Z"/>',
}
"""Marks in legends, around (0, 0)."""
DOTS = (("o", True), ("D", False), ("s", False))
"""Mark of the first measure in a panel, the second and the third, and whether it is filled."""
COLUMNS = ("panel", "series", "label", "x", "x_low", "x_high", "y", "y_low", "y_high", "z")
"""Columns of a figure's CSV file; z is the height of a surface."""
NO_CELLS = ("", "", "")
ZERO_NOTE = "This axis does not start at 0."
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


def canvas(height: float) -> tuple[MplFigure, Axes]:
    figure = MplFigure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    return figure, axes


def colour(index: int) -> str:
    return f"{ARM}{hue(index):x}"


def line(index: int) -> dict[str, Any]:
    return {"color": colour(index), "linestyle": LINES[look(index)], "linewidth": 1.8 if index == 0 else 1.3}


def ticks(maximum: int, **more: Any) -> MaxNLocator:
    return MaxNLocator(maximum, steps=[1, 2, 5, 10], **more)


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


def svg(figure: MplFigure, name: str) -> str:
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
    return re.sub(ARM + "([0-9a-f])", lambda match: f"var(--arm-{int(match[1], 16)})", text)


@dataclass(frozen=True)
class Point:
    """A place with its intervals; `label` is written beside it."""

    x: Interval
    y: Interval
    label: str = ""
    key: str = ""
    """Its label in the CSV file, where it is not written as `label`."""
    look: int | None = None
    """Number of its own colour, where it is not its line's."""


@dataclass(frozen=True)
class Line:
    """Points of one colour and mark, joined."""

    name: str
    points: list[Point]
    look: int
    """Number of the colour, mark and dash: 0 is the neutral of the reference."""
    band: bool = False
    """Whether intervals of y are a band rather than bars."""
    strength: float = 0.8
    """How dark intervals are, 0 to 1."""
    bare: bool = False
    """Whether the line has no marks."""
    mark: int | None = None
    """Number of its mark in DOTS, where colours mean something else."""


@dataclass(frozen=True)
class Axis:
    """How one direction of a drawing is drawn."""

    title: str = ""
    marks: dict[float, str] = field(default_factory=dict)
    """Ticks with labels, where the numbers are places rather than sizes."""
    zero: bool = False
    """Whether the axis starts at 0."""
    air: float = 0.5
    """How far intervals may reach beyond the means, as a share of the spread of the means; infinite: all are held."""
    whole: bool = False
    """Whether ticks are whole numbers."""

    def limits(self, intervals: list[Interval]) -> tuple[float, float]:
        """They hold all means, with some air; intervals may run out of the picture. 0 to 1 where all is zero."""
        means = [value.mean for value in intervals] or [0.0]
        low, high = min(0.0, *means) if self.zero else min(means), max(means)
        reach = self.air * ((high - low) or abs(high) or 1.0)
        low = min([low, *(max(value.low, low - reach) for value in intervals)])
        high = max([high, *(min(value.high, high + reach) for value in intervals)])
        if self.zero and low >= 0:
            return 0.0, high * 1.06 or 1.0
        air = 0.08 * (high - low) or 0.02 * abs(high) or 0.5
        return low - air, high + air


@dataclass(frozen=True)
class Panel:
    """One drawing and its data."""

    name: str
    heading: str
    svg: str
    rows: list[tuple[Any, ...]]
    """In the order of COLUMNS."""
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """Panels that show one claim; without panels, `claim` says why there is nothing to draw."""

    number: int
    name: str
    claim: str
    panels: list[Panel] = field(default_factory=list)
    legend: list[tuple[int, str]] = field(default_factory=list)
    """Number of the look, and its label."""
    note: str = ""
    """What the panels show and how to read them."""
    marks: tuple[str, ...] = ()
    """Labels of DOTS, in place of a legend of looks; the first is their heading."""

    @property
    def key(self) -> list[tuple[str, str]]:
        """The legend: symbols and their words."""
        style = "fill:var(--{});stroke:var(--ink)"
        symbols = [symbol(12, style.format("ink" if filled else "paper"), SHAPES[shape]) for shape, filled in DOTS]
        looks = [(swatch(look), words) for look, words in self.legend]
        return [*looks, *zip(symbols, self.marks[1:], strict=False)] if self.marks else looks

    def csv(self) -> str:
        """What was drawn, a row per point."""
        return as_csv([COLUMNS, *(row for panel in self.panels for row in panel.rows)])


def _rows(name: str, lines: list[Line], up: bool = True) -> Iterator[tuple[Any, ...]]:
    for line in lines:
        for point in line.points:
            y = _cells(point.y) if up else NO_CELLS
            yield (name, line.name, point.key or point.label, *_cells(point.x), *y, "")


def _cells(value: Interval) -> tuple[Any, ...]:
    """Mean and limits; an exact number has none."""
    return (value.mean, value.low, value.high) if value.known else (value.mean, "", "")


def chart(
    name: str, heading: str, lines: list[Line], across: Axis, up: Axis, note: str = "", better: bool = False
) -> Panel:
    """Lines over a number, with their intervals both ways; `better`: an arrow to the lower left."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(2.7)
        for line in lines:
            _draw(axes, line)
        xs = [point.x for line in lines for point in line.points]
        ys = [point.y for line in lines for point in line.points]
        directions = (across, axes.xaxis, axes.set_xlim, xs), (up, axes.yaxis, axes.set_ylim, ys)
        for axis, axis_of, limit, shown in directions:
            axis_of.set_label_text(axis.title)
            limit(*axis.limits(shown))
            if axis.marks:
                axis_of.set_ticks(list(axis.marks), list(axis.marks.values()))
                axis_of.set_minor_locator(matplotlib.ticker.NullLocator())
            else:
                axis_of.set_major_locator(ticks(5, integer=axis.whole, min_n_ticks=1 if axis.whole else 2))
        if better:
            axes.set_ylim(top=axes.get_ylim()[1] * 1.2)  # the strip above the points is for the arrow
            where: Any = {"xycoords": "axes fraction", "textcoords": "axes fraction", "va": "center"}
            axes.annotate("better", (0.03, 0.86), (0.13, 0.97), arrowprops={"arrowstyle": "->", "color": INK}, **where)
        return Panel(name, heading, svg(figure, name), list(_rows(name, lines)), note)


def _draw(axes: Axes, series: Line) -> None:
    hue, style = colour(series.look), line(series.look)
    x, y = [p.x.mean for p in series.points], [p.y.mean for p in series.points]
    axes.plot(x, y, **style)
    if series.band:
        low, high = [p.y.low for p in series.points], [p.y.high for p in series.points]
        axes.fill_between(x, low, high, color=hue, alpha=0.15, linewidth=0)
    if series.bare:
        return
    bar: Any = {"color": hue, "linewidth": 0.8, "alpha": series.strength}
    for point in series.points:
        if not series.band:
            axes.vlines(point.x.mean, point.y.low, point.y.high, **bar)
        axes.hlines(point.y.mean, point.x.low, point.x.high, **bar)
        edge: Any = {"markeredgecolor": PAPER, "markeredgewidth": 0.6}
        axes.plot(point.x.mean, point.y.mean, color=hue, marker=MARKS[look(series.look)], markersize=5, **edge)
        if point.label:
            where: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": INK}
            axes.annotate(point.label, (point.x.mean, point.y.mean), (4, 3), **where)


def dots(name: str, heading: str, lines: list[Line], across: Axis, note: str = "") -> Panel:
    """A row for each label, in which every line has its dot; only x is used."""
    rows = list(dict.fromkeys(point.label for line in lines for point in line.points))
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(0.55 + (0.23 + 0.11 * len(lines)) * len(rows))
        for place, line in enumerate(lines):
            mark, filled = (MARKS[look(line.look)], True) if line.mark is None else DOTS[line.mark]
            for point in line.points:
                y = rows.index(point.label) + (place - (len(lines) - 1) / 2) * min(0.24, 0.8 / len(lines))
                hue = colour(line.look if point.look is None else point.look)
                axes.hlines(y, point.x.low, point.x.high, color=hue, linewidth=1.3)
                marker: Any = {
                    "markerfacecolor": hue if filled else PAPER,
                    "clip_on": False,
                    "zorder": 3,
                }  # 0: the edge
                axes.plot(point.x.mean, y, marker=mark, markersize=5, color=hue, **marker)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _name_rows(axes, rows)
        axes.set_xlabel(across.title)
        axes.set_xlim(*across.limits([point.x for line in lines for point in line.points]))
        axes.xaxis.set_major_locator(ticks(4))
        return Panel(name, heading, svg(figure, name), list(_rows(name, lines, up=False)), note)


def arm_dots(heading: str, arms: list[Arm], measures: Sequence[str], zero: bool = True) -> Panel | None:
    """One row per arm, one dot with its interval per measure that any arm has; None where none has any."""
    lines: list[Line] = []
    for measure in measures:
        values = [(n, arm.spec, arm.measures[measure]) for n, arm in enumerate(arms) if measure in arm.measures]
        points = [Point(value, exact(0), label(spec), look=n) for n, spec, value in values]
        lines += [Line(measure, points, 0, mark=len(lines))] if points else []
    name = f"dots-{'-'.join(measures)}".replace(".", "-").replace("_", "-")
    return dots(name, heading, lines, Axis(zero=zero, air=math.inf), "" if zero else ZERO_NOTE) if lines else None


def over_generations(result: Result, measure: str, heading: str, bands: bool, zero: bool = True) -> Panel | None:
    """One line per arm over the generations, with its interval as a band if wanted; None where nothing is known."""
    lines = []
    for index, arm in enumerate(result.arms):
        measures = [(one.number, one.arms.get(arm.spec, {})) for one in result.generations]
        values = [(number, known[measure]) for number, known in measures if measure in known]
        points = [Point(exact(number), value if bands else exact(value.mean)) for number, value in values]
        lines += [Line(arm.spec, points, index, band=bands, bare=len(points) > 12)] if points else []
    if not lines:
        return None
    axes = Axis("generation", whole=True), Axis(zero=zero, air=math.inf)
    return chart(f"time-{measure}".replace(".", "-"), heading, lines, *axes, "" if zero else ZERO_NOTE)


def plane(arms: list[Arm], across: tuple[str, str], up: tuple[str, str]) -> Panel | None:
    """Each arm as a point with its intervals both ways, an arrow to the better corner: measures and their words."""
    pairs = [(i, arm.measures.get(across[0]), arm.measures.get(up[0])) for i, arm in enumerate(arms)]
    lines = [Line(arms[i].spec, [Point(x, y)], i) for i, x, y in pairs if x is not None and y is not None]
    if not lines:
        return None
    heading = f"{up[1][0].upper()}{up[1][1:]} against {across[1]}"
    axes = Axis(across[1], air=math.inf), Axis(up[1], zero=True, air=math.inf)
    return chart(f"plane-{across[0]}-{up[0]}".replace(".", "-"), heading, lines, *axes, better=True)


def activation_panels(curves: list[tuple[int, str, Curve]], names: tuple[str, str]) -> list[Panel]:
    """Activations and their gradients, each with its look and name."""
    panels = []
    for name, heading, of in zip(names, ("Activation", "Its gradient"), ("y", "gradient"), strict=True):
        lines = []
        for index, words, curve in curves:
            points = [Point(exact(x), exact(y)) for x, y in zip(curve.x, getattr(curve, of), strict=True)]
            lines.append(Line(words, points, index, bare=True))
        panels.append(chart(name, heading, lines, Axis("input x"), Axis()))
    return panels


def _name_rows(axes: Axes, names: list[str]) -> None:
    """Each name left of its row. Not as tick labels: their second line would not end where the first one ends."""
    for index, name in enumerate(names):
        lines = _lines(name)
        for place, text in enumerate(lines):
            down = (place - (len(lines) - 1) / 2) * 10  # points
            where: Any = ("axes fraction", "data")
            offset: Any = {"xytext": (-8, -down), "textcoords": "offset points", "ha": "right", "va": "center"}
            axes.annotate(text, (0, index), xycoords=where, annotation_clip=False, **offset)


def _lines(name: str) -> list[str]:
    """A name in its own lines, or in at most three, cut before its bracket or between words; then an ellipsis."""
    width = 16
    if len(name) <= width or "\n" in name:
        return name.split("\n")
    before, bracket, inside = name.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}").partition(" (")
    lines = textwrap.wrap(before, width)
    lines += textwrap.wrap(f"({inside}", width, max_lines=max(1, 3 - len(lines)), placeholder="…") if bracket else []
    return lines[:3]
