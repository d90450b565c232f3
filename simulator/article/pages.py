"""`flicker article write`: docs/results.md, docs/decide.md, README's summary, an SVG and a CSV per figure, settings.

Everything is made from cells.jsonl, so the same file gives the same pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np

from simulator.article import figures
from simulator.article.claims import (
    Claim,
    Finding,
    at_best_rate,
    choice,
    decide_all,
    designs,
    family,
    norm_ratios,
    prediction,
    relu,
)
from simulator.article.figures import standalone
from simulator.article.grid import CELLS
from simulator.article.table import Units, Values, WorldCells, matched, mean, ratio, read_lines, roughly, times, worlds
from simulator.decide.situation import Situation, what_a_user_sees
from simulator.errors import ResultError
from simulator.files import as_csv, write_atomically, writing
from simulator.measures.words import DASH, label, number, percent, written
from simulator.report.charts import Figure
from simulator.report.kit import render
from simulator.result import Arm
from simulator.types import Interval

TEMPLATES = Path(__file__).with_name("templates")
SUMMARY = re.compile(r"(?<=<!-- results: by flicker article write -->\n).*?(?=<!-- end of results -->)", re.DOTALL)
"""What README says of the results: all between two comments."""
ONE = Situation(models=1, refresh_every="1h", asks_again="10m")
SEVERAL = replace(ONE, models=3)
CAUSES = {"swaps.slot": "slot", "refresh_swaps.slot": "refresh_slot", "both_swaps.slot": "both_slot"}


@dataclass(frozen=True)
class WriteFlags:
    """Decide every claim from finished cells, and write the pages and their figures."""

    cells: Path = Path("docs/article")
    """Folder of cells.jsonl, where `flicker article run` left it; figures go there too."""
    pages: Path = Path("docs")
    """Folder for results.md and decide.md; the summary in a README.md beside the folder is made anew, too."""


def write(flags: WriteFlags) -> list[Path]:
    """Write everything; returns the pages. Raises ResultError where there are no cells, or nothing can be written."""
    all_worlds = in_order(worlds(read_lines(flags.cells / CELLS)))
    if not all_worlds:
        raise ResultError(f"{flags.cells / CELLS}: no finished cell: flicker article run --out {flags.cells}")
    all_figures = figures.all_figures(all_worlds)
    images = relpath(flags.cells, flags.pages)
    texts = {
        flags.pages / "results.md": results(all_worlds, all_figures, images),
        flags.pages / "decide.md": advice(all_worlds),
    }
    readme = Path(relpath(flags.pages.absolute().parent / "README.md"))
    if readme.is_file() and SUMMARY.search(old := readme.read_text(encoding="utf-8")):
        texts[readme] = SUMMARY.sub(lambda _: summary(all_worlds), old)
    with writing("cells", flags.cells):
        for figure in all_figures:
            stem = flags.cells / f"{figure.number}-{figure.name}"
            write_atomically(stem.with_suffix(".svg"), standalone(figure).encode())
            write_atomically(stem.with_suffix(".csv"), figure.csv().encode())
        write_atomically(flags.cells / "settings.csv", as_csv(settings(all_worlds)).encode())
        for path, text in texts.items():
            write_atomically(path, text.encode())
    return list(texts)


def in_order(unordered: Mapping[str, WorldCells]) -> list[WorldCells]:
    """Logs before made-up worlds."""
    return sorted(unordered.values(), key=lambda world: (world.name[:4] == "made", world.name))


def results(all_worlds: Sequence[WorldCells], all_figures: Sequence[Figure], images: str) -> str:
    """The page of claims."""
    decided = decide_all(all_worlds)
    missing = {claim.figure for claim, _ in decided} - {figure.name for figure in all_figures}
    return _rendered(
        "results.md",
        count=figures.count(all_worlds),
        worlds=all_worlds,
        claims=decided,
        refuted=_summed(decided, "no"),
        holding=_summed(decided, "yes"),
        numbers=dict.fromkeys(missing, DASH) | {figure.name: figure.number for figure in all_figures},
        anchors=dict.fromkeys(missing, "") | {figure.name: _anchor(figure) for figure in all_figures},
        logs=[world.name for world in all_worlds if not world.name.startswith("made-up")],
        predictions=[(world.name, prediction(world)) for world in all_worlds],
        accuracy=[row for world in all_worlds for row in accuracy(world)],
        figures=all_figures,
        costs=[[world.name, *row] for world in all_worlds for row in figures.cost_rows(world)],
        sources=[[world.name, *row] for world in all_worlds for row in figures.source_rows(world)],
        images=images,
    )


def summary(all_worlds: Sequence[WorldCells]) -> str:
    """The part of README: what does not hold, what does, of each world the gain beside what it must be read with."""
    decided = decide_all(all_worlds)
    return _rendered(
        "summary.md",
        refuted=_summed(decided, "no"),
        holding=_summed(decided, "yes"),
        rows=[(world.name, _chosen(world), _refresh(world), _matched(world), _losses(world)) for world in all_worlds],
    )


def _chosen(world: WorldCells) -> str:
    """PD and log loss of SmeLU as chosen, to ReLU's."""
    (name, units), base = choice(world), relu(world)
    if name == "relu":
        return "no SmeLU is as accurate"
    return f"{label(name)}: {times(ratio(units, base, 'pd'))} / {times(ratio(units, base, 'log_loss'), 3)}"


def _refresh(world: WorldCells) -> str:
    """Pair swaps over a refresh of SmeLU as chosen, to ReLU's."""
    return times(ratio(choice(world)[1], relu(world), "refresh_pair"))


def _matched(world: WorldCells) -> str:
    """Pair swaps of SmeLU at ReLU's log loss, and personalisation at the same settings."""
    plain = family(world, "activations", "relu")
    smelu = family(world, "activations", *designs(world, "activations", "smelu"))
    at_equal_loss = matched(smelu, plain, plain, "pair", ["personalisation"])
    if not at_equal_loss:
        return DASH
    return f"{times(at_equal_loss.ratio)} / {times(at_equal_loss.other_ratios.get('personalisation'))}"


def _losses(world: WorldCells) -> str:
    """Log loss of ReLU and of the best baseline, whose name stands behind it."""
    means = {name: _mean([line["log_loss"] for line in lines]) for name, lines in _baselines(world).items()}
    means.pop("oracle", None)  # which knows the truth
    best = min(means, key=lambda name: float(means[name]), default="")
    of_relu = _mean([unit["log_loss"] for unit in relu(world).values()])
    return f"{of_relu} / {means[best]} ({best})" if best else f"{of_relu} / {DASH}"


def advice(all_worlds: Sequence[WorldCells]) -> str:
    """The page of advice."""
    return _rendered(
        "decide.md",
        one_model=one_model(all_worlds),
        several_models=several_models(all_worlds),
        gate=gate(all_worlds),
        layer_norm=layer_norm(all_worlds),
        ensembles=ensembles(all_worlds),
        refresh=lowers(all_worlds, "refresh_slot"),
        pd=lowers(all_worlds, "pd"),
        three=ensemble_lowers(all_worlds, 3),
        five=ensemble_lowers(all_worlds, 5),
        norm=[f"{world.name} ({norm})" for world in all_worlds for norm in ("after", "before") if _worse(world, norm)],
    )


def _worse(world: WorldCells, norm: str) -> bool:
    ratios = norm_ratios(world, norm).get("same start")
    return ratios is not None and ratios[0].low > 1 and ratios[1].low > 1


def _rendered(template: str, **values: Any) -> str:
    return re.sub(r"\n{3,}", "\n\n", render(template, TEMPLATES, **values)).rstrip() + "\n"


def _anchor(figure: Figure) -> str:
    """Of its heading, as sites for Markdown make it."""
    words = f"Figure {figure.number}: {figure.claim}".lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def _summed(decided: Sequence[tuple[Claim, list[Finding]]], verdict: str) -> str:
    """The claims that have this verdict on every world, or on most of those where they were decided."""
    parts = []
    for number_, (claim, findings) in enumerate(decided, 1):
        run = [finding.verdict for finding in findings if finding.verdict != "not run"]
        if run and 2 * run.count(verdict) > len(run):  # type: ignore[arg-type]
            parts.append(f"{claim.words[0].lower()}{claim.words[1:]} ({number_}: {run.count(verdict)} of {len(run)})")  # type: ignore[arg-type]
    return "; ".join(parts) + "." if parts else "nothing on most worlds."


def accuracy(world: WorldCells) -> list[list[str]]:
    """ReLU, SmeLU as chosen and the baselines: log loss, NDCG, recall, personalisation."""
    names = ("log_loss", "ndcg", "recall", "personalisation")
    name, smooth = choice(world)
    arms = {"ReLU": list(relu(world).values())} | ({label(name): list(smooth.values())} if name != "relu" else {})
    arms |= _baselines(world)
    return [[world.name, words, *(_mean([unit[key] for unit in values if key in unit]) for key in names)]
            for words, values in arms.items() if values]  # fmt: skip


def _baselines(world: WorldCells) -> dict[str, list[Values]]:
    """The values of each baseline, one for each unit."""
    lines = [line.baselines for line in world.lines if line.group == "activations"]
    return {name: [line[name] for line in lines] for name in (lines[0] if lines else {})}


def _mean(values: Sequence[float]) -> str:
    return number(float(np.mean(values)), 4) if values else DASH


def settings(all_worlds: Sequence[WorldCells]) -> list[list[str]]:
    """World, cells' group, arm, units, and the mean of every value."""
    all_arms = [arm for world in all_worlds for line in world.lines for arm in line.arms.values()]
    names = list(dict.fromkeys(name for arm in all_arms for name in arm))
    rows = [["world", "group", "arm", "units", *names]]
    for world in all_worlds:
        for group, arms in world.groups.items():
            for spec, units in arms.items():
                measured = [[values[name] for values in units.values() if name in values] for name in names]
                means = [f"{np.mean(values):.6g}" if values else "" for values in measured]
                rows.append([world.name, group, spec, str(len(units)), *means])
    return rows


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
