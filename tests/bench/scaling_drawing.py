"""Points with their spread, laws through them: panels as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scaling_laws import Law

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
        figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained", facecolor="white")
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
