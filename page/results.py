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
from simulator.sweep.record import place_of, read_record
from simulator.words import label

MAX_DEPTH = 4
"""Folders below each other in which results are looked for."""
MAX_RESULTS = 2_000
"""Results that are read at most."""
INNER_PREFIXES = ("checkpoint", "seed-", "predictions", "trainer", "store", "spool", "damaged")
"""Beginnings of the names of folders inside a result, which hold no further results."""


@dataclass(frozen=True)
class Setting:
    """One arm of one result."""

    name: str
    """Unique among those of a list."""
    words: str
    arm: Arm
    result: Result

    def settings(self) -> dict[str, Any]:
        """All settings of its run."""
        config = {name: value for name, value in self.result.config.items() if name != "arms"}
        return {"arm": self.arm.spec, "world name": self.result.world.get("name"), **self.arm.design, **config}


@dataclass(frozen=True)
class SettingGroup:
    """Settings that belong together: a run, or the cells of a sweep."""

    words: str
    settings: list[Setting]


class Results:
    """The results in the folders; one is read again when its file has changed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._read: dict[Path, tuple[int, Result]] = {}
        self.problems: list[str] = []
        """What could not be read, a line each."""

    def groups(self, pool: bool) -> list[SettingGroup]:
        """All groups, in the order of the paths; `pool`: cells that differ by their seed alone are one."""
        self.problems = []
        collected, visited = list[SettingGroup](), set[Path]()
        for path in self._paths:
            for folder in self._folders(path, visited):
                if (folder / "sweep.json").exists():
                    collected.append(SettingGroup(f"sweep {folder}", self._sweep(folder, pool)))
                elif (result := self._result(folder)) is not None:
                    collected.append(SettingGroup(str(folder), _settings("", result)))
        return [group for group in collected if group.settings]

    def _folders(self, path: Path, visited: set[Path]) -> Iterator[Path]:
        """Folders of results and of sweeps at or below a path, each once."""
        start = path.parent if path.name == "result.json" else path
        for root, subfolders, files in os.walk(start):
            folder, depth = Path(root), Path(root).relative_to(start).parts
            subfolders[:] = sorted(
                name for name in subfolders if len(depth) < MAX_DEPTH and not name.startswith(INNER_PREFIXES)
            )
            if "sweep.json" in files:
                subfolders[:] = []
            if (
                {"sweep.json", "result.json"} & set(files)
                and folder.resolve() not in visited
                and len(visited) < MAX_RESULTS
            ):
                visited.add(folder.resolve())
                yield folder

    def _sweep(self, folder: Path, pool: bool) -> list[Setting]:
        try:
            record = read_record(folder / "sweep.json")
        except FlickerError as problem:
            self.problems.append(str(problem))
            return []
        by_key: dict[str, list[tuple[Path, Result]]] = {}
        for name in list(record["cells"])[:MAX_RESULTS]:
            place = record["places"].get(name) or place_of(name)
            key = ", ".join(f"{axis} {level}" for axis, level in place.items() if not (pool and axis == "seed"))
            cell = folder / "cells" / name
            if (cell / "result.json").exists() and (result := self._result(cell)) is not None:
                by_key.setdefault(key, []).append((cell, result))
        return [setting for key, cells in by_key.items() for setting in self._pooled(key, cells)]

    def _pooled(self, key: str, cells: list[tuple[Path, Result]]) -> list[Setting]:
        """Cells as one where they hold the same measures, else each alone."""
        try:
            return _settings(key, pooled(cells))
        except FlickerError as problem:
            self.problems.append(str(problem))
            return [setting for cell, result in cells for setting in _settings(cell.name, result)]

    def _result(self, folder: Path) -> Result | None:
        """Without the parts that only a report draws: a sweep may hold thousands."""
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
    numerator, denominator = other.arm.measures.get(measure), one.arm.measures.get(measure)
    if measure == GAP or numerator is None or denominator is None or numerator.mean < 0 or denominator.mean <= 0:
        return None
    return independent_ratio(numerator, denominator)


def differing_settings(one: Setting, other: Setting) -> dict[str, tuple[Any, Any]]:
    """Settings in which they differ, by dotted names, with both values."""
    return differing(one.settings(), other.settings())
