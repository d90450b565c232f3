"""A picture of a dashboard from what a Prometheus server recorded, drawn without Grafana.

    python deploy/grafana/draw.py --prometheus http://127.0.0.1:9090 --dashboard swaps --minutes 10 --out dashboard.png

Reads the dashboard's own file: its panels' places, titles, queries, units, thresholds and colours; every line is the
answer of a range query. Needs matplotlib only.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from plot import INK, NAMED, SOFT, frame, look, mark, plot
from recorded import Line, Recorded
from units import formatted
from words import Pen

Json = dict[str, Any]

FOLDER = Path(__file__).parent / "dashboards"
COLUMNS, CELL, GAP, HEAD = 24, 38, 8, 40
"""Columns of the grid; pixels of a row, between panels, and above them."""
PAGE, PANEL, EDGE = "#111217", "#181b1f", "#24272d"
FONTS = ("Inter", "Roboto", "Liberation Sans", "DejaVu Sans")
"""The first that this machine has; matplotlib brings the last."""


@dataclass(frozen=True)
class Box:
    """A panel's place in pixels from the upper left corner."""

    x: float
    y: float
    width: float
    height: float


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
        place, cell = panel["gridPos"], (self.width - GAP) / COLUMNS
        box = Box(GAP + place["x"] * cell, HEAD + place["y"] * CELL, place["w"] * cell - GAP, place["h"] * CELL - GAP)
        background = FancyBboxPatch(
            (box.x / self.width, 1 - (box.y + box.height) / self.height),
            box.width / self.width,
            box.height / self.height,
            boxstyle="round,pad=0,rounding_size=0.0015",
            facecolor=PANEL,
            edgecolor=EDGE,
            linewidth=0.8,
            zorder=-1,
        )
        self.figure.add_artist(background)
        title = self.pen.cut(self.recorded.filled(panel["title"]), box.width - 24, 13.5, "bold")
        self.pen.write(box.x + 12, box.y + 22, title, 13.5, INK, "bold")
        lines = self.recorded.lines(panel)
        if panel["type"] == "text":
            self.pen.paragraphs(box.x + 12, box.y + 46, box.width - 24, panel["options"]["content"], 14, INK)
        elif panel["type"] == "stat":
            self._stat(panel, lines, box)
        else:
            self._lines(panel, lines, box)
        if panel["type"] != "text" and not lines:
            self.pen.write(box.x + box.width / 2, box.y + box.height / 2, "No data", 14, SOFT, align="center")

    def _stat(self, panel: Json, lines: list[Line], box: Box) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        named = panel["options"]["textMode"] == "value_and_name"
        middle = box.y + 30 + (box.height - 30) / 2
        for number, line in enumerate(lines):
            centre, value = box.x + (number + 0.5) * box.width / len(lines), float(line.values[-1])
            passed = [
                step for step in defaults["thresholds"]["steps"] if step["value"] is None or step["value"] <= value
            ]
            shown = formatted(value, defaults["unit"], defaults.get("decimals"))
            size = self.pen.fitting(shown, 0.85 * box.width / len(lines), min(44, (box.height - 50) / 2 + 8))
            colour = NAMED[passed[-1]["color"]]
            self.pen.write(centre, middle + size / 3 + 6 * named, shown, size, colour, "bold", "center")
            if named:
                self.pen.write(centre, middle - size / 2 - 6, line.name, 14, SOFT, align="center")

    def _lines(self, panel: Json, lines: list[Line], box: Box) -> None:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        looks = [look(panel, line, number) for number, line in enumerate(lines)]
        latest = [f"{line.name}  {formatted(float(line.values[-1]), unit)}" for line in lines]
        legend = self.pen.legend_rows(list(zip(latest, looks, strict=True)), box.width - 28, 12.5)
        left, right, above, below = 68, 16, 38, 32 + 19 * len(legend)
        axes = self.figure.add_axes(
            (
                (box.x + left) / self.width,
                1 - (box.y + box.height - below) / self.height,
                (box.width - left - right) / self.width,
                (box.height - above - below) / self.height,
            ),
            facecolor=PANEL,
        )
        plot(axes, panel, lines, looks)
        frame(axes, panel, lines, self.recorded)
        mark(axes, self.marks)
        for row, items in enumerate(legend):
            self.pen.legend(box.x + 16, box.y + box.height - 8 - 19 * (len(legend) - 1 - row), items, 12.5, INK)


def main() -> None:
    """Ask, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="address of the server")
    parser.add_argument("--dashboard", default="swaps", choices=sorted(file.stem for file in FOLDER.glob("*.json")))
    parser.add_argument("--minutes", type=float, default=10, help="length of the span that is drawn")
    parser.add_argument("--end", type=float, default=time.time(), help="its end in unix seconds (default: now)")
    parser.add_argument(
        "--measure", choices=("pair", "slot", "top1", "set", "rbo"), help="what counts as a swap (default: pair)"
    )
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
