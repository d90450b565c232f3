"""Which figures are shown against what: points with their spread, laws through them; panels as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scaling_axes import Setting
from scaling_estimate import Point
from scaling_laws import Law, fit

INK, GRID = "#24292f", "#d8dee4"
COLOURS = "#1f6feb", "#c2410c", "#15803d"
MARKS = "o", "s", "^"
SETTINGS = {
    "svg.hashsalt": "scaling",
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Series:
    """Points of one line: x, the median y, and the lowest and highest of the repeats."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    law: Law | None


@dataclass(frozen=True)
class Panel:
    """One drawing."""

    title: str
    x: str
    y: str
    series: list[Series] = field(default_factory=list)
    log: bool = False
    """Whether x spans decades; then both axes are logarithmic."""


def draw(panels: Sequence[Panel], columns: int, path: Path) -> None:
    """All panels in a grid; the same file for the same points."""
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(SETTINGS):
        figure = Sheet(figsize=(3.4 * columns, 2.9 * rows), layout="constrained", facecolor="white")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _panel(axes, panel)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Axes, panel: Panel) -> None:
    if panel.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    for number, series in enumerate(panel.series):
        colour, x, y = COLOURS[number], np.array(series.x), np.array(series.y)
        spread = np.maximum(np.abs([y - series.low, series.high - y]), 0)
        axes.errorbar(x, y, spread, fmt=MARKS[number], ms=5, lw=1, capsize=2.5, color=colour, label=series.name)
        if series.law is not None:
            between = np.geomspace(x.min(), x.max(), 60) if panel.log else np.linspace(x.min(), x.max(), 60)
            axes.plot(between, series.law(between), color=colour, lw=1.3, alpha=0.8)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    (_decades if panel.log else _from_zero)(axes, panel)
    if len(panel.series) > 1:
        axes.legend(frameon=False, fontsize=8.5)


def _decades(axes: Axes, panel: Panel) -> None:
    low, high = axes.get_ylim()
    middle = math.sqrt(low * high)  # nearly flat lines should look flat
    axes.set_ylim(min(low, middle / 3), max(high, middle * 3))
    axes.set_xticks(sorted({value for series in panel.series for value in series.x}))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


def _from_zero(axes: Axes, panel: Panel) -> None:
    axes.set_ylim(0, 1.1 * max(value for series in panel.series for value in series.high))
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def short(value: float) -> str:
    """10k, 1M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


MEGA = 1e6
Axis = list[tuple[Setting, list[Point]]]
Value = Callable[[Setting, Point], float]
Count = Callable[[Setting], float]


@dataclass(frozen=True)
class Figure:
    """One quantity against one count."""

    title: str
    x: str
    y: str
    lines: Sequence[tuple[str, Axis, Value]]
    count: Count
    log: bool = False

    def series(self) -> list[Series]:
        """Each line with its law."""
        return [self._line(*line) for line in self.lines]

    def _line(self, name: str, axis: Axis, value: Value) -> Series:
        x = [self.count(setting) for setting, _ in axis]
        values = [[value(setting, point) for point in said] for setting, said in axis]
        y = [median(found) for found in values]
        return Series(name, x, y, [min(f) for f in values], [max(f) for f in values], fit(x, y))

    def drawn(self) -> Panel:
        """As a panel."""
        return Panel(self.title, self.x, self.y, self.series(), self.log)


def entities(setting: Setting) -> float:
    """Users, and as many items."""
    return setting.entities


def catalogue(title: str, y: str, lines: Sequence[tuple[str, Axis]], value: Value) -> Figure:
    """A quantity against users and items, a line for each way to keep them."""
    return Figure(title, "users, and as many items", y, [(n, axis, value) for n, axis in lines], entities, log=True)


def alone(title: str, y: str, axes: dict[str, Axis], varied: str, value: Value) -> Figure:
    """A quantity against one of the counts of a setting."""
    x = "duplicates of each arm" if varied == "duplicates" else varied
    return Figure(title, x, y, [("", axes[varied], value)], lambda setting: float(getattr(setting, varied)))


def learning_panels(axes: dict[str, Axis]) -> list[Figure]:
    """Time of learning and of ranking, memory of a run."""

    def time(setting: Setting, point: Point) -> float:
        return float(1e6 * point["learn"] / point["learned"])  # ms per 1,000 events

    def ranking(setting: Setting, point: Point) -> float:
        return float(1e3 * point["cpu"]["rank"] / (point["ranked"] / setting.candidates))

    def memory(setting: Setting, point: Point) -> float:
        return float(max(point["peak"].values()) / MEGA)

    def measuring(setting: Setting, point: Point) -> float:
        return float(point["cpu"]["measure"])

    def made(setting: Setting, point: Point) -> float:
        return float(point["cpu"]["world"])

    cpu, peak = "CPU ms per 1,000 events", "peak of a run, MB"
    tables = [("a row for each", axes["rows"]), ("hashed", axes["hashed"])]
    return [
        catalogue("Learning: catalogue", cpu, tables, time),
        alone("Learning: duplicates", cpu, axes, "duplicates", time),
        alone("Learning: arms", cpu, axes, "arms", time),
        alone("Ranking: candidates", "CPU ms per query, all models", axes, "candidates", ranking),
        catalogue("To make the world", "CPU s", tables, made),
        alone("Measuring: duplicates", "CPU s", axes, "duplicates", measuring),
        alone("Measuring: arms", "CPU s", axes, "arms", measuring),
        alone("Measuring: candidates", "CPU s", axes, "candidates", measuring),
        catalogue("Memory: catalogue", peak, tables, memory),
        alone("Memory: duplicates", peak, axes, "duplicates", memory),
        alone("Memory: arms", peak, axes, "arms", memory),
        alone("Memory: candidates", peak, axes, "candidates", memory),
    ]


def serving_panels(axes: dict[str, Axis], published: dict[str, Axis]) -> list[Figure]:
    """Time and memory of a replica, and what is published for it."""

    def cpu(part: str, scale: float) -> Value:
        return lambda setting, point: float(point["cpu"][part] * scale)

    def peak(setting: Setting, point: Point) -> float:
        return float(point["peak"]["refresh"] / MEGA)

    def size(setting: Setting, point: Point) -> float:
        return float(point["snapshot"] / MEGA)

    tables = [("a row for each", axes["rows"]), ("hashed", axes["hashed"])]
    cut = [("a row for each", published["rows"]), ("hashed", published["hashed"])]
    ways = [("one at a time", cpu("one", 1e6)), ("16 at once", cpu("many", 1e6))]
    query, memory, users = "CPU µs per query", "peak of a refresh, MB", "users, and as many items"
    by_candidates = [(name, axes["candidates"], value) for name, value in ways]
    return [
        Figure("A query: candidates", "candidates", query, by_candidates, lambda setting: setting.candidates),
        Figure("A query: catalogue", users, query, [(n, axes["rows"], value) for n, value in ways], entities, log=True),
        catalogue("To prepare a generation", "CPU ms", tables, cpu("refresh", 1e3)),
        alone("To prepare one: arms", "CPU ms", axes, "arms", cpu("refresh", 1e3)),
        catalogue("Published, per duplicate", "MB", cut, size),
        catalogue("To publish two duplicates", "CPU ms", cut, cpu("publish", 1e3)),
        catalogue("Memory of a replica", memory, tables, peak),
        alone("Memory of a replica: arms", memory, axes, "arms", peak),
    ]


def law_table(figures: Sequence[Figure]) -> str:
    """One row a line: the law, how well it fits, first and last point with their spread."""
    lines = []
    for figure in figures:
        for series in figure.series():
            assert series.law is not None
            name = f"{figure.title}{', ' + series.name if series.name else ''}"
            ends = " to ".join(ranged(series, place) for place in (0, -1))
            x = f"{figure.x} {series.x[0]:,.0f} to {series.x[-1]:,.0f}"
            law, quality = law_words(series.law, 1.0, "x"), f"{series.law.r2:.4f} | {series.law.worst:.0%}"
            lines.append(f"| {name} | {x} | {figure.y}: {ends} | {law} | {quality} |")
    return "\n".join(lines)


def ranged(series: Series, place: int) -> str:
    """A median with the lowest and highest of the repeats."""
    return f"{digits(series.y[place])} ({digits(series.low[place])}–{digits(series.high[place])})"


def law_words(law: Law, scale: float, x: str) -> str:
    """The law in numbers, times `scale`."""
    if law.form == "power":
        return f"{digits(law.a * scale)} {x}^{law.b:.2f}"
    sign, square = "-" if law.b < 0 else "+", "²" if law.form == "square" else ""
    return f"{digits(law.a * scale)} {sign} {digits(abs(law.b) * scale)} {x}{square}"


def digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
