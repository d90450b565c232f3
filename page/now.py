"""The tab Now: swaps by cause on one scale, accuracy beside them, traffic, replicas, what needs attention; and, where
`flicker up` gave this page its socket and nowhere else, the buttons that it obeys.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup
from nicegui import run, ui

from page.parts import (
    Chart,
    Dot,
    Html,
    LineSeries,
    Select,
    TextInput,
    button,
    joined,
    legend,
    notes,
    over_time,
    rows,
    table,
    value,
)
from page.source import LOAD_COUNTERS, REPEATED, RESULT_NAMES, STEP, LiveSource, Moment
from simulator.errors import FlickerError
from simulator.live.watch import CAUSES
from simulator.measures.registry import MEASURES
from simulator.measures.words import DASH, count, duration, label, number, percent, plural, summed_up, word

CAUSE_LABELS = {
    "duplicate": "another duplicate",
    "refresh": "a refresh",
    REPEATED: "asking again",
}
"""Causes as they stand in charts."""
CAUSE_NOTES = {
    "duplicate": "another duplicate: two models that learned the same, asked the same at the same generation",
    "refresh": "a refresh: one model before and after it",
    REPEATED: "asking again: what users saw who asked the same moments later, whatever the cause",
}
MAX_FAILED_SHARE = 0.01
"""A share of failed queries above this needs attention: the alert FlickerQueriesFail has the same limit."""
DEFAULT_MEASURE = "slot"
"""The measure that is shown first."""
ORDER_TIMEOUT = 40.0
"""Seconds for an order: an experiment has checked its settings by then."""
STATE_INTERVAL = 2.0
"""Seconds between two requests for the state."""
MAX_ANSWER_BYTES = 1 << 20
"""Bytes of an answer at most."""


class Now:
    """One viewer's tab."""

    def __init__(self, source: LiveSource, controls: Path | None) -> None:
        """`controls`: the socket of `flicker up`, where it gave this page one."""
        self._source = source
        self._drawn = 0.0
        """Unix time of the newest point of the charts over time."""
        self._alerts = Html("worries", role="status")
        self._tiles = Html()
        measure = {name: each.words for name, each in MEASURES.items()}
        self._measure = Select("Measure", measure, lambda _: self._draw(afresh=True), DEFAULT_MEASURE)
        self._legend = Html()
        with ui.element("div").classes("charts"):
            self._causes = Chart()
            self._trend = Chart()
        self._arms, self._glossary = Html("keep"), Html()
        with ui.element("div").classes("charts"):
            self._traffic = Chart("12rem")
            self._latency = Chart("12rem")
        self._replicas, self._pages = Html("keep"), Html("keep")
        self._controls = ControlPanel(controls) if controls else None

    async def show(self) -> None:
        """Show the newest, and what can be ordered."""
        self._draw()
        if self._controls is not None:
            await self._controls.show()

    def _draw(self, afresh: bool = False) -> None:
        """`afresh`: the charts over time too, which change only every few seconds."""
        source = self._source
        self._alerts.show(alerts(source))
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
        for cause in (*CAUSES, *([REPEATED] if measure.name in LOAD_COUNTERS else [])):
            for arm, place in places.items():
                interval = source.measured(arm).measures.get(RESULT_NAMES[cause, measure.name])
                if interval is not None:
                    dots.append(Dot(f"{CAUSE_LABELS[cause]}\n{label(arm)}", place, interval))
        notes = "; ".join(
            words for cause, words in CAUSE_NOTES.items() if cause != REPEATED or measure.name in LOAD_COUNTERS
        )
        about = f"{measure.about} Over the last minute, with 95 % intervals. {notes[0].upper()}{notes[1:]}."
        options = rows(dots, f"{measure.words} ({measure.unit})")
        self._causes.show(f"Why results change: {measure.words}", about, options, len(dots))

    def _show_trends(self) -> None:
        source, measure = self._source, MEASURES[self._measure.value]
        lines = []
        for place, arm in enumerate(source.arms()):
            for dash, cause in enumerate((*CAUSES, REPEATED)):
                if points := source.trend(arm, cause, measure.name):
                    lines.append(LineSeries(f"{label(arm)}, {CAUSE_LABELS[cause]}", place, points, dash))
        marks = [(at, str(generation)) for at, generation in [*source.refreshes][1:]]
        about = "Each point looks back a minute. Solid: another duplicate; dashed: a refresh; fine dots: asking again. "
        about += "Upright lines are refreshes, with the generation's number."
        options = over_time(lines, f"{measure.words} ({measure.unit})", marks)
        self._trend.show(f"{measure.words} over time", about, options)
        self._show_traffic([*source.moments])

    def _show_traffic(self, moments: list[Moment]) -> None:
        steps = list(pairwise(moments))
        rates = [(after.at, (after.answered - before.answered) / (after.at - before.at)) for before, after in steps]
        latencies = [(moment.at, 1e3 * moment.p99) for moment in moments if not math.isnan(moment.p99)]
        lines = [LineSeries("answered", 1, rates)] if len(rates) > 1 else []
        about = "Queries that were answered, per second, over the last half hour."
        self._traffic.show("Traffic", about, over_time(lines, "queries/s"))
        about = "Of a hundred queries 99 were answered within this time, as users saw it."
        lines = [LineSeries("p99", 2, latencies)] if len(latencies) > 1 else []
        self._latency.show("Waiting", about, over_time(lines, "ms"))


def tiles(source: LiveSource) -> Markup:
    """Numbers to see at a glance."""
    rate, failed = source.rate()
    offered = source.watch.load.value("flicker_load_offered_rate")
    healthy = sum(replica.healthy for replica in source.replicas)
    published_at = source.watch.trainer.value("flicker_snapshot_published_timestamp_seconds")
    age = "none published yet"
    if published_at > 0:
        age = f"published {duration(max(0.0, round(time.time() - published_at)))} ago"
    generation = source.refreshes[-1][1] if source.refreshes else -1
    entries = [
        ("queries answered", _formatted(rate, "/s"), "" if math.isnan(offered) else f"of {number(offered)}/s offered"),
        ("time to an answer, p50", _formatted(1e3 * source.latency(0.5), " ms"), "half are quicker"),
        ("p99", _formatted(1e3 * source.latency(0.99), " ms"), "one in a hundred is slower"),
        ("queries failed", DASH if math.isnan(failed) else percent(failed), "of the last minute"),
        ("replicas healthy", f"{healthy} of {max(len(source.replicas), _expected(source))}", "ready to answer"),
        ("generation", str(generation) if generation >= 0 else DASH, age),
    ]
    cells = joined("<div><dt>{}</dt><dd>{}</dd><dd class=note>{}</dd></div>", entries)
    return Markup("<dl class=tiles>{}</dl>").format(cells)


def alerts(source: LiveSource) -> Markup:
    """What needs attention, a line each."""
    messages = joined("<li>{}</li>", ([message] for message in _alerts(source)))
    return Markup("<ul>{}</ul>").format(messages) if messages else Markup("<p>Nothing needs attention.</p>")


def _alerts(source: LiveSource) -> Iterator[str]:
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
        consequence = "The others answer meanwhile." if len(down) < len(source.replicas) else "Nobody answers queries."
        yield f"{plural(len(down) + missing, 'replica')} missing or unhealthy{names}. {consequence}"
    served = source.served() or [0]
    if (apart := max(served) - min(served)) > 1:
        yield f"Replicas are {apart} generations apart: two of them can no longer be compared."
    if source.watch.lowest("flicker_router_store_up") == 0:
        yield "The store is away: what is loaded is served on, and nothing new is learned or published."
    failed = source.rate()[1]
    if failed > MAX_FAILED_SHARE:
        yield f"{percent(failed)} of the last minute's queries failed."
    if source.watch.trainer.value("flicker_world_ended") == 1:
        yield "The log has ended: serving goes on, and only what users click is still learned."


def arms_table(source: LiveSource) -> Markup:
    """Every measure of every arm, accuracy beside swaps."""
    arm_measures, names = {arm: source.measured(arm).measures for arm in source.arms()}, shown_measures(source)
    if not names:
        return Markup("<p>Nothing was compared yet: that takes traffic, and two replicas of one generation.</p>")
    lines = [
        [words.words, *(value(measures.get(name), words.places) for measures in arm_measures.values())]
        for name, words in zip(names, map(word, names), strict=True)
    ]
    caption = (
        "What the last minute says of each arm. Log loss (nats), AUC and calibration are of the last generation's "
        "events, before they were learned; personalisation is asked for while somebody looks."
    )
    return Markup("<h3>Each arm</h3>") + notes([caption]) + table(["", *map(label, arm_measures)], lines)


def shown_measures(source: LiveSource) -> list[str]:
    """Names of the measures known of any arm, swaps and accuracy."""
    arm_measures = [source.measured(arm).measures for arm in source.arms()]
    is_calibrated = any("calibration" in measures for measures in arm_measures)
    return summed_up(arm_measures, MEASURES) + ["calibration"] * is_calibrated


def glossary(names: list[str]) -> Markup:
    """A sentence for each measure."""
    entries = joined("<div><dt>{}</dt><dd>{}</dd></div>", ((word(name).words, word(name).about) for name in names))
    form = Markup("<details><summary>What these are</summary><dl>{}</dl></details>")
    return form.format(entries) if names else entries


def replicas_table(source: LiveSource) -> Markup:
    """Who serves."""
    if not source.replicas:
        return Markup("")
    lines = [
        [
            replica.name,
            "healthy" if replica.healthy else "does not answer",
            str(replica.duplicate),
            str(replica.generation) if replica.HasField("generation") else DASH,
            count(replica.in_flight),
            replica.address,
        ]
        for replica in source.replicas
    ]
    heads = ["replica", "state", "duplicate", "generation", "queries in flight", "address"]
    return Markup("<h3>Replicas</h3>{}").format(table(heads, lines))


def pages_table(source: LiveSource) -> Markup:
    """The metrics page of every process."""
    if not source.processes:
        return Markup("")
    processes = sorted(source.processes, key=lambda process: (process.kind, process.url))
    lines = [[one.kind or "unknown", one.url, "answers" if one.answers else "away"] for one in processes]
    return Markup("<h3>Metrics pages</h3>{}").format(table(["process", "address", "state"], lines))


def ago(since: float) -> str:
    """Time since a unix time, in steps of five seconds: screen readers read every change."""
    return duration(5.0 * round((time.time() - since) / 5))


def _expected(source: LiveSource) -> int:
    """Replicas that should serve; 0 where it is unknown."""
    expected = source.watch.lowest("flicker_router_replicas_expected")
    return 0 if math.isnan(expected) else int(expected)


def _formatted(amount: float, unit: str) -> str:
    return DASH if math.isnan(amount) else f"{number(amount)}{unit}"


def send(path: Path, order: dict[str, Any]) -> dict[str, Any]:
    """The answer to one order. Raises FlickerError where there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ORDER_TIMEOUT)
            line.connect(str(path))
            line.sendall(json.dumps(order).encode() + b"\n")
            with line.makefile("rb") as answers:
                answer = json.loads(answers.readline(MAX_ANSWER_BYTES))
    except (OSError, ValueError) as problem:
        raise FlickerError(f"flicker up does not answer: {problem}") from None
    if not isinstance(answer, dict):
        raise FlickerError("flicker up does not answer: its answer is no JSON object")
    return answer


class ControlPanel:
    """One viewer's buttons."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked_at = 0.0
        """When the state was last asked for, on the monotonic clock."""
        self._names: list[str] = []
        ui.html("<h2>Controls</h2>", sanitize=False)
        self._message = Html(role="status")
        with ui.element("div").classes("fields") as self._rate_row:
            self._rate = TextInput("Queries per second that users offer", "", self._set_rate, (1, 5_000))
        with ui.element("div").classes("fields"):
            refresh = partial(self._order, {"do": "refresh"})
            self._refresh = button("Refresh now", refresh, "The next generation's events come at once")
            self._kills = ui.element("div").classes("fields").style("margin:0")
        with ui.element("div").classes("fields") as self._experiment_row:
            limits, here = (5_000, 1_000_000), "those that run here"
            self._events = TextInput("Events of a short experiment", "20000", lambda _: None, limits, step="1000")
            self._arms = TextInput("Its arms, spaces between", "", lambda _: None, placeholder=here, size="30")
            about = "flicker run on so much of the current log; see Runs for it"
            button("Start the experiment", self._experiment, about)
        self._running = Html()

    async def show(self) -> None:
        """Show the controls that `flicker up` allows now."""
        now = time.monotonic()
        if now - self._asked_at < STATE_INTERVAL:
            return
        self._asked_at = now
        state = await self._order({"do": "state"}, is_shown=False)
        if state is None:
            return
        allowed = state.get("can", [])
        self._rate_row.set_visibility("rate" in allowed)
        self._refresh.set_visibility("refresh" in allowed)
        self._experiment_row.set_visibility("experiment" in allowed)
        if not self._rate.value and state.get("rate"):
            self._rate.set(f"{state['rate']:g}")
        names = [each["name"] for each in state.get("processes", []) if "kill" in allowed and each["name"] != "load"]
        if names != self._names:
            self._names = names
            self._kills.clear()
            with self._kills:
                for name in names:
                    kill = partial(self._order, {"do": "kill", "name": name})
                    button(f"Kill {name}", kill, "SIGKILL; it is started again at once")
        experiments = [
            f"{each['name']} {'runs' if each['running'] else 'has ended'}" for each in state.get("experiments", [])
        ]
        self._running.show(notes(["; ".join(experiments)] if experiments else []))

    async def _order(self, order: dict[str, Any], is_shown: bool = True) -> dict[str, Any] | None:
        """Give an order, and show its outcome."""
        try:
            answer = await run.io_bound(send, self._path, order)
        except FlickerError as problem:
            answer = {"ok": False, "say": str(problem)}
        if answer is not None and (is_shown or answer.get("ok") is False):
            kind = "" if answer.get("ok") else "refused"
            self._message.show(Markup('<p class="{}">{}</p>').format(kind, answer.get("say", "")))
        return answer if answer is not None and answer.get("ok", True) else None

    async def _set_rate(self, rate: str) -> None:
        try:
            await self._order({"do": "rate", "queries": float(rate)})
        except ValueError:
            self._message.show(notes(["queries per second: a number"], "refused"))

    async def _experiment(self) -> None:
        arms = self._arms.value.split()
        await self._order({"do": "experiment", "events": self._events.number()} | ({"arms": arms} if arms else {}))
