"""A panel's lines, axes and marks, in Grafana's dark colours."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray
from recorded import Line, Recorded
from units import formatted

Json = dict[str, Any]

EVERY = (1, 2, 5, 10, 15, 30, 60, 120, 360, 1440)
"""Minutes between ticks."""
INK, SOFT, GRID = "#d5d7de", "#9a9da8", "#2b2e35"
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a")
"""Grafana's classic palette, for lines whose colour the dashboard leaves open."""
NAMED = {"text": INK, "green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}


def look(panel: Json, line: Line, number: int) -> Json:
    """Colour, dashes and filling of a line, as the panel's overrides say."""
    drawn: Json = {"color": PALETTE[number % len(PALETTE)], "ls": "-", "fill": True}
    for override in panel["fieldConfig"]["overrides"]:
        for property in override["properties"] if override["matcher"]["options"] == line.ref else ():
            match property["id"], property["value"]:
                case "color", value:
                    drawn["color"] = NAMED.get(value["fixedColor"], value["fixedColor"])
                case "custom.lineStyle", _:
                    drawn["ls"] = (0, (4, 2.5))
                case "custom.fillOpacity", _:
                    drawn["fill"] = False
    return drawn


def plot(axes: Axes, panel: Json, lines: list[Line], looks: list[Json]) -> None:
    """The lines, broken where they have a gap."""
    bridged = panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] / 1000
    base = panel["fieldConfig"]["defaults"].get("min")
    for line, drawn in zip(lines, looks, strict=True):
        gaps = np.flatnonzero(np.diff(line.times) > bridged) + 1
        times, values = (np.insert(part, gaps, math.nan) for part in (line.times, line.values))
        axes.plot(times, values, color=drawn["color"], ls=drawn["ls"], lw=1.7, solid_capstyle="round", zorder=3)
        if drawn["fill"] and base is not None:
            axes.fill_between(times, base, values, color=drawn["color"], alpha=0.07, lw=0, zorder=2)


def mark(axes: Axes, times: NDArray[np.float64]) -> None:
    """Annotations."""
    style = {"color": "#5a6070", "lw": 0.7, "ls": (0, (2, 3)), "zorder": 1}
    axes.vlines(times, 0, 1, transform=axes.get_xaxis_transform(), **style)


def frame(axes: Axes, panel: Json, lines: list[Line], recorded: Recorded) -> None:
    """Axes, grid and thresholds."""
    defaults = panel["fieldConfig"]["defaults"]
    axes.margins(y=0.12)
    low, high = axes.get_ylim()
    if "min" in defaults:
        low = defaults["min"]
        high = high if any((line.values > low).any() for line in lines) else low + 1
    axes.set_ylim(low, defaults.get("max", high))
    if defaults["custom"]["thresholdsStyle"]["mode"] == "dashed":
        for step in defaults["thresholds"]["steps"][1:]:
            if low <= step["value"] <= high:
                axes.axhline(step["value"], color=NAMED[step["color"]], lw=1, ls=(0, (5, 4)), zorder=2)
    _value_ticks(axes, defaults["unit"])
    _time_ticks(axes, recorded)
    axes.tick_params(colors=SOFT, length=0, labelsize=8.6, pad=5)
    axes.grid(color=GRID, lw=0.7, zorder=0)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _value_ticks(axes: Axes, unit: str) -> None:
    low, high = axes.get_ylim()
    if unit == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2((high - low) / 5))))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    step = float(np.diff(axes.get_yticks()[:2])[0])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, unit, step=step)))


def _time_ticks(axes: Axes, recorded: Recorded) -> None:
    axes.set_xlim(recorded.start, recorded.end)
    minutes = (recorded.end - recorded.start) / 60
    every = 60 * next(step for step in EVERY if minutes / step <= 6.5 or step == EVERY[-1])
    axes.set_xticks(np.arange(math.ceil(recorded.start / every) * every, recorded.end, every))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{datetime.fromtimestamp(at, UTC):%H:%M}"))
