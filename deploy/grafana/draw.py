"""A picture of a dashboard from what a Prometheus server recorded, drawn without Grafana.

    python deploy/grafana/draw.py --prometheus http://127.0.0.1:9090 --dashboard swaps --minutes 10 --out dashboard.png

Reads the dashboard's own file: its panels' places, titles, queries, units, thresholds and colours; every line is the
answer of a range query. Needs matplotlib only.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from recorded import Line, Recorded
from units import formatted
from words import Pen

Json = dict[str, Any]

FOLDER = Path(__file__).parent / "dashboards"
COLUMNS, CELL, GAP, HEAD = 24, 38, 8, 40
"""Columns of the grid; pixels of a row, between panels, and above them."""
EVERY = (1, 2, 5, 10, 15, 30, 60, 120, 360, 1440)
"""Minutes between ticks."""
PAGE, PANEL, EDGE, INK, SOFT, GRID = "#111217", "#181b1f", "#24272d", "#d5d7de", "#9a9da8", "#2b2e35"
FONTS = ("Inter", "Roboto", "Liberation Sans", "DejaVu Sans")
"""The first that this machine has; matplotlib brings the last."""
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a")
"""Grafana's classic palette, for lines whose colour the dashboard leaves open."""
NAMED = {"text": INK, "green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}


class Picture:
    """A figure in pixels, y downwards, panel by panel."""

    def __init__(self, dashboard: Json, recorded: Recorded, width: int, rows: int | None, scale: float) -> None:
        """`rows` of the grid to draw, all where it is None; `scale`: pixels of the file per pixel of `width`."""
        places = [panel["gridPos"] for panel in dashboard["panels"]]
        self.rows = rows or max(place["y"] + place["h"] for place in places)
        self.recorded, self.marks = recorded, recorded.marks(dashboard)
        self.width, self.height = width, HEAD + self.rows * CELL + GAP
        self.scale = scale
        self.figure = Figure((width / 100, self.height / 100), dpi=100, facecolor=PAGE)
        self.pen = Pen(self.figure, self.height)
        self._head(dashboard)
        for panel in dashboard["panels"]:
            if panel["gridPos"]["y"] + panel["gridPos"]["h"] <= self.rows:
                self._panel(panel)

    def save(self, file: Path) -> None:
        """As PNG, without a date."""
        self.figure.savefig(file, dpi=100 * self.scale, metadata={"Software": None})

    def _head(self, dashboard: Json) -> None:
        clock = [datetime.fromtimestamp(at, UTC) for at in (self.recorded.start, self.recorded.end)]
        span = f"{clock[0]:%H:%M} to {clock[1]:%H:%M} UTC"
        self.pen.write(GAP + 4, HEAD / 2 + 6, dashboard["title"], 17, INK, "bold")
        shown = [span]
        for variable in dashboard["templating"]["list"]:
            value = self.recorded.variables[variable["name"]]
            text = next(option["text"] for option in variable["options"] if option["value"] == value)
            shown.insert(0, f"{variable['label']}: {text}")
        self.pen.write(self.width - GAP - 4, HEAD / 2 + 6, "     ".join(shown), 13, SOFT, align="right")

    def _panel(self, panel: Json) -> None:
        place = panel["gridPos"]
        cell = (self.width - GAP) / COLUMNS
        x, y = GAP + place["x"] * cell, HEAD + place["y"] * CELL
        width, height = place["w"] * cell - GAP, place["h"] * CELL - GAP
        low = self.height - y - height
        size = self.width, self.height
        self.figure.add_artist(
            FancyBboxPatch(
                (x / size[0], low / size[1]),
                width / size[0],
                height / size[1],
                boxstyle="round,pad=0,rounding_size=0.0015",
                facecolor=PANEL,
                edgecolor=EDGE,
                linewidth=0.8,
                zorder=-1,
            )
        )
        title = self.recorded.filled(panel["title"])
        self.pen.write(x + 12, y + 22, self.pen.cut(title, width - 24, 13.5, "bold"), 13.5, INK, "bold")
        match panel["type"]:
            case "text":
                self.pen.paragraphs(x + 12, y + 46, width - 24, panel["options"]["content"], 14, INK)
            case "stat":
                self._stat(panel, self.recorded.lines(panel), x, y, width, height)
            case _:
                self._lines(panel, self.recorded.lines(panel), x, y, width, height)

    def _stat(self, panel: Json, lines: list[Line], x: float, y: float, width: float, height: float) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        middle = y + 30 + (height - 30) / 2
        if not lines:
            self.pen.write(x + width / 2, middle + 6, "No data", 14, SOFT, align="center")
        for number, line in enumerate(lines):
            centre, value = x + (number + 0.5) * width / len(lines), float(line.values[-1])
            colour = [
                step["color"]
                for step in defaults["thresholds"]["steps"]
                if step["value"] is None or step["value"] <= value
            ][-1]
            shown = formatted(value, defaults["unit"], defaults.get("decimals"))
            named = panel["options"]["textMode"] == "value_and_name"
            size = self.pen.fitting(shown, 0.85 * width / len(lines), min(44, (height - 50) / 2 + 8))
            self.pen.write(centre, middle + size / 3 + 6 * named, shown, size, NAMED[colour], "bold", "center")
            if named:
                self.pen.write(centre, middle - size / 2 - 6, line.name, 14, SOFT, align="center")

    def _lines(self, panel: Json, lines: list[Line], x: float, y: float, width: float, height: float) -> None:
        looks = [_look(panel, line, number) for number, line in enumerate(lines)]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        entries = [
            (f"{line.name}  {formatted(float(line.values[-1]), unit)}", look)
            for line, look in zip(lines, looks, strict=True)
        ]
        legend = self.pen.legend_rows(entries, width - 28, 12.5)
        below = 32 + 19 * len(legend)
        left = 62
        axes = self.figure.add_axes(
            (
                (x + left) / self.width,
                1 - (y + height - below) / self.height,
                (width - left - 16) / self.width,
                (height - below - 38) / self.height,
            ),
            facecolor=PANEL,
        )
        _plot(axes, panel, lines, looks)
        _frame(axes, panel, lines, self.recorded)
        if width > 300:
            axes.vlines(
                self.marks,
                0,
                1,
                transform=axes.get_xaxis_transform(),
                color="#5a6070",
                lw=0.7,
                ls=(0, (2, 3)),
                zorder=1,
            )
        if not lines:
            self.pen.write(x + width / 2, y + height / 2, "No data", 14, SOFT, align="center")
        for row, items in enumerate(legend):
            self.pen.legend(x + 16, y + height - 8 - 19 * (len(legend) - 1 - row), items, 12.5, INK)


def _look(panel: Json, line: Line, number: int) -> Json:
    """Colour, dashes and filling of a line, as the panel's overrides say."""
    look: Json = {"color": PALETTE[number % len(PALETTE)], "ls": "-", "fill": True}
    for override in panel["fieldConfig"]["overrides"]:
        for property in override["properties"] if override["matcher"]["options"] == line.ref else ():
            match property["id"], property["value"]:
                case "color", value:
                    look["color"] = NAMED.get(value["fixedColor"], value["fixedColor"])
                case "custom.lineStyle", _:
                    look["ls"] = (0, (4, 2.5))
                case "custom.fillOpacity", _:
                    look["fill"] = False
    return look


def _plot(axes: Axes, panel: Json, lines: list[Line], looks: list[Json]) -> None:
    bridged = panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] / 1000
    base = panel["fieldConfig"]["defaults"].get("min")
    for line, look in zip(lines, looks, strict=True):
        gaps = np.flatnonzero(np.diff(line.times) > bridged) + 1
        times, values = (np.insert(part, gaps, math.nan) for part in (line.times, line.values))
        axes.plot(times, values, color=look["color"], ls=look["ls"], lw=1.7, solid_capstyle="round", zorder=3)
        if look["fill"] and base is not None:
            axes.fill_between(times, base, values, color=look["color"], alpha=0.07, lw=0, zorder=2)


def _frame(axes: Axes, panel: Json, lines: list[Line], recorded: Recorded) -> None:
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


def main() -> None:
    """Ask, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="address of the server")
    parser.add_argument("--dashboard", default="swaps", choices=sorted(file.stem for file in FOLDER.glob("*.json")))
    parser.add_argument("--minutes", type=float, default=10, help="length of the span that is drawn")
    parser.add_argument("--end", type=float, default=time.time(), help="its end in unix seconds (default: now)")
    parser.add_argument("--measure", help="which measure counts as a swap (default: the dashboard's)")
    parser.add_argument("--rows", type=int, help="draw only the panels in the first so many rows of the grid")
    parser.add_argument("--width", type=int, default=1240, help="pixels")
    parser.add_argument("--scale", type=float, default=1.5, help="pixels of the file per pixel of --width")
    parser.add_argument("--out", type=Path, default=Path("dashboard.png"))
    flags = parser.parse_args()
    dashboard = json.loads((FOLDER / f"{flags.dashboard}.json").read_text())
    variables = {variable["name"]: variable["current"]["value"] for variable in dashboard["templating"]["list"]}
    variables |= {"measure": flags.measure} if flags.measure else {}
    recorded = Recorded(flags.prometheus, flags.end - 60 * flags.minutes, flags.end, variables)
    found = set(font_manager.get_font_names())
    matplotlib.rcParams["font.family"] = [font for font in FONTS if font in found]
    Picture(dashboard, recorded, flags.width, flags.rows, flags.scale).save(flags.out)


if __name__ == "__main__":
    main()
