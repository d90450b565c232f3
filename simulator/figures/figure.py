"""A figure: a claim that the numbers make, the panels that show it, and the files it becomes."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

from simulator.figures.chart import COLUMNS, Panel


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
