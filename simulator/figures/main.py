"""`flicker figures`: from finished sweeps to a page, and to an SVG and a CSV file per figure.

OUT/figures.html           everything on one page
OUT/WORLD-NUMBER-NAME.svg  each figure alone, and .csv with what it draws
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Annotated

import tyro

from simulator.config import require
from simulator.errors import ResultError
from simulator.figures.compose import standalone
from simulator.figures.conditions import conditions, sources
from simulator.figures.costs import costs
from simulator.figures.pages import file_stem, page, table
from simulator.figures.planes import beta, plane
from simulator.figures.runs import activations, churn, generations, where
from simulator.figures.surface import surface
from simulator.figures.sweep import Sweep, read_sweep
from simulator.files import write_atomically, writing
from simulator.report.charts import Figure

DRAWN: tuple[Callable[[Sweep], Figure], ...] = (
    *(plane, beta, activations, lambda sweep: surface()),
    *(generations, conditions, sources, costs, where, churn),
)
FIGURES = dict(enumerate(DRAWN, 1))
"""Number -> what draws it."""
ONCE = (3, 4)
"""Figures that are the same for every sweep: drawn for the first one."""


@dataclass(frozen=True)
class FigureFlags:
    """Draw every figure that finished sweeps have the runs for, each titled by what holds there, and decide the
    article's claims by their intervals. `flicker sweep --preset article` runs all that is needed."""

    sweeps: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of finished sweeps (or of single runs), one per world."""
    out: Path | None = None
    """Folder for figures.html and an SVG and a CSV file per figure (default: figures inside the first sweep)."""
    only: tuple[int, ...] = ()
    """Numbers of the figures to draw, 1 to 10 (default: all)."""
    markdown: Path | None = None
    """Write a page of results as Markdown here, its figures to the folder figures beside it unless --out is given."""

    def __post_init__(self) -> None:
        require(len(self.sweeps) > 0, "sweeps", "none", "name at least one folder, as in flicker figures results/sweep")
        for number in self.only:
            require(number in FIGURES, "only", number, f"from 1 to {max(FIGURES)}")

    @property
    def folder(self) -> Path:
        """Where figures go."""
        beside = self.markdown.parent if self.markdown else self.sweeps[0]
        return self.out or beside / "figures"


def run_figures(flags: FigureFlags, arguments: list[str]) -> list[Path]:
    """Draw and write; returns the pages. Raises ResultError where a sweep cannot be read or nothing be written."""
    sweeps = [read_sweep(folder) for folder in flags.sweeps]
    worlds = [sweep.world for sweep in sweeps]
    if len(set(worlds)) < len(worlds):
        raise ResultError(f"sweeps: two of them are on {max(worlds, key=worlds.count)}: name one per world")
    chosen = [number for number in FIGURES if number in (flags.only or FIGURES)]
    told = [
        (sweep, [FIGURES[number](sweep) for number in chosen if number not in ONCE or sweep is sweeps[0]])
        for sweep in sweeps
    ]
    rows, command = table(sweeps), shlex.join(["flicker", "figures", *arguments])
    pages = {flags.folder / "figures.html": page(told, rows, command)}
    if flags.markdown:
        images = relpath(flags.folder, flags.markdown.parent)
        pages = {flags.markdown: page(told, rows, command, images)}
    with writing("out", flags.folder):
        flags.folder.mkdir(parents=True, exist_ok=True)
        for sweep, figures in told:
            for figure in figures:
                if figure.panels:
                    stem = flags.folder / file_stem(figure, sweep)
                    write_atomically(stem.with_name(f"{stem.name}.svg"), standalone(figure).encode())
                    write_atomically(stem.with_name(f"{stem.name}.csv"), figure.csv().encode())
        for path, text in pages.items():
            write_atomically(path, text.encode())
    return list(pages)
