"""The tab What if: what a user who asks again would see change, were the recommender served in another way."""

from __future__ import annotations

import statistics
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from markupsafe import Markup
from nicegui import ui

from page.charts import Dot, Line, over_gap, rows
from page.parts import Chart, Choice, Field, Html, legend, table, value
from page.results import Group
from page.source import Source
from simulator.decide.situation import Situation, what_a_user_sees
from simulator.errors import FlickerError
from simulator.measures.registry import MEASURES
from simulator.result import Arm
from simulator.words import CAUSES, label

LIVE = "live"
GAPS = [10 ** (power / 8) for power in range(0, 45)]
"""Seconds after which a user asks again, from 1 s to 3.7 days: where the curve is drawn."""
ROUTING = {"random": "random: another replica each time", "sticky": "sticky: the same replica for a user"}


class WhatIf:
    """The situation that one viewer tries."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._groups: dict[str, Group] = {}
        measures = {name: measure.words for name, measure in MEASURES.items() if measure.swap}
        default = Situation()
        with ui.element("div").classes("fields"):
            self._from = Choice("Measured by", {LIVE: "this system, the last minute"}, self._draw)
            self._measure = Choice("Measure", measures, self._draw, "slot")
            self._models = Field("Independent models", str(default.models), self._draw, (1, 1_000))
            self._routing = Choice("Routing", ROUTING, self._draw)
            self._every = Field("A refresh every", default.refresh_every, self._draw, size="6")
            self._rollout = Field("Rolled out within", default.rollout, self._draw, size="6")
            self._asks = Field("Asks again after", default.asks_again, self._draw, size="6")
        ui.label("Times are a number and s, m, h or d, such as 10m.").classes("note")
        self._problem = Html(role="alert")
        self._said = Html(role="status")
        self._legend = Html()
        with ui.element("div").classes("charts"):
            self._seen = Chart()
            self._curve = Chart()
        self._table = Html()
        self._drawn = -1
        """Look of the source that was drawn last."""
        self._is_fitted = False

    def show(self) -> None:
        """Draw what this system measured meanwhile."""
        if self._source.looks != self._drawn and self._from.value == LIVE:
            self._drawn = self._source.looks
            self._fit()
            self._draw()

    def offer(self, groups: list[Group]) -> None:
        """Finished results whose arms can be asked about, beside the running system."""
        self._groups = {group.words: group for group in groups}
        live = {LIVE: "this system, the last minute"} if self._source.moments else {}
        self._from.offer(live | {name: name for name in self._groups})
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
        self._asks.set("5s")

    def _arms(self) -> list[tuple[str, Arm]]:
        if self._from.value == LIVE:
            return [(label(arm), self._source.measured(arm)) for arm in self._source.arms()]
        group = self._groups.get(self._from.value)
        return [(setting.words, setting.arm) for setting in group.settings] if group else []

    def _draw(self, _: str = "") -> None:
        try:
            routing: Literal["random", "sticky"] = "sticky" if self._routing.value == "sticky" else "random"
            times = self._every.value, self._rollout.value, self._asks.value
            situation = Situation(self._models.number(), routing, *times)
        except FlickerError as problem:
            return self._problem.show(Markup("<p class=refused>{}</p>").format(problem))
        self._problem.show(Markup(""))
        self._said.show(Markup("<p>With this, {}.</p>").format(str(situation)))
        arms = self._arms()
        self._legend.show(legend([words for words, _ in arms]))
        self._draw_seen(arms, situation)
        self._draw_curve(arms, situation)

    def _draw_seen(self, arms: list[tuple[str, Arm]], situation: Situation) -> None:
        measure = MEASURES[self._measure.value]
        dots, lines, notes = [], [], dict[str, None]()
        for place, (words, arm) in enumerate(arms):
            seen = what_a_user_sees(arm, situation, measure.name)
            if seen is None:
                notes["Where an arm is missing, what its refreshes change was not measured (yet)."] = None
                continue
            dots.append(Dot(words, place, seen.total))
            parts = [value(seen.parts.get(cause)) for cause in CAUSES]
            lines.append([words, value(seen.total), *parts])
            notes |= dict.fromkeys(f"{note[0].upper()}{note[1:]}." for note in seen.notes)
        about = f"{measure.about} Expected between two answers to one user, from what was measured by cause."
        shown = rows(dots, f"{measure.words} ({measure.unit})")
        self._seen.show(f"What a user sees change: {measure.words}", about, shown, len(dots))
        heads = ["", f"{measure.words} in all", "by another model", "by a refresh", "by both"]
        said = Markup("").join(Markup("<p class=note>{}</p>").format(note) for note in notes)
        self._table.show(Markup("<h3>By cause</h3>") + table(heads, lines) + said)

    def _draw_curve(self, arms: list[tuple[str, Arm]], situation: Situation) -> None:
        measure = MEASURES[self._measure.value]
        lines = []
        for place, (words, arm) in enumerate(arms):
            found = [
                (gap, seen.total.mean)
                for gap in GAPS
                if (seen := what_a_user_sees(arm, replace(situation, asks_again=f"{gap:.3f}s"), measure.name))
            ]
            lines += [Line(words, place, found)] if found else []
        about = "The same over the time until the user asks again; the upright line is the time above."
        across, up = "asks again after (s)", f"{measure.words} ({measure.unit})"
        self._curve.show("The longer a user waits", about, over_gap(lines, across, up, situation.times[2]))
