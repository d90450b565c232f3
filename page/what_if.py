"""The tab What if: the expected changes for a user who asks again, by how the recommender is served."""

from __future__ import annotations

import statistics
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from markupsafe import Markup
from nicegui import run, ui

from page.parts import Chart, Dot, Html, LineSeries, Select, TextInput, legend, notes, over_gap, rows, table, value
from page.runs import Groups, Results
from page.source import LiveSource
from simulator.decide.situation import Situation, what_a_user_sees
from simulator.errors import FlickerError
from simulator.measures.registry import MEASURES
from simulator.measures.words import CAUSES, label
from simulator.result import Arm

LIVE = "live"
GAPS = [10 ** (power / 8) for power in range(0, 45)]
"""Seconds after which a user asks again, from 1 s to 3.7 days: where the curve is drawn."""
ROUTING = {"random": "random: another replica each time", "sticky": "sticky: the same replica for a user"}


class WhatIf:
    """The situation that one viewer tries."""

    def __init__(self, source: LiveSource, results: Results) -> None:
        self._source, self._results = source, results
        self._groups: Groups | None = None
        """Finished results, once they are read."""
        measures = {name: measure.words for name, measure in MEASURES.items() if measure.swap}
        default = Situation()
        with ui.element("div").classes("fields"):
            self._measured_by = Select("Measured by", {LIVE: "this system, the last minute"}, self._draw)
            self._measure = Select("Measure", measures, self._draw, "slot")
            self._models = TextInput("Independent models", str(default.models), self._draw, (1, 1_000))
            self._routing = Select("Routing", ROUTING, self._draw)
            self._every = TextInput("A refresh every", default.refresh_every, self._draw, size="6")
            self._rollout = TextInput("Rolled out within", default.rollout, self._draw, size="6")
            self._asks_again = TextInput("Asks again after", default.asks_again, self._draw, size="6")
        ui.label("Times are a number and s, m, h or d, such as 10m.").classes("note")
        self._problem = Html(role="alert")
        self._sentence = Html(role="status")
        self._legend = Html()
        with ui.element("div").classes("charts"):
            self._expected = Chart()
            self._curve = Chart()
        self._table = Html()
        self._drawn = -1
        """Poll of the source that was drawn last."""
        self._is_fitted = False

    async def show(self) -> None:
        """Draw the running system's newest measures; beside it, finished results can be asked about."""
        if self._groups is None:
            self._groups = await run.io_bound(self._results.groups, True) or {}
            live = {LIVE: "this system, the last minute"} if self._source.moments else {}
            self._measured_by.offer(live | {name: name for name in self._groups})
            self._draw()
        if self._source.looks != self._drawn and self._measured_by.value == LIVE:
            self._drawn = self._source.looks
            self._fit()
            self._draw()

    def _fit(self) -> None:
        """Once: the situation of the running system, as far as it is known."""
        world, times = self._source.world, [at for at, _ in [*self._source.refreshes][1:]]
        if self._is_fitted or world is None or len(times) < 2:
            return
        self._is_fitted = True
        every = max(1.0, statistics.median(after - before for before, after in pairwise(times)))
        self._models.set(str(world.duplicates))
        self._every.set(f"{every:.0f}s")
        self._rollout.set("1s")
        self._asks_again.set("5s")

    def _arms(self) -> list[tuple[str, Arm]]:
        if self._measured_by.value == LIVE:
            return [(label(arm), self._source.measured(arm)) for arm in self._source.arms()]
        return [(setting.words, setting.arm) for setting in (self._groups or {}).get(self._measured_by.value, [])]

    def _draw(self, _: str = "") -> None:
        try:
            routing: Literal["random", "sticky"] = "sticky" if self._routing.value == "sticky" else "random"
            times = self._every.value, self._rollout.value, self._asks_again.value
            situation = Situation(self._models.number(), routing, *times)
        except FlickerError as problem:
            return self._problem.show(notes([problem], "refused"))
        self._problem.show(Markup(""))
        self._sentence.show(Markup("<p>With this, {}.</p>").format(str(situation)))
        arms = self._arms()
        self._legend.show(legend([words for words, _ in arms]))
        self._draw_expected(arms, situation)
        self._draw_curve(arms, situation)

    def _draw_expected(self, arms: list[tuple[str, Arm]], situation: Situation) -> None:
        measure = MEASURES[self._measure.value]
        dots, lines, remarks = [], [], dict[str, None]()
        for place, (words, arm) in enumerate(arms):
            change = what_a_user_sees(arm, situation, measure.name)
            if change is None:
                remarks["Where an arm is missing, what its refreshes change was not measured (yet)."] = None
                continue
            dots.append(Dot(words, place, change.total))
            parts = [value(change.parts.get(cause)) for cause in CAUSES]
            lines.append([words, value(change.total), *parts])
            remarks |= dict.fromkeys(f"{note[0].upper()}{note[1:]}." for note in change.notes)
        about = f"{measure.about} Expected between two answers to one user, from what was measured by cause."
        options = rows(dots, f"{measure.words} ({measure.unit})")
        self._expected.show(f"What a user sees change: {measure.words}", about, options, len(dots))
        heads = ["", f"{measure.words} in all", "by another model", "by a refresh", "by both"]
        self._table.show(Markup("<h3>By cause</h3>") + table(heads, lines) + notes(remarks))

    def _draw_curve(self, arms: list[tuple[str, Arm]], situation: Situation) -> None:
        measure = MEASURES[self._measure.value]
        lines = []
        for place, (words, arm) in enumerate(arms):
            points = [
                (gap, change.total.mean)
                for gap in GAPS
                if (change := what_a_user_sees(arm, replace(situation, asks_again=f"{gap:.3f}s"), measure.name))
            ]
            lines += [LineSeries(words, place, points)] if points else []
        about = "The same over the time until the user asks again; the upright line is the time above."
        across, up = "asks again after (s)", f"{measure.words} ({measure.unit})"
        self._curve.show("The longer a user waits", about, over_gap(lines, across, up, situation.times[2]))
