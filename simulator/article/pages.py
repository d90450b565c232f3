"""`flicker article write`: docs/results.md, docs/decide.md, README's summary, an SVG and a CSV per figure, settings.

Everything is made from cells.jsonl, so the same file gives the same pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np

from simulator.article import decide, figures
from simulator.article.claims import Claim, Finding, choice, designs, family, known, norm_ratios, prediction, relu
from simulator.article.compose import standalone
from simulator.article.frontier import matched
from simulator.article.run import CELLS
from simulator.article.table import World, ratio, read_lines, times, worlds
from simulator.errors import ResultError
from simulator.files import as_csv, write_atomically, writing
from simulator.report.charts import Figure
from simulator.report.templates import render
from simulator.words import DASH, label, number

TEMPLATES = Path(__file__).with_name("templates")
SUMMARY = re.compile(r"(?<=<!-- results: by flicker article write -->\n).*?(?=<!-- end of results -->)", re.DOTALL)
"""What README says of the results: all between two comments."""


@dataclass(frozen=True)
class WriteFlags:
    """Decide every claim from finished cells, and write the pages and their figures."""

    cells: Path = Path("docs/article")
    """Folder of cells.jsonl, where `flicker article run` left it; figures go there too."""
    pages: Path = Path("docs")
    """Folder for results.md and decide.md; the summary in a README.md beside the folder is made anew, too."""


def write(flags: WriteFlags) -> list[Path]:
    """Write everything; returns the pages. Raises ResultError where there are no cells, or nothing can be written."""
    held = in_order(worlds(read_lines(flags.cells / CELLS)))
    if not held:
        raise ResultError(f"{flags.cells / CELLS}: no finished cell: flicker article run --out {flags.cells}")
    every = figures.drawn(held)
    images = relpath(flags.cells, flags.pages)
    texts = {flags.pages / "results.md": results(held, every, images), flags.pages / "decide.md": advice(held)}
    readme = Path(relpath(flags.pages.absolute().parent / "README.md"))
    if readme.is_file() and SUMMARY.search(old := readme.read_text(encoding="utf-8")):
        texts[readme] = SUMMARY.sub(lambda _: summary(held), old)
    with writing("cells", flags.cells):
        for figure in every:
            stem = flags.cells / f"{figure.number}-{figure.name}"
            write_atomically(stem.with_suffix(".svg"), standalone(figure).encode())
            write_atomically(stem.with_suffix(".csv"), figure.csv().encode())
        write_atomically(flags.cells / "settings.csv", as_csv(settings(held)).encode())
        for path, text in texts.items():
            write_atomically(path, text.encode())
    return list(texts)


def in_order(held: Mapping[str, World]) -> list[World]:
    """Logs before made-up worlds."""
    return sorted(held.values(), key=lambda world: (world.name[:4] == "made", world.name))


def results(held: Sequence[World], every: Sequence[Figure], images: str) -> str:
    """The page of claims."""
    decided = known(held)
    return _rendered(
        "results.md",
        count=figures.count(held),
        worlds=held,
        claims=decided,
        refuted=_summed(decided, "no", held),
        holding=_summed(decided, "yes", held),
        numbers={figure.name: figure.number for figure in every} | {name: DASH for name in _missing(decided, every)},
        anchors={figure.name: _anchor(figure) for figure in every} | {name: "" for name in _missing(decided, every)},
        logs=[world.name for world in held if not world.name.startswith("made-up")],
        predictions=[(world.name, prediction(world)) for world in held],
        accuracy=[row for world in held for row in accuracy(world)],
        figures=every,
        costs=[[world.name, *row] for world in held for row in figures.cost_rows(world)],
        sources=[[world.name, *row] for world in held for row in figures.source_rows(world)],
        images=images,
    )


def summary(held: Sequence[World]) -> str:
    """The part of README: what does not hold, what does, of each world the gain beside what it must be read with."""
    decided = known(held)
    return _rendered(
        "summary.md",
        refuted=_summed(decided, "no", held),
        holding=_summed(decided, "yes", held),
        rows=[(world.name, _chosen(world), _refresh(world), _matched(world), _losses(world)) for world in held],
    )


def _chosen(world: World) -> str:
    """PD and log loss of SmeLU as chosen, to ReLU's."""
    (name, units), base = choice(world), relu(world)
    if name == "relu":
        return "no SmeLU is as accurate"
    return f"{label(name)}: {times(ratio(units, base, 'pd'))} / {times(ratio(units, base, 'log_loss'), 3)}"


def _refresh(world: World) -> str:
    """Pair swaps over a refresh of SmeLU as chosen, to ReLU's."""
    return times(ratio(choice(world)[1], relu(world), "refresh_pair"))


def _matched(world: World) -> str:
    """Pair swaps of SmeLU at ReLU's log loss, and personalisation at the same settings."""
    plain = family(world, "activations", "relu")
    own = family(world, "activations", *designs(world, "activations", "smelu"))
    found = matched(own, plain, plain, "pair", ["personalisation"])
    return f"{times(found.ratio)} / {times(found.others.get('personalisation'))}" if found else DASH


def _losses(world: World) -> str:
    """Log loss of ReLU and of the best baseline, whose name stands behind it."""
    held = [line.baselines for line in world.lines if line.group == "activations"]
    names = [name for name in (held[0] if held else {}) if name != "oracle"]  # which knows the truth
    means = {name: _mean([one[name]["log_loss"] for one in held]) for name in names}
    best = min(means, key=lambda name: float(means[name]), default="")
    own = _mean([one["log_loss"] for one in relu(world).values()])
    return f"{own} / {means[best]} ({best})" if best else f"{own} / {DASH}"


def advice(held: Sequence[World]) -> str:
    """The page for whoever decides."""
    return _rendered(
        "decide.md",
        one_model=decide.one_model(held),
        several_models=decide.several_models(held),
        gate=decide.gate(held),
        layer_norm=decide.layer_norm(held),
        ensembles=decide.ensembles(held),
        refresh=decide.lowers(held, "refresh_slot"),
        pd=decide.lowers(held, "pd"),
        three=decide.ensemble_lowers(held, 3),
        five=decide.ensemble_lowers(held, 5),
        norm=[f"{world.name} ({norm})" for world in held for norm in ("after", "before") if _worse(world, norm)],
    )


def _worse(world: World, norm: str) -> bool:
    found = norm_ratios(world, norm).get("same start")
    return found is not None and found[0].low > 1 and found[1].low > 1


def _rendered(template: str, **values: Any) -> str:
    return re.sub(r"\n{3,}", "\n\n", render(template, TEMPLATES, **values)).rstrip() + "\n"


def _missing(decided: Sequence[tuple[Claim, list[Finding]]], every: Sequence[Figure]) -> set[str]:
    return {claim.figure for claim, _ in decided} - {figure.name for figure in every}


def _anchor(figure: Figure) -> str:
    """Of its heading, as sites for Markdown make it."""
    words = f"Figure {figure.number}: {figure.claim}".lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def _summed(decided: Sequence[tuple[Claim, list[Finding]]], verdict: str, held: Sequence[World]) -> str:
    """The claims that have this verdict on every world, or on most of those where they were decided."""
    said = []
    for number_, (claim, findings) in enumerate(decided, 1):
        run = [one.verdict for one in findings if one.verdict != "not run"]
        if run and 2 * run.count(verdict) > len(run):  # type: ignore[arg-type]
            said.append(f"{claim.words[0].lower()}{claim.words[1:]} ({number_}: {run.count(verdict)} of {len(run)})")  # type: ignore[arg-type]
    return "; ".join(said) + "." if said else "nothing on most worlds."


def accuracy(world: World) -> list[list[str]]:
    """ReLU, SmeLU as chosen and the baselines: log loss, NDCG, recall, personalisation."""
    names = ("log_loss", "ndcg", "recall", "personalisation")
    name, smooth = choice(world)
    arms = {"ReLU": list(relu(world).values())} | ({label(name): list(smooth.values())} if name != "relu" else {})
    held = [line.baselines for line in world.lines if line.group == "activations"]
    arms |= {one: [line[one] for line in held] for one in (held[0] if held else {})}
    return [[world.name, words, *(_mean([one[key] for one in every if key in one]) for key in names)]
            for words, every in arms.items() if every]  # fmt: skip


def _mean(values: Sequence[float]) -> str:
    return number(float(np.mean(values)), 4) if values else DASH


def settings(held: Sequence[World]) -> list[list[str]]:
    """World, cells' group, arm, units, and the mean of every value."""
    names = list(
        dict.fromkeys(name for world in held for line in world.lines for arm in line.arms.values() for name in arm)
    )
    rows = [["world", "group", "arm", "units", *names]]
    for world in held:
        for group, arms in world.groups.items():
            for spec, units in arms.items():
                means = [[one[name] for one in units.values() if name in one] for name in names]
                rows.append(
                    [world.name, group, spec, str(len(units)), *(f"{np.mean(m):.6g}" if m else "" for m in means)]
                )
    return rows
