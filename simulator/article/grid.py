"""`flicker article run`: which arms, conditions and seeds are run on a world, and running what is missing of them.

A *condition* is a set of flags of `flicker run` that all arms of a cell share; a *cell* is one run: a condition with
its arms, at one seed, which is one *unit*: on the made-up world another world, on a log other initialisations, noise
and negatives. Every arm is run at each of its rates: which rate is its own is found afterwards, from the early part of
the same runs (docs/protocol.md).

A finished cell leaves a line: stopped anywhere, the run goes on. Units come first: after the first three seeds
everything can be looked at, with intervals that more seeds make narrower.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from rich.progress import TimeElapsedColumn

from simulator.article.table import line_of, read_lines, write_lines
from simulator.config import require
from simulator.measures.words import duration, plural
from simulator.result import read_result
from simulator.sweep.backend import Backend, OnRay, Processes
from simulator.sweep.record import Cell
from simulator.terminal import open_console, progress_bar

SHARED = "--fleets 1 --duplicates 2 --queries 300 --queries-per-generation 20 --resamples 20 --no-page"
MADE_UP = "--events 240000 --users 1200 --items 500"
INTERACTIONS = ("0.1", "0.5", "0.9")
"""Made-up worlds: share of the variance of the log-odds that is user x item."""

PLAIN, NORMED = ("0.04", "0.08", "0.16"), ("0.02", "0.04", "0.08")
"""Learning rates, without layer norm and with it: what learned best in each of the worlds lies inside (LOG.md)."""
RATES = {"none": PLAIN, "before": NORMED, "after": NORMED, "weight": PLAIN}
BETAS = {"none": ("0.1", "0.25", "0.5", "1", "2"), "other": ("0.5", "1", "2", "4")}
"""SmeLU's half-widths: inputs of activations are smaller without a norm."""
SHARPNESS = {"swish": ("2", "4", "8", "16"), "softplus": ("3", "6", "12", "24")}
CONDITION_ARMS = (("none", "0.25"), ("before", "1"), ("after", "2"))
"""Norm, and the beta of the SmeLU that stands beside ReLU under it where conditions are compared."""
CONDITION_RATES = ("0.04", "0.08")
SOURCES = {
    "nothing": "--window 0",
    "init": "--window 0 --init own",
    "order": "--window 16",
    "lost": "--window 0 --lost 0.02",
    "delay": "--window 0 --delay 8",
    "rounding": "--window 0 --precision bfloat16",
    "sums": "--window 0 --reductions",
    "racing": "--window 0 --racing 2",
    "changed": "--window 0 --changed 1",
}
"""Sources of noise alone."""


@dataclass(frozen=True)
class ArmGroup:
    """Arms that are run together in one condition."""

    name: str
    flags: str
    arms: Sequence[str]
    seeds: int


def at_rates(designs: Sequence[str], rates: Sequence[str]) -> list[str]:
    """Each design at each rate: `smelu:beta=1` -> `smelu:beta=1,lr=0.08`."""
    return [f"{design}{',' if '=' in design else ':'}lr={rate}" for design in designs for rate in rates]


def under_norm(norm: str, betas: Sequence[str], rates: Sequence[str]) -> list[str]:
    """ReLU and SmeLU under a norm, at each rate."""
    suffix = "" if norm == "none" else f",norm={norm}"
    designs = ["relu" + suffix.replace(",", ":", 1), *(f"smelu:beta={beta}{suffix}" for beta in betas)]
    return at_rates(designs, rates)


def activations() -> list[str]:
    """Every activation from sharp to smooth, without a norm."""
    rivals = [f"{name}:beta={beta}" for name, betas in SHARPNESS.items() for beta in betas]
    wide = ["relu:hidden=128x64x32", "smelu:beta=0.1,hidden=128x64x32"]
    plain = at_rates(["gelu", *rivals, *wide], PLAIN) + at_rates(["linear"], NORMED)
    return under_norm("none", BETAS["none"], PLAIN) + plain


def norms() -> list[str]:
    """ReLU and SmeLU under each norm; and the limit of a large beta, where the norm takes its offset away."""
    by_norm = (under_norm(norm, BETAS["other"], RATES[norm]) for norm in ("before", "after", "weight"))
    return [*chain.from_iterable(by_norm), *at_rates(["smelu:beta=100,norm=after", "linear:norm=after"], NORMED[1:])]


def cures() -> list[str]:
    """Several networks for one answer, distillation, averaging, and one network of as many parameters."""
    cheap = [
        *("ensemble:relu:m=2", "ensemble:relu:m=3", "ensemble:relu:m=3,narrow", "ensemble:smelu:beta=0.25,m=3"),
        *("codistill:relu:m=2", "anchor:relu", "average:relu", "relu:dim=48"),
    ]
    return at_rates(cheap, PLAIN[1:]) + at_rates(["ensemble:relu:m=5", "antidistill:relu:m=3"], PLAIN[1:2])


def conditions() -> list[str]:
    """ReLU and one SmeLU under three norms, at two rates."""
    return [arm for norm, beta in CONDITION_ARMS for arm in under_norm(norm, [beta], CONDITION_RATES)]


def wide_norms() -> list[str]:
    """ReLU 256 x 128 x 64 under every norm; deeper networks learn best at lower rates."""
    return [f"relu:norm={norm},hidden=256x128x64,lr={rate}" for norm, rates in RATES.items() for rate in rates[:2]]


def core(everything: bool) -> Iterator[ArmGroup]:
    """The grid that decides the claims; `everything`: also conditions, sources of noise and wide networks."""
    yield ArmGroup("activations", "", activations(), 5)
    yield ArmGroup("norms", "", norms(), 5)
    yield ArmGroup("cures", "", cures(), 5)
    yield ArmGroup("again", "", ["relu", "relu"], 5)
    if everything:
        for name, flags in (("own", "--init own"), ("shuffled", "--window 128"), ("both", "--init own --window 128")):
            yield ArmGroup(name, flags, conditions(), 5)
        yield ArmGroup("wide", "--init own", wide_norms(), 10)
        for source, flags in SOURCES.items():
            yield ArmGroup(f"noise {source}", flags, ["relu", "smelu:beta=0.25"], 3)


def quick() -> Iterator[ArmGroup]:
    """Everything once, with wide intervals: minutes."""
    plain = under_norm("none", ("0.25", "1"), PLAIN[:2])
    plain += at_rates(["gelu", "swish:beta=4", "softplus:beta=6"], PLAIN[1:2])
    normed = [arm for norm in ("before", "after") for arm in under_norm(norm, ["1"], ("0.04",))]
    yield ArmGroup("activations", "", [*plain, *at_rates(["linear"], ("0.04",))], 2)
    yield ArmGroup("norms", "", normed, 2)
    yield ArmGroup("cures", "", at_rates(["ensemble:relu:m=3", "average:relu"], ("0.08",)), 2)
    yield ArmGroup("again", "", ["relu", "relu"], 2)
    yield ArmGroup("own", "--init own", under_norm("none", ["0.25"], ("0.08",)), 2)
    for source in ("nothing", "order", "rounding"):
        yield ArmGroup(f"noise {source}", SOURCES[source], ["relu", "smelu:beta=0.25"], 1)


def full() -> Iterator[ArmGroup]:
    """A night, or a cluster: the core grid with everything on every world, twice the units, more rivals and cures."""
    for group in core(everything=True):
        yield ArmGroup(group.name, group.flags, group.arms, 2 * group.seeds)
    rivals = [f"{name}:beta={beta},norm=before" for name in SHARPNESS for beta in ("1", "2", "4")]
    yield ArmGroup("rivals before", "", at_rates([*rivals, "gelu:norm=before"], NORMED), 10)
    yield ArmGroup("sharp", "--window 4", conditions(), 10)
    yield ArmGroup("afresh", "", at_rates(["fresh:relu:last=10"], PLAIN[1:2]), 5)


def cells(world: str, flags: Sequence[str], groups: Iterator[ArmGroup]) -> list[Cell]:
    """The runs of a world: its name, and the flags that make it."""
    return [
        Cell(
            {"world": world, "group": group.name, "seed": str(seed)},
            (*flags, *SHARED.split(), *group.flags.split(), "--seed", str(seed), "--arms", *group.arms),
        )
        for group in groups
        for seed in range(group.seeds)
    ]


CELLS = "cells.jsonl"


@dataclass(frozen=True)
class GridFlags:
    """Run the grid that decides the article's claims (docs/protocol.md) on made-up worlds, and on your logs.

    What a cell found is a line of OUT/cells.jsonl: a run that was stopped goes on there, on any machine."""

    out: Path = Path("docs/article")
    """Folder of cells.jsonl, and of what `flicker article write` makes of it."""
    data: tuple[Path, ...] = ()
    """Logs to run on too, as in `flicker run --data`."""
    made_up: tuple[str, ...] = INTERACTIONS
    """Made-up worlds by the share of the variance of their log-odds that is user x item; none: `--made-up` alone."""
    size: Literal["core", "quick", "full"] = "core"
    """core: decides the claims, 90 minutes on two cores. quick: everything once, minutes, wide intervals. full: twice
    the seeds, more rivals and cures, every condition on every world: a night, or a cluster."""
    backend: Literal["local", "ray"] = "local"
    """Where cells run."""
    address: str | None = None
    """Of a Ray cluster, such as auto (default: one on this machine)."""
    jobs: int | None = None
    """Cells at once on this machine (default: one per core)."""
    only: tuple[str, ...] = ()
    """Groups of cells to run, such as activations norms cures; all by default."""
    limit: int = 0
    """Stop after this many cells; 0: after all."""

    def __post_init__(self) -> None:
        require(self.jobs is None or self.jobs >= 1, "jobs", self.jobs, "at least 1")
        for share in self.made_up:
            require(share in INTERACTIONS, "made-up", share, f"of {', '.join(INTERACTIONS)}")
        require(len(self.data) + len(self.made_up) > 0, "made-up", "none", "a made-up world, or a log with --data")

    def cells(self) -> list[Cell]:
        """All runs, logs first."""
        all_cells = []
        for log in self.data:
            groups = self._groups(everything=True)
            all_cells += cells(log.stem, ("--data", str(log)), groups)
        for share in self.made_up:
            groups = self._groups(everything=share == "0.5")
            events = MADE_UP if self.size != "quick" else MADE_UP.replace("240000", "80000")
            all_cells += cells(f"made-up {share}", (*events.split(), "--interaction", share), groups)
        known = dict.fromkeys(cell.place["group"] for cell in all_cells)
        for name in self.only:
            require(name in known, "only", name, f"of {', '.join(known)}")
        return [cell for cell in all_cells if not self.only or cell.place["group"] in self.only]

    def _groups(self, everything: bool) -> Iterator[ArmGroup]:
        return core(everything) if self.size == "core" else quick() if self.size == "quick" else full()


def run_grid(flags: GridFlags) -> int:
    """Run; returns the exit code: 1 where a cell has failed. Raises FlickerError.

    For the main thread: SIGTERM ends it as Ctrl-C does, since its runs would not end with it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console, path, work = open_console(), flags.out / CELLS, flags.out / "work"
    done = {line.name: line.arguments for line in read_lines(path)}
    cells = flags.cells()
    missing = [cell for cell in cells if done.get(" ".join(cell.place.values())) != recorded(cell)]
    missing = sorted(missing, key=lambda cell: int(cell.place["seed"]))[: flags.limit or None]
    console.print(f"{plural(len(cells), 'cell')}, {len(missing)} to run; lines go to {path}; Ctrl-C is safe")
    if not missing:
        return 0
    work.mkdir(parents=True, exist_ok=True)
    backend: Backend = OnRay(flags.address) if flags.backend == "ray" else Processes(flags.jobs)
    started, failed = time.monotonic(), 0
    with progress_bar(console, TimeElapsedColumn(), "{task.fields[left]}") as bar:
        task = bar.add_task("cells", total=len(missing), left="")
        for number, ended in enumerate(backend.run(missing, work), 1):
            seconds_per_cell = (time.monotonic() - started) / number
            bar.update(task, advance=1, left=f"{duration(seconds_per_cell * (len(missing) - number))} left")
            outcome = f"failed: {ended.failure}" if ended.failure else f"done in {duration(ended.seconds)}"
            bar.console.print(f"{ended.cell.name}: {outcome}", soft_wrap=True, markup=False)
            failed += ended.failure is not None
            if not ended.failure:
                folder = work / ended.cell.name
                line = line_of(read_result(folder), ended.cell.place, recorded(ended.cell))
                write_lines(path, [*({kept.name: kept for kept in read_lines(path)} | {line.name: line}).values()])
                shutil.rmtree(folder)
    return 1 if failed else 0


def recorded(cell: Cell) -> list[str]:
    """Its arguments without the place of a log on this machine."""
    first, log, *rest = cell.arguments
    return [first, Path(log).stem if first == "--data" else log, *rest]
