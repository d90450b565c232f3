"""The page: finding, table, pictures with claims as titles, glossary, settings. Nothing is loaded from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any

from simulator.decide import advice, ratio_to
from simulator.measures.intervals import Interval
from simulator.report import charts, finding
from simulator.report.charts import Axis
from simulator.report.html import document, grid, panel, prose, row, section, table
from simulator.result import Arm, Result
from simulator.words import DASH, SUMMARY, count, duration, interval, label, number, size

CAUSES = {"swaps": "duplicate", "refresh_swaps": "refresh", "both_swaps": "both"}
PARTS = {"pd": "PD", "pd_ranking": "ranking part", "pd_shift": "common shift"}
"""Prefix or name of the measure, and its word in the legend."""
OVER_TIME = (
    ("swaps.pair", "Pair swaps, cause duplicate", True),
    ("refresh_swaps.pair", "Pair swaps, cause refresh", True),
    ("swaps.slot", "Slot swaps, cause duplicate", True),
    ("pd", "Prediction difference (PD)", True),
    ("progressive_log_loss", "Progressive log loss: lower is better", False),
)
"""Measure, heading, and whether its axis starts at 0."""
PLANES = (
    ("log_loss", "pd", "log loss", "PD"),
    ("log_loss", "swaps.pair", "log loss", "pair swaps"),
    ("ranking_loss", "swaps.pair", "ranking loss", "pair swaps"),
)
"""Measures across and up, and their words."""
WHERE_ZERO = "This axis does not start at 0."
FEW_ARMS = 4
"""Up to this many arms, lines over generations carry their intervals as bands; more bands could not be told apart."""

GLOSSARY = {
    "arm": "One recommender design under comparison. The first one is the reference of every ratio (×).",
    "duplicate": "One of several models of an arm, trained on the same events under the same declared conditions.",
    "fleet": "A matched set of duplicates that share one initialisation. Several fleets show how much hangs on it.",
    "generation": "The state of all duplicates after the same number of events of the log.",
    "refresh": "A server starts to use the next generation.",
    "slate": "The ordered answer to a query: its best k items.",
    "swap": "Two slates of one query differ. Each measure goes from 0 (never) to 1 (always).",
    "pair swaps": "Share of the pairs of candidates that two models put in opposite order.",
    "slot swaps": "Share of the positions of the slate that hold another item.",
    "top-1 swaps": "Share of queries whose first item is another one.",
    "set swaps": "Share of the slate's items that are not in the other slate, whatever their order.",
    "RBO distance": "Difference of two slates in which the first positions weigh most (rank-biased overlap, p = 0.9).",
    "cause": "Why two slates could differ: another duplicate of the same generation (duplicate), the next generation "
    "of the same duplicate (refresh), or both.",
    "PD": "Relative prediction difference of two duplicates: mean of 2 |p1 − p2| / (p1 + p2), from 0 to 2.",
    "ranking part": "What is left of PD after both models' mean log-odds are matched: only this can change an order.",
    "common shift": "The rest of PD: one model is more hopeful throughout. It moves probabilities and swaps nothing.",
    "log loss": "Mean surprise of the predictions on held-out events. Lower is better. A model that predicts a "
    "constant has no swaps and no PD: therefore neither is shown without it.",
    "AUC": "Chance that an engagement is scored above a non-engagement. Higher is better.",
    "ranking loss": "Log loss over pairs of an engagement and a non-engagement of one query. Lower is better.",
    "interval": "A mean followed by (low to high): bootstrap over fleets, duplicates and users, 95 %.",
}


def page(result: Result) -> str:
    """The whole report as one HTML text."""
    title = finding.headline(result)
    return document(
        title,
        [
            _top(result, title),
            section("The numbers", summary(result) + _all_measures(result)),
            _swaps(result),
            _differences(result),
            _generations(result),
            _plane(result),
            _activations(result),
            section("Words", _glossary()),
            _settings(result),
        ],
    )


def _top(result: Result, title: str) -> str:
    world = str(result.world.get("name", ""))
    seen = "".join(f"<p>{escape(text)}</p>" for text in finding.what_you_see(result))
    next_steps = "".join(f"<li>{prose(text)}</li>" for text in advice(result))
    notes = "".join(f"<li>{prose(text)}</li>" for text in result.notes)
    return (
        f'<header><p class="kicker">Flicker report · {escape(world)} · {duration(result.seconds)}</p>'
        f"<h1>{escape(title)}</h1></header>"
        f'<div class="columns"><section><h2>What you see</h2>{seen}</section>'
        f"<section><h2>What to do next</h2><ul>{next_steps}</ul>"
        + (f"<h2>To keep in mind</h2><ul>{notes}</ul>" if notes else "")
        + "</section></div>"
    )


def _all_measures(result: Result) -> str:
    legend = '<p class="note">Each cell: the mean, its interval (low to high), and × the ratio to the first arm.</p>'
    return f"{legend}<details><summary>Everything that was measured</summary>{everything(result)}</details>"


def _swaps(result: Result) -> str:
    panels = []
    for key, heading in (
        ("pair", "Pair swaps"),
        ("top1", "Top-1 swaps"),
        ("slot", "Slot swaps"),
        ("set", "Set swaps"),
        ("rbo", "RBO distance"),
    ):
        panels.append(panel(heading, charts.dots(f"swaps-{key}", result.arms, [f"{cause}.{key}" for cause in CAUSES])))
    panels.append(_accuracy("swaps", result))
    return section(finding.swaps_title(result), _mark_legend("Cause:", CAUSES.values()) + grid(panels))


def _differences(result: Result) -> str:
    panels = [panel("Prediction difference (PD) and its parts", charts.dots("pd", result.arms, list(PARTS)))]
    panels.append(_accuracy("pd", result))
    auc = charts.dots("pd-auc", result.arms, ["auc"], from_zero=False)
    panels.append(panel("AUC: higher is better", auc, WHERE_ZERO))
    return section(finding.differences_title(result), _mark_legend("Marks:", PARTS.values()) + grid(panels))


def _generations(result: Result) -> str:
    bands = len(result.arms) <= FEW_ARMS
    panels = []
    for measure, heading, from_zero in OVER_TIME:
        if any(measure in arm for generation in result.generations for arm in generation.arms.values()):
            name = "time-" + measure.replace(".", "-")
            drawing = charts.over_generations(name, result, measure, bands, from_zero)
            panels.append(panel(heading, drawing, "" if from_zero else WHERE_ZERO))
    note = "" if bands else '<p class="note">Intervals are left out: bands of so many arms cover each other.</p>'
    return section(finding.generations_title(result), _arm_legend(result.arms) + grid(panels) + note)


def _plane(result: Result) -> str:
    panels = []
    for across, up, loss, instability in PLANES:
        name = f"plane-{across}-{up}".replace(".", "-")
        drawing = charts.plane(name, result.arms, across, up, (loss, instability))
        panels.append(panel(f"{instability[0].upper()}{instability[1:]} against {loss}", drawing))
    return section(finding.plane_title(result), _arm_legend(result.arms) + grid(panels))


def _activations(result: Result) -> str:
    curves = [(i, arm.spec, arm.activation) for i, arm in enumerate(result.arms) if arm.activation]
    if not curves:
        return ""
    panels = [
        panel(heading, charts.draw_lines(name, charts.sampled(curves, gradient), Axis("input x"), Axis()))
        for name, heading, gradient in (("curve", "Activation", False), ("gradient", "Its gradient", True))
    ]
    return section(finding.activations_title(result), _arm_legend(result.arms) + grid(panels))


def _settings(result: Result) -> str:
    return section(
        "How to get these numbers again",
        f"<details><summary>Command, settings, seed, versions, machine</summary>{settings(result)}</details>",
    )


def _glossary() -> str:
    entries = (f"<div><dt>{word}</dt><dd>{escape(text)}</dd></div>" for word, text in GLOSSARY.items())
    return f"<dl>{''.join(entries)}</dl>"


def _accuracy(name: str, result: Result) -> str:
    drawing = charts.dots(f"{name}-loss", result.arms, ["log_loss"], from_zero=False)
    return panel("Log loss: lower is better", drawing, WHERE_ZERO)


def _arm_legend(arms: list[Arm]) -> str:
    return charts.legend(enumerate(label(arm.spec) for arm in arms))


def _mark_legend(title: str, words: Iterable[str]) -> str:
    items = []
    for (mark, filled), text in zip(charts.DOTS, words, strict=False):
        style = "fill:var(--ink);stroke:var(--ink)" if filled else "fill:var(--paper);stroke:var(--ink)"
        items.append(f"<li>{charts.symbol(12, style, charts.SHAPES[mark])} {escape(text)}</li>")
    return f'<ul class="legend"><li>{escape(title)}</li>{"".join(items)}</ul>'


FIXED = {"log_loss": 4, "progressive_log_loss": 4, "auc": 4, "ranking_loss": 4, "calibration": 3}

COSTS: dict[str, Callable[[float], str]] = {
    "events_per_second": count,
    "parameters": count,
    "lookups": count,
    "model_bytes": size,
    "train_bytes": size,
    "score_seconds": lambda seconds: f"{number(1e3 * seconds)} ms",
}
"""What an arm costs, and how it is written."""


def summary(result: Result) -> str:
    """One row per arm: each measure with its interval and its ratio to the first arm."""
    titles = ("arm", *(heading for _, heading, _ in SUMMARY), "train time")
    base = result.arms[0]
    rows = []
    for arm in result.arms:
        cells = [_cell(arm, base, *column) for column in SUMMARY]
        rows.append(f"<tr>{arm_head(arm)}{''.join(cells)}{_seconds(arm, base)}</tr>")
    return table(titles, rows, "summary")


def everything(result: Result) -> str:
    """One row per measure, one column per arm."""
    names = list(dict.fromkeys(name for arm in result.arms for name in arm.measures))
    cells = {name: [_value(arm.measures.get(name), FIXED.get(name)) for arm in result.arms] for name in names}
    for name, write in COSTS.items():
        cells[name] = [write(arm.costs[name]) if name in arm.costs else DASH for arm in result.arms]
    for name in dict.fromkeys(name for arm in result.arms for name in arm.design):
        cells[name] = [escape(_setting(arm.design.get(name, DASH))) for arm in result.arms]
    return table(("measure", *(label(arm.spec) for arm in result.arms)), map(_named, cells, cells.values()))


def _named(name: str, cells: Iterable[str]) -> str:
    """A row whose name is a word of the result file."""
    return row(f"<code>{escape(name)}</code>", cells)


def _setting(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def settings(result: Result) -> str:
    """The command, the resolved settings with the seed, versions, machine, time and memory of the run."""
    world = {name: count(value) if type(value) is int else value for name, value in result.world.items()}
    spent = {"time": duration(result.seconds), "peak memory": size(result.peak_memory_bytes)}
    parts = [
        f"<p>Command:</p><pre><code>{escape(result.command or DASH)}</code></pre>",
        _pairs("Settings", result.config),
        _pairs("World", world),
        _pairs("Versions", {"flicker": result.flicker} | result.versions),
        _pairs("Machine", result.machine | spent),
    ]
    return "".join(parts)


def arm_head(arm: Arm) -> str:
    """The arm's name as a row heading, and below it the spec to type where that differs."""
    name, spec = label(arm.spec), arm.spec
    typed = f" <code>{escape(spec)}</code>" if name != spec else ""
    unbroken = name.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return f'<th scope="row">{escape(unbroken)}{typed}</th>'


def _cell(arm: Arm, base: Arm, name: str, heading: str, places: int | None) -> str:
    ratio = None if arm is base else ratio_to(arm, base, name)
    times = f' <span class="ratio">× {_value(ratio, 3 if name in FIXED else 2)}</span>' if ratio else ""
    return f'<td data-name="{heading}">{_value(arm.measures.get(name), places)}{times}</td>'


def _value(value: Interval | None, places: int | None) -> str:
    mean, bounds = interval(value, places)
    return f"<b>{mean}</b>" + (f" <small>{bounds}</small>" if bounds else "")


def _seconds(arm: Arm, base: Arm) -> str:
    own, ratio = arm.costs.get("train_seconds"), arm.cost_ratio(base, "train_seconds")
    if own is None:
        return f'<td data-name="train time"><b>{DASH}</b></td>'
    times = f' <span class="ratio">× <b>{number(ratio, 2)}</b></span>' if ratio and arm is not base else ""
    return f'<td data-name="train time"><b>{duration(own)}</b>{times}</td>'


def _pairs(title: str, values: dict[str, Any]) -> str:
    return f"<h3>{title}</h3>{table((), (_named(name, [escape(text)]) for name, text in _flat(values)), 'pairs')}"


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings under dotted names, as they are written on the command line."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            yield before + name, ", ".join(part if isinstance(part, str) else json.dumps(part) for part in value)
        else:
            yield before + name, value if isinstance(value, str) else json.dumps(value)
