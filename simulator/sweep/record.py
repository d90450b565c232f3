"""The folder of a sweep: which cells belong to it, and results that cannot be read.

OUT/sweep.json      {"command": "flicker sweep ...", "cells": {NAME: [argument of flicker run, ...]},
                     "places": {NAME: {axis: value}}}
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from simulator.errors import ResultError
from simulator.files import require_empty, write_atomically, writing
from simulator.result import read_result
from simulator.sweep.grid import Cell
from simulator.sweep.places import place_of, read_record


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
