"""The tab Now: swaps by cause on one scale, accuracy beside them, traffic, replicas, and what needs attention."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import pairwise

from markupsafe import Markup
from nicegui import ui

from page.charts import Dot, Line, over_time, rows
from page.parts import Chart, Choice, Html, legend, table, value
from page.source import AGAIN, RESULT_NAMES, SEEN, STEP, Moment, Source
from simulator.live.watch import CAUSES
from simulator.measures.registry import MEASURES
from simulator.words import DASH, count, duration, label, number, percent, plural, summed_up, word

CALLED = {
    "duplicate": "another duplicate",
    "refresh": "a refresh",
    AGAIN: "asking again",
}
"""Causes as they stand in charts."""
ABOUT = {
    "duplicate": "another duplicate: two models that learned the same, asked the same at the same generation",
    "refresh": "a refresh: one model before and after it",
    AGAIN: "asking again: what users saw who asked the same moments later, whatever the cause",
}
FAILS = 0.01
"""A share of failed queries above this needs attention: the alert FlickerQueriesFail has the same limit."""
FIRST = "slot"
"""The measure that is shown first."""


class Now:
    """What the system does now, as one viewer looks at it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._drawn = 0.0
        """Unix time of the newest point of the charts over time."""
        self._worries = Html("worries", role="status")
        self._tiles = Html()
        measure = {name: each.words for name, each in MEASURES.items()}
        self._measure = Choice("Measure", measure, lambda _: self.show(afresh=True), FIRST)
        self._legend = Html()
        with ui.element("div").classes("charts"):
            self._causes = Chart()
            self._trend = Chart()
        self._arms, self._glossary = Html("keep"), Html()
        with ui.element("div").classes("charts"):
            self._asked = Chart("12rem")
            self._waited = Chart("12rem")
        self._replicas, self._pages = Html("keep"), Html("keep")

    def show(self, afresh: bool = False) -> None:
        """What is known by now; `afresh`: also what changes only every few seconds."""
        source = self._source
        self._worries.show(worries(source))
        self._tiles.show(tiles(source))
        if not source.moments:
            return
        self._legend.show(legend([label(arm) for arm in source.arms()]))
        self._show_causes()
        self._arms.show(arms_table(source))
        self._glossary.show(glossary(shown_measures(source)))
        self._replicas.show(replicas_table(source))
        self._pages.show(pages_table(source))
        newest = source.moments[-1].at
        if afresh or newest - self._drawn >= STEP:
            self._drawn = newest
            self._show_trends()

    def _show_causes(self) -> None:
        source, measure = self._source, MEASURES[self._measure.value]
        places = {arm: place for place, arm in enumerate(source.arms())}
        dots = []
        for cause in (*CAUSES, *([AGAIN] if measure.name in SEEN else [])):
            for arm, place in places.items():
                held = source.measured(arm).measures.get(RESULT_NAMES[cause, measure.name])
                if held is not None:
                    dots.append(Dot(f"{CALLED[cause]}\n{label(arm)}", place, held))
        told = "; ".join(words for cause, words in ABOUT.items() if cause != AGAIN or measure.name in SEEN)
        about = f"{measure.about} Over the last minute, with 95 % intervals. {told[0].upper()}{told[1:]}."
        shown = rows(dots, f"{measure.words} ({measure.unit})")
        self._causes.show(f"Why results change: {measure.words}", about, shown, len(dots))

    def _show_trends(self) -> None:
        source, measure = self._source, MEASURES[self._measure.value]
        lines = []
        for place, arm in enumerate(source.arms()):
            for dash, cause in enumerate((*CAUSES, AGAIN)):
                if points := source.trend(arm, cause, measure.name):
                    lines.append(Line(f"{label(arm)}, {CALLED[cause]}", place, points, dash))
        marks = [(at, str(generation)) for at, generation in [*source.refreshes][1:]]
        about = "Each point looks back a minute. Solid: another duplicate; dashed: a refresh; fine dots: asking again. "
        about += "Upright lines are refreshes, with the generation's number."
        shown = over_time(lines, f"{measure.words} ({measure.unit})", marks)
        self._trend.show(f"{measure.words} over time", about, shown)
        self._show_traffic([*source.moments])

    def _show_traffic(self, moments: list[Moment]) -> None:
        steps = list(pairwise(moments))
        asked = [(after.at, (after.answered - before.answered) / (after.at - before.at)) for before, after in steps]
        waited = [(one.at, 1e3 * one.p99) for one in moments if not math.isnan(one.p99)]
        lines = [Line("answered", 1, asked)] if len(asked) > 1 else []
        about = "Queries that were answered, per second, over the last half hour."
        self._asked.show("Traffic", about, over_time(lines, "queries/s"))
        about = "Of a hundred queries 99 were answered within this time, as users saw it."
        lines = [Line("p99", 2, waited)] if len(waited) > 1 else []
        self._waited.show("Waiting", about, over_time(lines, "ms"))


def tiles(source: Source) -> Markup:
    """Numbers to see at a glance."""
    rate, failed = source.rate()
    offered = source.watch.load.value("flicker_load_offered_rate")
    healthy = sum(replica.healthy for replica in source.replicas)
    cut = source.watch.trainer.value("flicker_snapshot_published_timestamp_seconds")
    age = f"published {duration(max(0.0, round(time.time() - cut)))} ago" if cut > 0 else "none published yet"
    generation = source.refreshes[-1][1] if source.refreshes else -1
    found = [
        ("queries answered", _shown(rate, "/s"), "" if math.isnan(offered) else f"of {number(offered)}/s offered"),
        ("time to an answer, p50", _shown(1e3 * source.latency(0.5), " ms"), "half are quicker"),
        ("p99", _shown(1e3 * source.latency(0.99), " ms"), "one in a hundred is slower"),
        ("queries failed", DASH if math.isnan(failed) else percent(failed), "of the last minute"),
        ("replicas healthy", f"{healthy} of {max(len(source.replicas), _expected(source))}", "ready to answer"),
        ("generation", str(generation) if generation >= 0 else DASH, age),
    ]
    cells = [Markup("<div><dt>{}</dt><dd>{}</dd><dd class=note>{}</dd></div>").format(*one) for one in found]
    return Markup("<dl class=tiles>{}</dl>").format(Markup("").join(cells))


def worries(source: Source) -> Markup:
    """What needs attention, a line each."""
    found = [*_worries(source)]
    if not found:
        return Markup("<p>Nothing needs attention.</p>")
    return Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(one) for one in found))


def _worries(source: Source) -> Iterator[str]:
    if source.problem:
        since = f", for {ago(source.heard)}" if source.heard else ""
        yield f"The router does not answer{since}: {source.problem}. What is shown of it is what it said last."
    for process in source.processes:
        if process.kind and not process.answers:
            yield f"The {process.kind} with the metrics page {process.url} does not answer."
    down = [replica.name for replica in source.replicas if not replica.healthy]
    missing = max(_expected(source) - len(source.replicas), 0)
    if source.world is None and source.router is not None and not source.problem:
        yield "Nothing is published yet: the trainer has not cut its first generation."
    elif down or missing:
        names = f": {', '.join(down)}" if down else ""
        others = "The others answer meanwhile." if len(down) < len(source.replicas) else "Nobody answers queries."
        yield f"{plural(len(down) + missing, 'replica')} missing or unhealthy{names}. {others}"
    served = [replica.generation for replica in source.replicas if replica.healthy and replica.HasField("generation")]
    if served and max(served) - min(served) > 1:
        yield f"Replicas are {max(served) - min(served)} generations apart: two of them can no longer be compared."
    if source.watch.lowest("flicker_router_store_up") == 0:
        yield "The store is away: what is loaded is served on, and nothing new is learned or published."
    failed = source.rate()[1]
    if failed > FAILS:
        yield f"{percent(failed)} of the last minute's queries failed."
    if source.watch.trainer.value("flicker_world_ended") == 1:
        yield "The log has ended: serving goes on, and only what users click is still learned."


def arms_table(source: Source) -> Markup:
    """Every measure of every arm, accuracy beside swaps."""
    held, names = {arm: source.measured(arm).measures for arm in source.arms()}, shown_measures(source)
    if not names:
        return Markup("<p>Nothing was compared yet: that takes traffic, and two replicas of one generation.</p>")
    lines = []
    for name in names:
        known = word(name)
        lines.append([known.words, *(value(one.get(name), known.places) for one in held.values())])
    caption = (
        "What the last minute says of each arm. Log loss (nats), AUC and calibration are of the last generation's "
        "events, before they were learned; personalisation is asked for while somebody looks."
    )
    return Markup("<h3>Each arm</h3><p class=note>{}</p>{}").format(caption, table(["", *map(label, held)], lines))


def shown_measures(source: Source) -> list[str]:
    """Names of what is known of any arm, swaps and accuracy."""
    held = [source.measured(arm).measures for arm in source.arms()]
    return summed_up(held, MEASURES) + ["calibration"] * any("calibration" in one for one in held)


def glossary(names: list[str]) -> Markup:
    """A sentence for each measure."""
    entry = Markup("<div><dt>{}</dt><dd>{}</dd></div>")
    entries = Markup("").join(entry.format(word(name).words, word(name).about) for name in names)
    return (
        Markup("<details><summary>What these are</summary><dl>{}</dl></details>").format(entries) if names else entries
    )


def replicas_table(source: Source) -> Markup:
    """Who serves."""
    if not source.replicas:
        return Markup("")
    lines = [
        [
            one.name,
            "healthy" if one.healthy else "does not answer",
            str(one.duplicate),
            str(one.generation) if one.HasField("generation") else DASH,
            count(one.in_flight),
            one.address,
        ]
        for one in source.replicas
    ]
    heads = ["replica", "state", "duplicate", "generation", "queries in flight", "address"]
    return Markup("<h3>Replicas</h3>{}").format(table(heads, lines))


def pages_table(source: Source) -> Markup:
    """Where every process tells its metrics."""
    if not source.processes:
        return Markup("")
    known = sorted(source.processes, key=lambda one: (one.kind, one.url))
    lines = [[one.kind or "unknown", one.url, "answers" if one.answers else "away"] for one in known]
    return Markup("<h3>Metrics pages</h3>{}").format(table(["process", "address", "state"], lines))


def ago(when: float) -> str:
    """Since a unix time, in steps of five seconds: screen readers say every change."""
    return duration(5.0 * round((time.time() - when) / 5))


def _expected(source: Source) -> int:
    """Replicas that should serve; 0 where nobody says."""
    found = source.watch.lowest("flicker_router_replicas_expected")
    return 0 if math.isnan(found) else int(found)


def _shown(number_: float, unit: str) -> str:
    return DASH if math.isnan(number_) else f"{number(number_)}{unit}"
