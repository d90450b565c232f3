"""Advice by how a recommender is served: the numbers of docs/decide.md, from the same cells as the claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.article.claims import at_best_rate, choice, norm_ratios, relu
from simulator.article.table import Units, WorldCells, mean, ratio, roughly, times
from simulator.decide.situation import Situation, what_a_user_sees
from simulator.measures.intervals import Interval
from simulator.result import Arm
from simulator.words import DASH, label, number, percent, written

ONE = Situation(models=1, refresh_every="1h", asks_again="10m")
SEVERAL = replace(ONE, models=3)
CAUSES = {"swaps.slot": "slot", "refresh_swaps.slot": "refresh_slot", "both_swaps.slot": "both_slot"}


@dataclass(frozen=True)
class WorldTable:
    """A row per world."""

    heads: list[str]
    rows: list[list[str]]


def seen(units: Units, situation: Situation) -> Interval | None:
    """Share of the ten slots that hold another item when a user asks again; None where it was not measured."""
    measures = {name: value for name, short in CAUSES.items() if (value := mean(units, short))}
    change = what_a_user_sees(Arm("", measures), situation, "slot")
    return change.total if change else None


def _share(value: Interval | None) -> str:
    return percent(value.mean) if value else DASH


def one_model(worlds: Sequence[WorldCells]) -> WorldTable:
    """One model behind all replicas, refreshed hourly; users come back after ten minutes."""
    heads = ["world", "slots changed, ReLU", "refreshed every 2 h", "SmeLU as chosen", "SmeLU's swaps at a refresh"]
    rows = []
    for world in worlds:
        base, (name, smooth) = relu(world), choice(world)
        half = seen(base, replace(ONE, refresh_every="2h"))
        cells = [_share(seen(base, ONE)), _share(half), f"{_share(seen(smooth, ONE))} ({label(name)})"]
        rows.append([world.name, *cells, times(ratio(smooth, base, "refresh_slot"))])
    return WorldTable(heads, rows)


def several_models(worlds: Sequence[WorldCells]) -> WorldTable:
    """Three models that were trained apart, behind a router that chooses at random."""
    heads = ["world", "ReLU", "sticky routing", "SmeLU as chosen", "ensembles of 3", "SmeLU's PD", "its log loss"]
    rows = []
    for world in worlds:
        base, (name, smooth) = relu(world), choice(world)
        sticky = seen(base, replace(SEVERAL, routing="sticky"))
        ensemble = seen(at_best_rate(world, "cures", "ensemble:relu:m=3"), SEVERAL)
        shares = [seen(base, SEVERAL), sticky, seen(smooth, SEVERAL), ensemble]
        ratios = [times(ratio(smooth, base, "pd")), times(ratio(smooth, base, "log_loss"), 3)]
        rows.append([world.name, *map(_share, shares), *(ratios if name != "relu" else [DASH, DASH])])
    return WorldTable(heads, rows)


def gate(worlds: Sequence[WorldCells]) -> WorldTable:
    """Differences of two trainings of the same model on the same events: smaller ones are no news."""
    heads = ["world", "pair swaps of two trainings, ReLU", "largest of the units", "one training on events 5 % later"]
    rows = []
    for world in worlds:
        base = relu(world)
        pairs = [values["pair"] for values in base.values() if "pair" in values]
        later = mean(base, "refresh_pair")
        rows.append([world.name, written(mean(base, "pair")), number(max(pairs)) if pairs else DASH, written(later)])
    return WorldTable(heads, rows)


def layer_norm(worlds: Sequence[WorldCells]) -> WorldTable:
    """A model with layer norm: the effect of leaving it out."""
    heads = ["world", "norm", *(f"{measure}, {place}" for place in ("same start", "own start", "256 x 128 x 64")
                                for measure in ("PD", "log loss"))]  # fmt: skip
    rows = []
    for world in worlds:
        for norm in ("after", "before"):
            ratios = norm_ratios(world, norm)
            cells = [ratios.get(place) for place in ("same start", "own start", "wide")]
            if any(cells):
                pairs = [pair or (None, None) for pair in cells]
                rows.append([world.name, norm, *(text for pd, loss in pairs for text in (times(pd), times(loss, 3)))])
    return WorldTable(heads, rows)


def ensembles(worlds: Sequence[WorldCells]) -> WorldTable:
    """Several networks whose log-odds are averaged."""
    heads = ["world", "networks", "PD", "log loss", "look-ups", "training", "scoring"]
    rows = []
    for world in worlds:
        base, (name, smooth) = relu(world), choice(world)
        by_words = {str(m): at_best_rate(world, "cures", f"ensemble:relu:m={m}") for m in (2, 3, 5)}
        by_words["3 narrow"] = at_best_rate(world, "cures", "ensemble:relu:m=3,narrow")
        by_words |= {f"1, {label(name)}": smooth} if name != "relu" else {}
        for words, units in by_words.items():
            if pd := ratio(units, base, "pd"):
                cost = [ratio(units, base, measure) for measure in ("lookups", "train_seconds", "score_seconds")]
                rows.append([world.name, words, times(pd), times(ratio(units, base, "log_loss"), 3),
                             *(roughly(measure, 1) for measure in cost)])  # fmt: skip
    return WorldTable(heads, rows)


def lowers(worlds: Sequence[WorldCells], measure: str) -> tuple[list[str], list[str]]:
    """Worlds where SmeLU as chosen is shown to have less of a measure than ReLU, and where more."""
    lower, higher = [], []
    for world in worlds:
        name, smooth = choice(world)
        measured = ratio(smooth, relu(world), measure) if name != "relu" else None
        lower += [world.name] if measured and measured.high < 1 else []
        higher += [world.name] if measured and measured.low > 1 else []
    return lower, higher


def ensemble_lowers(worlds: Sequence[WorldCells], networks: int) -> tuple[list[str], list[str]]:
    """Worlds where an ensemble is shown to have less PD than one network, and where less log loss."""
    pd, loss = list[str](), list[str]()
    for world in worlds:
        units = at_best_rate(world, "cures", f"ensemble:relu:m={networks}")
        for measure, lowered in (("pd", pd), ("log_loss", loss)):
            value = ratio(units, relu(world), measure)
            lowered += [world.name] if value and value.high < 1 else []
    return pd, loss
