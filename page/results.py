"""Finished results and sweeps in folders, as settings that can be set side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator.decide.evidence import independent_ratio
from simulator.errors import FlickerError
from simulator.measures.intervals import Interval
from simulator.measures.registry import GAP
from simulator.report.pool import pooled
from simulator.result import Arm, Result, differing, read_result
from simulator.sweep.places import place_of, read_record
from simulator.words import label

DEEP = 4
"""Folders below each other in which results are looked for."""
MOST = 2_000
"""Results that are read at most."""
INSIDE = ("checkpoint", "seed-", "predictions", "trainer", "store", "spool", "damaged")
"""Beginnings of the names of folders inside a result, which hold none of their own."""


@dataclass(frozen=True)
class Setting:
    """One arm of one result."""

    name: str
    """Unique among those of a list."""
    words: str
    arm: Arm
    result: Result

    def settings(self) -> dict[str, Any]:
        """All that it was asked for."""
        config = {name: each for name, each in self.result.config.items() if name != "arms"}
        return {"arm": self.arm.spec, "world name": self.result.world.get("name"), **self.arm.design, **config}


@dataclass(frozen=True)
class Group:
    """Settings that belong together: a run, or the cells of a sweep."""

    words: str
    settings: list[Setting]


class Results:
    """What is in the folders; a result is read again when its file has changed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._read: dict[Path, tuple[int, Result]] = {}
        self.problems: list[str] = []
        """What could not be read, a line each."""

    def groups(self, pool: bool) -> list[Group]:
        """All of them, sweeps first as they are found; `pool`: cells that differ by their seed alone are one."""
        self.problems = []
        found, seen = list[Group](), set[Path]()
        for path in self._paths:
            for folder in self._folders(path, seen):
                if (folder / "sweep.json").exists():
                    found.append(Group(f"sweep {folder}", self._sweep(folder, pool)))
                elif (result := self._result(folder)) is not None:
                    found.append(Group(str(folder), _settings("", result)))
        return [group for group in found if group.settings]

    def _folders(self, path: Path, seen: set[Path]) -> Iterator[Path]:
        """Folders of results and of sweeps at or below a path, each once."""
        start = path.parent if path.name == "result.json" else path
        for at, inside, files in os.walk(start):
            folder, below = Path(at), Path(at).relative_to(start).parts
            inside[:] = sorted(name for name in inside if len(below) < DEEP and not name.startswith(INSIDE))
            if "sweep.json" in files:
                inside[:] = []
            if {"sweep.json", "result.json"} & set(files) and folder.resolve() not in seen and len(seen) < MOST:
                seen.add(folder.resolve())
                yield folder

    def _sweep(self, folder: Path, pool: bool) -> list[Setting]:
        try:
            record = read_record(folder / "sweep.json")
        except FlickerError as problem:
            self.problems.append(str(problem))
            return []
        alike: dict[str, list[tuple[Path, Result]]] = {}
        for name in list(record["cells"])[:MOST]:
            place = record["places"].get(name) or place_of(name)
            key = ", ".join(f"{axis} {at}" for axis, at in place.items() if not (pool and axis == "seed"))
            cell = folder / "cells" / name
            if (cell / "result.json").exists() and (result := self._result(cell)) is not None:
                alike.setdefault(key, []).append((cell, result))
        return [each for key, cells in alike.items() for each in self._pooled(key, cells)]

    def _pooled(self, key: str, cells: list[tuple[Path, Result]]) -> list[Setting]:
        """Cells as one where they measure the same, else each alone."""
        try:
            return _settings(key, pooled(cells))
        except FlickerError as problem:
            self.problems.append(str(problem))
            return [each for cell, result in cells for each in _settings(cell.name, result)]

    def _result(self, folder: Path) -> Result | None:
        """Without what is only drawn by a report: a sweep may hold thousands."""
        try:
            changed = (folder / "result.json").stat().st_mtime_ns
            if self._read.get(folder, (0, None))[0] != changed:
                result = read_result(folder)
                arms = [replace(arm, activation=None, buckets={}) for arm in result.arms]
                self._read[folder] = changed, replace(result, arms=arms, generations=[], example=None)
            return self._read[folder][1]
        except (OSError, FlickerError) as problem:
            self.problems.append(str(problem))
            return None


def _settings(place: str, result: Result) -> list[Setting]:
    """`place`: where in a sweep it stands; the arm's own name comes first, as a narrow list cuts the end."""
    words = f", {place}" if place else ""
    return [Setting(f"{place}#{arm.spec}", f"{label(arm.spec)}{words}", arm, result) for arm in result.arms]


def ratio_between(one: Setting, other: Setting, measure: str) -> Interval | None:
    """The other's measure / the one's: paired where one result gives it, else of two independent estimates."""
    if one.result is other.result and (paired := other.arm.ratio(one.arm, measure)) is not None:
        return paired
    own, base = other.arm.measures.get(measure), one.arm.measures.get(measure)
    if measure == GAP or own is None or base is None or own.mean < 0 or base.mean <= 0:
        return None
    return independent_ratio(own, base)


def settings_apart(one: Setting, other: Setting) -> dict[str, tuple[Any, Any]]:
    """Settings in which they differ, by dotted names, with both values."""
    return differing(one.settings(), other.settings())
