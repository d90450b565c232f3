"""From axes to cells: every combination of the values of all axes of a grid is one run of `flicker run`.

A value is what one would write after the flag: `relu`, `"relu smelu:beta=1"` (two arms in one run), `16`, `true`. A
table is several flags at once, under a name of its own:

    [run]                                   # the same for every cell
    data = "movietweetings-100k"
    fleets = 3
    [vary]                                  # 3 x 2 x 2 cells
    arms = ["relu", "smelu:beta=1", "relu smelu:beta=1"]
    seed = [0, 1]
    noise = [{ name = "none", window = 0 }, { name = "own init", window = 0, init = "own" }]

A file may hold several small grids instead of one large one, each with a name, and flags for one kind of world only:

    [replay]                                # where --data names a log; [synthetic]: where it does not
    limit = 20_000
    [[grid]]
    name = "order"
    run = { fleets = 2 }
    vary = { window = [1, 16], norm = ["after", "none"] }
"""

from __future__ import annotations

import itertools
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.errors import DataError, FlickerError, SettingError
from simulator.flags import Spread, parse_run
from simulator.models.specs import parse_arms
from simulator.sweep.record import Cell

NOT_VARIED = ("out", "resume")
"""Flags of `flicker run` that the sweep sets itself."""


@dataclass(frozen=True)
class Grid:
    """The axes of a sweep, and the arguments that all of its runs share."""

    shared: Sequence[str] = ()
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Axis -> its values, as the module describes them."""
    name: str = ""
    """Distinguishes its cells from those of other grids; empty where there is one grid."""

    def cells(self) -> list[Cell]:
        """All combinations, the last axis fastest.

        Raises SettingError where there is nothing to vary, FlickerError for what `flicker run` would refuse.
        """
        if not self.axes:
            hint = "name at least one flag and its values, as in --vary seed 0 1 2, or a grid file before all flags"
            raise SettingError("vary", "nothing", hint)
        cells = []
        for values in itertools.product(*([_value(axis, one) for one in self.axes[axis]] for axis in self.axes)):
            place = {"grid": self.name} if self.name else {}
            place |= dict(zip(self.axes, (called for called, _ in values), strict=True))
            extra = (argument for _, arguments in values for argument in arguments)
            cells.append(Cell(place, (*self.shared, *extra)))
        names = [cell.name for cell in cells]
        for cell in cells:
            if names.count(cell.name) > 1:
                raise FlickerError(f"vary: two cells are both called {cell.name}: give their values other names")
            _require_valid(cell)
        return cells


def read_grid(path: Path, replay: bool = False) -> list[Grid]:
    """The grids in a TOML file. Raises DataError where it is no such file.

    `replay`: the command line names a log; a file that names one, for all grids or for one, is for a log as well.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise DataError(f"{path}: {(problem.strerror or str(problem)).lower()}: name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: {problem}: see flicker sweep --help for what such a file holds") from None
    tables = content.pop("grid", [{"vary": content.pop("vary", {})}])
    for section, value in content.items():
        if section not in ("run", "replay", "synthetic") or not isinstance(value, dict):
            raise DataError(f"{path}: {section}: only the tables [run], [vary], [[grid]] and flags per world are known")
    good = isinstance(tables, list) and tables and all(isinstance(one, dict) for one in tables)
    if not good or "vary" in content:
        raise DataError(f"{path}: grid: only the tables [[grid]], each with name and vary, and no [vary] beside them")
    grids = [_grid(path, one, content, replay) for one in tables]
    if len({grid.name for grid in grids}) < len(grids):
        raise DataError(f"{path}: grid: give each [[grid]] a name of its own")
    return grids


def _grid(path: Path, one: Mapping[str, Any], content: Mapping[str, Any], replay: bool) -> Grid:
    unknown = [key for key in one if key not in ("name", "run", "vary")]
    if unknown:
        raise DataError(f"{path}: grid.{unknown[0]}: only name, run and vary are known")
    name, run, axes = one.get("name", ""), one.get("run", {}), one.get("vary", {})
    if not isinstance(name, str):
        raise DataError(f'{path}: grid.name = {name}: text, as in name = "plane"')
    if not isinstance(run, dict):
        raise DataError(f"{path}: grid.run = {run}: a table of flags, as in run = {{ fleets = 2 }}")
    if not isinstance(axes, dict):
        raise DataError(f"{path}: vary = {axes}: a table of flags and their values")
    everywhere = content.get("run", {})
    replay = replay or any("data" in table for table in (everywhere, run, axes))
    try:
        shared = [_flags(table) for table in (everywhere, content.get("replay" if replay else "synthetic", {}), run)]
        for axis, values in axes.items():
            if not isinstance(values, list) or not values:
                raise DataError(f"{path}: vary.{axis} = {values}: a list of values")
            for value in values:
                _value(axis, value)
    except SettingError as problem:
        raise DataError(f"{path}: {problem}") from None
    return Grid(tuple(itertools.chain(*shared)), axes, name)


def _flags(table: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(argument for flag, value in table.items() for argument in arguments(flag, value))


def arguments(flag: str, value: Any) -> tuple[str, ...]:
    """A flag of `flicker run` with its value: `--arms relu gelu`, `--reductions`, `--no-reductions`."""
    name = flag.replace("_", "-")
    if flag in NOT_VARIED:
        raise SettingError(flag, value, "the sweep gives each run a folder of its own: use its own --out and --resume")
    if isinstance(value, bool) or value in ("true", "false"):
        return (f"--{name}",) if value in (True, "true") else (f"--no-{name}",)
    try:
        words = [str(word) for word in value] if isinstance(value, list) else shlex.split(str(value))
    except ValueError:  # shlex: no closing quotation, no escaped character
        raise SettingError(flag, value, "close the quotation mark, or double the backslash, that it holds") from None
    return (f"--{name}", *words)


def _value(axis: str, value: Any) -> tuple[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        return str(value), arguments(axis, value)
    flags = {flag: one for flag, one in value.items() if flag != "name"}
    called = value.get("name") or ",".join(f"{flag}={one}" for flag, one in flags.items())
    return str(called), tuple(argument for flag, one in flags.items() for argument in arguments(flag, one))


def _require_valid(cell: Cell) -> None:
    """What `flicker run` can say about its flags before it opens the log."""
    try:
        flags = parse_run(list(cell.arguments))
        if flags.spread != Spread():
            raise FlickerError("part, parts, backend: a sweep runs whole runs: give the sweep --backend ray")
        parse_arms(flags.config().arms)
    except FlickerError as problem:
        raise FlickerError(f"{cell.name}: {problem}") from None
