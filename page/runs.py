"""The tab Runs: finished results and sweeps in folders, as settings that are set side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup
from nicegui import run, ui

from page.parts import Chart, Dot, Html, Select, button, notes, plane, rows, table, value
from simulator.decide.evidence import independent_ratio
from simulator.errors import FlickerError
from simulator.measures.registry import ACCURACY, DIFFERENCES, GAP, MEASURES, PERSONALISATION, QUALITIES
from simulator.measures.words import label, percent, summed_up, word
from simulator.report.pool import pooled
from simulator.result import Arm, Result, differing, read_result
from simulator.sweep.record import place_of, read_record
from simulator.types import Interval

MAX_DEPTH = 4
"""Folders below each other in which results are looked for."""
MAX_RESULTS = 2_000
"""Results that are read at most."""
INNER_PREFIXES = ("checkpoint", "seed-", "predictions", "trainer", "store", "spool", "damaged")
"""Beginnings of the names of folders inside a result, which hold no further results."""
INSTABILITY = [
    "pd",
    *(f"{cause}.{name}" for cause in ("swaps", "refresh_swaps") for name in MEASURES),
    "user_visible_slot_ratio",
]
"""Measures of instability, as results call them."""
QUALITY = [*ACCURACY, *QUALITIES, PERSONALISATION]
"""Measures of quality."""
UNITS = {"log_loss": "nats", "auc": "share", "calibration": "ratio"}
SEEDS = {"pool": "those alike but for their seed as one", "alone": "each seed alone"}


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


Groups = dict[str, list[Setting]]
"""Settings that belong together by what they are called: a run, or the cells of a sweep."""


class Results:
    """The results in the folders; one is read again when its file has changed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._read: dict[Path, tuple[int, Result]] = {}
        self.problems: list[str] = []
        """What could not be read, a line each."""

    def groups(self, pool: bool) -> Groups:
        """All groups, in the order of the paths; `pool`: cells that differ by their seed alone are one."""
        self.problems = []
        groups, visited = Groups(), set[Path]()
        for path in self._paths:
            for folder in self._folders(path, visited):
                if (folder / "sweep.json").exists():
                    groups[f"sweep {folder}"] = self._sweep(folder, pool)
                elif (result := self._result(folder)) is not None:
                    groups[str(folder)] = _settings("", result)
        return {words: settings for words, settings in groups.items() if settings}

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
            place, holds_results = folder.resolve(), bool({"sweep.json", "result.json"} & set(files))
            if holds_results and place not in visited and len(visited) < MAX_RESULTS:
                visited.add(place)
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


class Runs:
    """What one viewer compares."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._groups: Groups = {}
        self._is_read = False
        with ui.element("div").classes("fields"):
            self._group = Select("Results", {}, lambda _: self._offer())
            self._seeds = Select("Seeds", SEEDS, lambda _: self._reload())
            button("Read again", self._reload, "Look for results that were finished since")
        with ui.element("div").classes("fields"):
            self._one = Select("One setting", {}, lambda _: self._draw())
            self._other = Select("Other setting", {}, lambda _: self._draw())
        self._problems = Html(role="status")
        self._differences = Html()
        with ui.element("div").classes("fields"):
            self._instability = Select("Instability", {}, lambda _: self._draw())
            self._quality = Select("Quality", {}, lambda _: self._draw())
            self._column = Select("Slices by", {}, lambda _: self._draw())
        with ui.element("div").classes("charts"):
            self._plane = Chart()
            self._slices = Chart()
        self._measures = Html()

    async def show(self) -> None:
        """Read the results when they are first looked at."""
        if not self._is_read:
            await self._reload()

    async def _reload(self) -> None:
        self._is_read = True
        pool = self._seeds.value == "pool"
        self._groups = await run.io_bound(self._results.groups, pool) or {}
        self._group.offer({name: f"{name} ({len(group)} settings)" for name, group in self._groups.items()})
        problems = [*self._results.problems]
        if not self._groups:
            problems.append("No finished results there: flicker run, sweep, up and compare leave them in --out.")
        self._problems.show(notes(problems[:5], "refused"))
        self._offer()

    def _offer(self) -> None:
        """The settings of a group, and what was measured on them."""
        settings = self._groups.get(self._group.value, [])
        names = {setting.name: setting.words for setting in settings}
        self._one.offer(names)
        self._other.offer(names, [*names][min(1, len(names) - 1)] if names else "")
        measured = {name for setting in settings for name in setting.arm.measures}
        self._instability.offer({name: word(name).words for name in INSTABILITY if name in measured})
        self._quality.offer({name: word(name).words for name in QUALITY if name in measured})
        self._draw()

    def _draw(self) -> None:
        group = self._groups.get(self._group.value)
        if group is None:
            return
        by_name = {setting.name: setting for setting in group}
        one, other = by_name[self._one.value], by_name[self._other.value]
        self._column.offer({column: column for setting in (one, other) for column in setting.arm.by})
        self._column.visible(self._column.value != "")
        self._draw_plane(group, one, other)
        self._draw_slices(one, other)
        self._differences.show(differences_table(one, other))
        self._measures.show(measures_table(one, other))

    def _draw_plane(self, group: list[Setting], one: Setting, other: Setting) -> None:
        across, up = self._quality.value, self._instability.value
        dots = []
        for setting in group:
            x, y = setting.arm.measures.get(across), setting.arm.measures.get(up)
            if x is not None and y is not None:
                chosen = {one.name: 1, other.name: 2}.get(setting.name)
                dots.append(Dot(setting.words, chosen or 0, x, y, chosen is not None))
        title = f"{word(up).words} against {word(across).words}"
        about = f"{word(up).about} {word(across).about} Blue: the one setting, orange: the other, with 95 % intervals; "
        about += "grey: all others of the group. Lower is steadier."
        self._plane.show(title, about, plane(dots, _axis(across), _axis(up)))

    def _draw_slices(self, one: Setting, other: Setting) -> None:
        column, measure = self._column.value, self._instability.value
        both = [{part.value: part for part in setting.arm.by.get(column, ())} for setting in (one, other)]
        dots = [
            Dot(f"{name}\n{percent(parts[name].share)} of queries", look, parts[name].measures[measure])
            for name in dict.fromkeys(name for parts in both for name in parts)
            for look, parts in enumerate(both, 1)
            if name in parts and measure in parts[name].measures
        ]
        about = "Blue: the one setting, orange: the other, on the queries of each value of the column."
        title = f"{word(measure).words} by {column}"
        self._slices.show(title, about, rows(dots, _axis(measure)), len(dots))


def measures_table(one: Setting, other: Setting) -> Markup:
    """All measures of both, and their ratio."""
    both = [setting.arm.measures for setting in (one, other)]
    measured = dict.fromkeys(name for measures in both for name in measures)
    names = dict.fromkeys([*summed_up(both, MEASURES), *(name for name in measured if name in ACCURACY)])
    lines = []
    for name, words in zip(names, map(word, names), strict=True):
        heading = Markup('<span title="{}">{}</span>').format(words.about, words.words)
        cells = [value(measures.get(name), words.places) for measures in both]
        lines.append([heading, *cells, value(ratio_between(one, other, name), 3)])
    note = "Ratios are paired where one result holds both settings, else of independent estimates. "
    note += "One whose interval holds 1 shows no difference. PD and swaps: lower is steadier; log loss in nats."
    heads = ["", f"one: {one.words}", f"other: {other.words}", "other / one"]
    return Markup("<h3>Measures</h3>") + notes([note]) + table(heads, lines)


def differences_table(one: Setting, other: Setting) -> Markup:
    """What they differ in."""
    differing = differing_settings(one, other)
    if not differing:
        return Markup("<p>These are the same settings: choose two.</p>")
    lines = [[Markup("<code>{}</code>").format(name), *map(_formatted, both)] for name, both in differing.items()]
    return Markup("<h3>Settings that differ</h3>{}").format(table(["setting", "one", "other"], lines))


def _formatted(setting: Any) -> str:
    if isinstance(setting, list):
        return " ".join(map(str, setting))
    return "not set" if setting is None else str(setting)


def _axis(measure: str) -> str:
    name = measure.rpartition(".")[2]
    units = {known: measure.unit for known, measure in MEASURES.items()} | UNITS
    unit = units.get(name, "relative difference" if name in DIFFERENCES else "share")
    return f"{word(measure).words} ({unit})"
