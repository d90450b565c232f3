"""What is drawn, as data: the same points become a picture and the rows of a CSV file, so the two cannot disagree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from simulator.files import as_csv
from simulator.measures.intervals import Interval
from simulator.report.charts import MARKS, Axis, Dot, Line, draw_dots, draw_lines, look

COLUMNS = ("panel", "series", "label", "x", "x_low", "x_high", "y", "y_low", "y_high", "z")
"""Of a figure's CSV file; z is the height of a surface."""
NOTHING = ("", "", "")


@dataclass(frozen=True)
class Panel:
    """One drawing and its data."""

    name: str
    heading: str
    svg: str
    rows: list[tuple[Any, ...]]
    """In the order of COLUMNS."""
    note: str = ""


def chart(name: str, heading: str, lines: list[Line], across: Axis, up: Axis, note: str = "") -> Panel:
    """Lines over a number, with their intervals both ways."""
    return Panel(name, heading, draw_lines(name, lines, across, up), list(_rows(name, lines)), note)


def dots(name: str, heading: str, lines: list[Line], across: Axis, note: str = "") -> Panel:
    """A row for each label, in which every line has its dot; only x is used."""
    labels = list(dict.fromkeys(point.label for one in lines for point in one.points))
    found = [
        Dot(labels.index(point.label), place, point.x, one.look, MARKS[look(one.look)])
        for place, one in enumerate(lines)
        for point in one.points
    ]
    drawing = draw_dots(name, labels, len(lines), found, across)
    return Panel(name, heading, drawing, list(_rows(name, lines, up=False)), note)


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
        return as_csv([COLUMNS, *(row for panel in self.panels for row in panel.rows)])
