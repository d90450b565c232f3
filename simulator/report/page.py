"""The page: finding, tables, pictures with claims as titles, glossary, settings; templates/report.html."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from simulator.decide.choice import advice
from simulator.decide.evidence import ratio_to
from simulator.measures.registry import DIFFERENCES, MEASURES, described
from simulator.measures.words import CAUSES, COSTS, DASH, WORDS, count, duration, label, percent, size, summed_up, word
from simulator.measures.words import written as text_of
from simulator.report import finding
from simulator.report.charts import Figure, Panel, activation_panels, arm_dots, over_generations, plane
from simulator.report.kit import render, twice
from simulator.result import Arm, Result

DOORS = {"run": "report", "live": "live system", "compare": "comparison"}
OVER_TIME = (
    ("swaps.pair", "Pair swaps, cause duplicate", True),
    ("refresh_swaps.pair", "Pair swaps, cause refresh", True),
    ("swaps.slot", "Slot swaps, cause duplicate", True),
    ("pd", "Prediction difference (PD)", True),
    ("progressive_log_loss", "Progressive log loss: lower is better", False),
)
"""Measure, heading, and whether its axis starts at 0."""
PLANES = (("log_loss", "pd"), ("log_loss", "swaps.pair"), ("ranking_loss", "swaps.pair"))
"""Measures across and up."""
SLICED = ("swaps.pair", "swaps.slot", "pd", "log_loss", "auc")
"""Measures that are shown by the values of a column."""
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
    "cause": "Why two slates could differ: another duplicate of the same generation (duplicate), the next generation "
    "of the same duplicate (refresh), or both.",
    "baseline": "Cheap models of our own: one probability for all (constant), one per item (popularity), the item's "
    "share of the latest engagements (recent), one weight per value (logistic). A constant has no swaps and no PD: "
    "neither is shown without accuracy.",
    "oracle": "Predicts the true probability of a click, which is known of a made-up world: nobody can do better.",
    "interval": "A mean followed by (low to high): bootstrap over fleets, duplicates and users, 95 %.",
}


def page(result: Result) -> str:
    """The whole report as one HTML text; notes name the parts that a result lacks."""
    drawn = (_swaps(result), _differences(result), _generations(result), _plane(result), _activations(result))
    figures = [figure for figure in drawn if figure.panels]
    absent = [f"Not in this result: {figure.claim}." for figure in drawn if not figure.panels]
    absent += [] if result.example else ["Not in this result: what one user got, twice."]
    return render(
        "report.html",
        result=result,
        door=DOORS[result.kind],
        title=finding.headline(result),
        seen=finding.what_you_see(result),
        advice=advice(result),
        notes=[*finding.truths(result), *result.notes, *absent],
        shown=summed_up(arm.measures for arm in result.arms),
        timed=any("train_seconds" in arm.costs for arm in result.arms),
        ratio_to=ratio_to,
        everything=everything(result),
        slices=list(_slices(result)),
        twice=twice(result.example) if result.example else None,
        figures=figures,
        glossary=_glossary(),
        settings=_settings(result),
    )


def _panels(*panels: Panel | None) -> list[Panel]:
    return [panel for panel in panels if panel]


def _accuracy(arms: list[Arm]) -> Panel | None:
    """Beside every picture of instability."""
    return arm_dots("Log loss: lower is better", arms, ["log_loss"], zero=False)


def _swaps(result: Result) -> Figure:
    headings = {name: measure.words[0].upper() + measure.words[1:] for name, measure in MEASURES.items()}
    by_cause = {name: [f"{cause}.{name}" for cause in CAUSES] for name in MEASURES}
    panels = _panels(*(arm_dots(heading, result.arms, by_cause[name]) for name, heading in headings.items()))
    if not panels:
        return Figure(0, "swaps", "swaps, since nothing was compared")
    panels += _panels(arm_dots("Personalisation: how far users' rankings differ", result.arms, ["personalisation"]))
    panels += _panels(_accuracy(result.arms))
    return Figure(0, "swaps", finding.swaps_title(result), panels, marks=("Cause:", "duplicate", "refresh", "both"))


def _differences(result: Result) -> Figure:
    parts = arm_dots("Prediction difference (PD) and its parts", result.arms, list(DIFFERENCES))
    if not parts:
        return Figure(0, "pd", "prediction differences over events")
    auc = arm_dots("AUC: higher is better", result.arms, ["auc"], zero=False)
    marks = ("Marks:", *(difference.words for difference in DIFFERENCES.values()))
    return Figure(0, "pd", finding.differences_title(result), _panels(parts, _accuracy(result.arms), auc), marks=marks)


def _generations(result: Result) -> Figure:
    bands = len(result.arms) <= FEW_ARMS
    panels = _panels(*(over_generations(result, name, heading, bands, zero) for name, heading, zero in OVER_TIME))
    if not panels:
        return Figure(0, "generations", "generations one by one")
    note = "" if bands else "Intervals are left out: bands of so many arms cover each other."
    return Figure(0, "generations", finding.generations_title(result), panels, _legend(result.arms), note)


def _plane(result: Result) -> Figure:
    panels = _panels(*(plane(result.arms, (across, word(across).words), (up, word(up).words)) for across, up in PLANES))
    if not panels:
        return Figure(0, "plane", "accuracy, without which instability says little")
    return Figure(0, "plane", finding.plane_title(result), panels, _legend(result.arms))


def _activations(result: Result) -> Figure:
    curves = [(i, arm.spec, arm.activation) for i, arm in enumerate(result.arms) if arm.activation]
    if not curves:
        return Figure(0, "activations", "activations")
    panels = activation_panels(curves, ("curve", "gradient"))
    return Figure(0, "activations", finding.activations_title(result), panels, _legend(result.arms))


def _legend(arms: list[Arm]) -> list[tuple[int, str]]:
    return list(enumerate(label(arm.spec) for arm in arms))


def _glossary() -> dict[str, str]:
    """The glossary with every measure's words."""
    return GLOSSARY | {term.words: term.about for group in (described(), WORDS) for term in group.values()}


def everything(result: Result) -> list[list[str]]:
    """Headings, then one row per measure, cost and setting, one column per arm."""
    arms = result.arms
    cells = {
        name: [text_of(arm.measures.get(name), word(name).places) for arm in arms]
        for name in dict.fromkeys(name for arm in arms for name in arm.measures)
    }
    for cost, (_, write) in COSTS.items():
        cells[cost] = [write(arm.costs[cost]) if cost in arm.costs else DASH for arm in arms]
    for name in dict.fromkeys(name for arm in arms for name in arm.design):
        cells[name] = [_setting(arm.design.get(name, DASH)) for arm in arms]
    rows = [[_code(name), *row] for name, row in cells.items() if set(row) != {DASH}]
    return [["measure", *(label(arm.spec) for arm in arms)], *rows]


def _slices(result: Result) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Heading, column headings and rows of the results by each column of the log."""
    for column in dict.fromkeys(column for arm in result.arms for column in arm.by):
        slices = [(arm, part) for arm in result.arms for part in arm.by.get(column, [])]
        names = [name for name in SLICED if any(name in part.measures for _, part in slices)]
        order = list(dict.fromkeys(part.value for _, part in slices))
        slices.sort(key=lambda arm_and_slice: order.index(arm_and_slice[1].value))
        rows = [
            [part.value, label(arm.spec), percent(part.share)]
            + [text_of(part.measures.get(name), word(name).places) for name in names]
            for arm, part in slices
        ]
        yield f"By {column}", [column, "arm", "share", *(word(name).words for name in names)], rows


def _setting(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def _code(text: str) -> str:
    return Markup("<code>{}</code>").format(text)


def _settings(result: Result) -> dict[str, list[tuple[str, str]]]:
    """The resolved settings with the seed, world, versions, machine, time and memory."""
    world = {name: count(value) if type(value) is int else value for name, value in result.world.items()}
    spent = {"time": duration(result.seconds), "peak memory": size(result.peak_memory_bytes)}
    sections = {
        "Settings": result.config,
        "World": world,
        "Serving": result.serving,
        "Versions": {"flicker": result.flicker} | result.versions,
        "Machine": result.machine | spent,
    }
    return {heading: [(_code(n), text) for n, text in _flat(values)] for heading, values in sections.items() if values}


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings under dotted names, as they are written on the command line."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield prefix + name, ", ".join(part if isinstance(part, str) else json.dumps(part) for part in value)
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value)
