"""What is drawn, as data: the same points become a picture and the rows of a CSV file, so the two cannot disagree."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from simulator.measures.intervals import Interval
from simulator.report.charts import INK, MARKS, PAPER, SETTINGS, canvas, colour, line, look, span, svg, ticks

HEIGHT = 2.7
"""Inches of a panel."""
COLUMNS = ("panel", "series", "label", "x", "x_low", "x_high", "y", "y_low", "y_high", "z")
"""Of a figure's CSV file; z is the height of a surface."""
NOTHING = ("", "", "")


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
    """Points of one colour and mark, joined in their order if wanted; `level`: one height across the whole panel."""

    name: str
    points: list[Point]
    look: int
    """Number of the colour, mark and dash: 0 is the neutral of the reference."""
    joined: bool = True
    level: bool = False
    band: bool = False
    """Whether intervals of y are a band rather than bars."""
    strength: float = 0.8
    """How dark intervals are, 0 to 1."""
    bare: bool = False
    """Whether the line has no marks."""


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
class Axis:
    """How one direction of a chart is drawn."""

    title: str
    marks: dict[float, str] = field(default_factory=dict)
    """Ticks with words of their own, where the numbers are places rather than sizes."""
    zero: bool = False
    """Whether the axis starts at 0."""
    air: float = 0.5
    """How far intervals may reach beyond the means, as a share of the spread of the means."""


def chart(name: str, heading: str, lines: list[Line], across: Axis, up: Axis, note: str = "") -> Panel:
    """Lines over a number, with their intervals both ways."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(HEIGHT)
        for one in lines:
            _draw(axes, one)
        _limits(axes, lines, across, up)
        axes.set_xlabel(across.title)
        axes.set_ylabel(up.title)
        return Panel(name, heading, svg(figure, name), list(_rows(name, lines)), note)


def dots(name: str, heading: str, lines: list[Line], across: Axis, note: str = "") -> Panel:
    """A row for each label, in which every line has its dot; only x is used."""
    labels = list(dict.fromkeys(point.label for one in lines for point in one.points))
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(0.55 + (0.18 + 0.09 * len(lines)) * len(labels))
        for place, one in enumerate(lines):
            shift = (place - (len(lines) - 1) / 2) * 0.24
            for point in one.points:
                y = labels.index(point.label) + shift
                axes.hlines(y, point.x.low, point.x.high, color=colour(one.look), linewidth=1.3)
                axes.plot(point.x.mean, y, color=colour(one.look), marker=MARKS[look(one.look)], markersize=5,
                          clip_on=False, zorder=3)  # fmt: skip  # a 0 stands on the edge
        axes.set_yticks(range(len(labels)), labels, multialignment="right")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel(across.title)
        shown = [point.x for one in lines for point in one.points]
        _limit(axes.set_xlim, shown, across)
        axes.xaxis.set_major_locator(ticks(4))
        return Panel(name, heading, svg(figure, name), list(_rows(name, lines, up=False)), note)


def _draw(axes: Axes, one: Line) -> None:
    hue, style = colour(one.look), line(one.look)
    if one.level:
        level = one.points[0].y
        axes.axhline(level.mean, **style)
        axes.axhspan(level.low, level.high, color=hue, alpha=0.15, linewidth=0)
        return
    x, y = [p.x.mean for p in one.points], [p.y.mean for p in one.points]
    if one.joined:
        axes.plot(x, y, **style)
    if one.band:
        axes.fill_between(x, [p.y.low for p in one.points], [p.y.high for p in one.points],
                          color=hue, alpha=0.15, linewidth=0)  # fmt: skip
    if one.bare:
        return
    for point in one.points:
        if not one.band:
            axes.vlines(point.x.mean, point.y.low, point.y.high, color=hue, linewidth=0.8, alpha=one.strength)
        axes.hlines(point.y.mean, point.x.low, point.x.high, color=hue, linewidth=0.8, alpha=one.strength)
        axes.plot(point.x.mean, point.y.mean, color=hue, marker=MARKS[look(one.look)], markersize=5,
                  markeredgecolor=PAPER, markeredgewidth=0.6)  # fmt: skip
        if point.label:
            axes.annotate(point.label, (point.x.mean, point.y.mean), (4, 3), textcoords="offset points",
                          fontsize=7.5, color=INK)  # fmt: skip


def _limits(axes: Axes, lines: list[Line], across: Axis, up: Axis) -> None:
    xs = [p.x for one in lines if not one.level for p in one.points]
    _limit(axes.set_xlim, xs, across)
    _limit(axes.set_ylim, [p.y for one in lines for p in one.points], up)
    for axis, own in ((across, axes.xaxis), (up, axes.yaxis)):
        if not axis.marks:
            own.set_major_locator(ticks(5))
        if axis.marks:
            own.set_ticks(list(axis.marks), list(axis.marks.values()))
            own.set_minor_locator(matplotlib.ticker.NullLocator())


def _limit(set_limits: Any, shown: list[Interval], axis: Axis) -> None:
    """Limits that hold all means; intervals may run out of the picture by half the spread of the means."""
    if not shown:
        return
    means = [value.mean for value in shown]
    low, high = min(0.0, *means) if axis.zero else min(means), max(means)
    room = (high - low) or abs(high) or 1.0
    kept = [Interval(v.mean, max(v.low, low - axis.air * room), min(v.high, high + axis.air * room)) for v in shown]
    set_limits(*span(kept, axis.zero))


def _rows(name: str, lines: list[Line], up: bool = True) -> Iterator[tuple[Any, ...]]:
    for one in lines:
        for point in one.points:
            y = _cells(point.y) if up else NOTHING
            yield (name, one.name, point.key or point.label, *(NOTHING if one.level else _cells(point.x)), *y, "")


def _cells(value: Interval) -> tuple[Any, ...]:
    """Mean and limits; an exact number has none."""
    return (value.mean, value.low, value.high) if value.known else (value.mean, "", "")


@dataclass(frozen=True)
class Table:
    """Numbers beside a figure, as they are written."""

    heads: list[str]
    rows: list[list[str]]
    """Cells, the first of a row its name."""
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One figure on one world; without panels, `claim` says why there is nothing to draw."""

    number: int
    name: str
    claim: str
    panels: list[Panel] = field(default_factory=list)
    legend: list[tuple[int, str]] = field(default_factory=list)
    """Number of the look, and its words."""
    note: str = ""
    """What the panels show and how to read them."""
    table: Table | None = None
    """Stands below the panels on a page; no part of the SVG and CSV files."""

    def csv(self) -> str:
        """What was drawn, a row per point."""
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(COLUMNS)
        for panel in self.panels:
            out.writerows(panel.rows)
        return text.getvalue()
