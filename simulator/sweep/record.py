"""The folder of a sweep: its cells, which of them belong to it, and results that cannot be read.

OUT/sweep.json      {"command": "flicker sweep ...", "cells": {NAME: [argument of flicker run, ...]},
                     "places": {NAME: {axis: value}}}

It is read here also for those who know nothing of grids or torch.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import ResultError
from simulator.files import require_empty, write_atomically, writing
from simulator.result import load_json, read_result


@dataclass(frozen=True)
class Cell:
    """One run: where it stands in the grid, its folder's name, and the arguments of `flicker run`."""

    place: Mapping[str, str]
    """Axis -> the value as the user wrote it."""
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Readable, and safe as the name of a folder: `arms=smelu-beta=1,seed=0`."""
        return ",".join(f"{axis}={re.sub(r'[^A-Za-z0-9.=+-]+', '-', value)}" for axis, value in self.place.items())


def claim(out: Path, cells: list[Cell], command: str, resume: bool) -> list[Cell]:
    """Write sweep.json; returns all cells of the folder, those of earlier commands first.

    Raises ResultError where the folder holds something else, or another run of the same name.
    """
    record = out / "sweep.json"
    if not resume:
        require_empty(out, "go on with --resume")
    elif not record.exists():
        raise ResultError(f"out = {out}: no sweep to resume there: leave --resume away")
    before: dict[str, Any] = read_record(record) if resume else {"command": command, "cells": {}, "places": {}}
    recorded, places = before["cells"], before["places"]
    wanted = {cell.name: list(cell.arguments) for cell in cells}
    for name in recorded.keys() & wanted.keys():
        if recorded[name] != wanted[name]:
            raise ResultError(f"out = {out}: cell {name} ran with {' '.join(recorded[name])}: name another folder")
    grown = bool(wanted.keys() - recorded.keys())  # who only went on repeats the sweep by its first command
    content = {"command": command if grown else before["command"], "cells": recorded | wanted}
    content["places"] = places | {cell.name: dict(cell.place) for cell in cells}
    with writing("out", out):
        (out / "cells").mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps(content, indent=1).encode())
    earlier = [
        Cell(places.get(name) or place_of(name), tuple(recorded[name])) for name in recorded if name not in wanted
    ]
    return [*earlier, *cells]


def set_aside(cells: list[Cell], out: Path) -> list[str]:
    """Move every result that cannot be read to OUT/damaged, so that its cell runs again; returns what was done."""
    done = []
    for cell in cells:
        place = out / "cells" / cell.name
        if not (place / "result.json").exists():
            continue
        try:
            read_result(place)
        except ResultError as problem:
            names = (out / "damaged" / f"{cell.name}.{number}" for number in itertools.count(1))
            aside = next(name for name in names if not name.exists())
            with writing("out", out):
                aside.parent.mkdir(exist_ok=True)
                place.rename(aside)
            done.append(f"{problem}: now in {aside}, and run again here")
    return done


MEND = "mend it, or name another folder with --out"


def read_record(record: Path) -> dict[str, Any]:
    """`command`, `cells` (name -> arguments) and `places` (name -> {axis: value}). Raises ResultError."""
    content = load_json(record, MEND, MEND)
    content.setdefault("places", {})  # older versions wrote none
    good = {
        "command": isinstance(content.get("command"), str),
        "cells": _each(content.get("cells"), _words),
        "places": _each(content["places"], lambda place: _each(place, lambda value: isinstance(value, str))),
    }
    for name in (name for name, is_good in good.items() if not is_good):
        raise ResultError(f"{record}: {name} = {json.dumps(content.get(name))[:60]}: is damaged: {MEND}")
    return content


def _each(value: Any, good: Callable[[Any], bool]) -> bool:
    """Whether it is a JSON object whose values are all good."""
    return isinstance(value, dict) and all(map(good, value.values()))


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def place_of(name: str) -> dict[str, str]:
    """Where a cell of this name stands in its grid, in the letters that the name has left of it."""
    parts = (part.partition("=") for part in name.split(","))
    return {axis: value for axis, _, value in parts}
