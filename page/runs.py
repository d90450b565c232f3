"""The tab Runs: two settings of any grid side by side: measures, accuracy beside swaps, slices, what differs."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from nicegui import run, ui

from page.charts import Dot, plane, rows
from page.parts import Chart, Html, Select, button, table, value
from page.results import Results, Setting, SettingGroup, differing_settings, ratio_between
from simulator.measures.registry import ACCURACY, DIFFERENCES, MEASURES, PERSONALISATION, QUALITIES
from simulator.words import percent, summed_up, word

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


class Runs:
    """What one viewer compares."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._groups: dict[str, SettingGroup] = {}
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
        self._groups = {group.words: group for group in await run.io_bound(self._results.groups, pool) or ()}
        self._group.offer({name: f"{name} ({len(group.settings)} settings)" for name, group in self._groups.items()})
        problems = [*self._results.problems]
        if not self._groups:
            problems.append("No finished results there: flicker run, sweep, up and compare leave them in --out.")
        lines = Markup("").join(Markup("<p class=refused>{}</p>").format(problem) for problem in problems[:5])
        self._problems.show(lines)
        self._offer()

    def _offer(self) -> None:
        """The settings of a group, and what was measured on them."""
        group = self._groups.get(self._group.value)
        settings = group.settings if group else []
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
        by_name = {setting.name: setting for setting in group.settings}
        one, other = by_name[self._one.value], by_name[self._other.value]
        self._column.offer({column: column for setting in (one, other) for column in setting.arm.by})
        self._column.visible(self._column.value != "")
        self._draw_plane(group, one, other)
        self._draw_slices(one, other)
        self._differences.show(differences_table(one, other))
        self._measures.show(measures_table(one, other))

    def _draw_plane(self, group: SettingGroup, one: Setting, other: Setting) -> None:
        across, up = self._quality.value, self._instability.value
        dots = []
        for setting in group.settings:
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
        dots = []
        parts = {
            setting.name: {part.value: part for part in setting.arm.by.get(column, ())} for setting in (one, other)
        }
        for slice_value in dict.fromkeys(slice_value for slices in parts.values() for slice_value in slices):
            for look, setting in ((1, one), (2, other)):
                part = parts[setting.name].get(slice_value)
                if part is not None and measure in part.measures:
                    words = f"{slice_value}\n{percent(part.share)} of queries"
                    dots.append(Dot(words, look, part.measures[measure]))
        about = "Blue: the one setting, orange: the other, on the queries of each value of the column."
        title = f"{word(measure).words} by {column}"
        self._slices.show(title, about, rows(dots, _axis(measure)), len(dots))


def measures_table(one: Setting, other: Setting) -> Markup:
    """All measures of both, and their ratio."""
    both = [setting.arm.measures for setting in (one, other)]
    names = summed_up(both, MEASURES)
    names += [
        name
        for name in dict.fromkeys(name for measures in both for name in measures)
        if name in ACCURACY and name not in names
    ]
    lines = []
    for name in names:
        wording = word(name)
        heading = Markup('<span title="{}">{}</span>').format(wording.about, wording.words)
        lines.append(
            [
                heading,
                *(value(measures.get(name), wording.places) for measures in both),
                value(ratio_between(one, other, name), 3),
            ]
        )
    note = "Ratios are paired where one result holds both settings, else of independent estimates. "
    note += "One whose interval holds 1 shows no difference. PD and swaps: lower is steadier; log loss in nats."
    heads = ["", f"one: {one.words}", f"other: {other.words}", "other / one"]
    return Markup("<h3>Measures</h3><p class=note>{}</p>{}").format(note, table(heads, lines))


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
    unit = (
        MEASURES[name].unit
        if name in MEASURES
        else UNITS.get(name, "relative difference" if name in DIFFERENCES else "share")
    )
    return f"{word(measure).words} ({unit})"
