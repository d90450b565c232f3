"""The live system measured, its laws fitted, and checked on other combinations: `make scaling ARGS=--live`.

It writes simulator/size/laws.json, which `flicker size` reads, and the last part of docs/scaling.md. Points are kept
one a line as they come (`--points FILE`): what is there already is not measured again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import machine
import numpy as np
from scaling_axes import LIVE
from scaling_laws import fit_sum
from scaling_live import QUERIES, REPORTS, WINDOWS, Live

from simulator.randomness import generator
from simulator.size.laws import FORMS, Law, Laws, Workload, parsed, quantity_of
from simulator.size.plan import DeploymentPlan, SizeFlags, plan

SEED, DRAWN = 20, 3
"""Of what is drawn, and how many combinations."""
BASE = Live()
WIDTHS = (32, 16), (64, 32), (128, 64), (128, 64, 32), (256, 128)
"""Of hidden layers."""
FITTED = [
    BASE,
    *(replace(BASE, entities=count) for count in (2_000, 50_000, 150_000)),
    replace(BASE, entities=100_000, hash_rows=5_000),
    *(replace(BASE, arms=count) for count in (1, 4)),
    *(replace(BASE, duplicates=count) for count in (2, 8)),
    *(replace(BASE, candidates=count) for count in (50, 800)),
    *(replace(BASE, dim=size) for size in (8, 48)),
    *(replace(BASE, hidden=widths) for widths in WIDTHS if widths != BASE.hidden),
    *(replace(BASE, generation_events=count) for count in (16_384, 32_768)),
    Live(50_000, 0, 3, 6, 400, 32, (128, 64), 16_384),
]
"""One thing at a time, and one combination."""


def drawn(seed: int = SEED) -> list[Live]:
    """Combinations within what was fitted, drawn at random: counts evenly on a scale of ratios."""
    draws = generator(seed, "scaling check", 0)

    def between(low: float, high: float) -> int:
        return round(float(np.exp(draws.uniform(np.log(low), np.log(high)))))

    found = []
    for _ in range(DRAWN):
        entities = between(3_000, 100_000)
        found.append(
            Live(
                entities=entities,
                hash_rows=int(draws.choice([0, 0, entities // 3])),
                arms=between(1, 4),
                duplicates=between(2, 8),
                candidates=between(50, 800),
                dim=int(draws.choice([8, 16, 24, 32, 48])),
                hidden=WIDTHS[draws.integers(len(WIDTHS))],
                generation_events=int(draws.choice([8_192, 16_384, 32_768])),
            )
        )
    return found


HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LAWS = ROOT / "simulator/size/laws.json"
TEMPLATE = HERE / "scaling_live.md.in"
CHECKS = 5
"""Systems of each combination that the laws are checked on; figures are medians over them."""
CLOSE = 0.25
"""Error of a forecast that is small enough."""
JUDGED = ("router_query", "replica_query", "replica_refresh", "trainer_generation") + (
    "router_memory", "replica_memory", "trainer_memory",
)  # fmt: skip
"""What is judged: CPU and anonymous memory of the parts."""
Point = dict[str, Any]


def measure(file: Path, jobs: Sequence[tuple[str, Live]], at_once: int) -> list[Point]:
    """All points, `fitted` or `checked`, those of the file first."""
    file.touch()
    points = [json.loads(line) for line in file.read_text().splitlines()]
    have = Counter((point["kind"], key(point["setting"])) for point in points)
    todo = []
    for kind, setting in jobs:
        name = kind, key(asdict(setting))
        have[name] -= 1
        if have[name] < 0:
            todo.append((kind, setting))
    with ThreadPoolExecutor(at_once) as pool, file.open("a") as kept:
        for point in pool.map(lambda job: one(*job), todo):
            points.append(point)
            kept.write(json.dumps(point) + "\n")
            kept.flush()
            print(f"{len(points)} points", file=sys.stderr)
    return points


def key(setting: dict[str, Any]) -> str:
    """How a setting is told from others."""
    return json.dumps(setting | {"hidden": list(setting["hidden"])})


def one(kind: str, setting: Live) -> Point:
    """A point in a process of its own."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "scaling_live.py"), folder, key(asdict(setting))]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        ran = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return {"kind": kind, "load": os.getloadavg()[0], **json.loads(ran.stdout)}


def shape_of(setting: dict[str, Any]) -> Workload:
    """A setting as the laws count it."""
    s = Live(**setting | {"hidden": tuple(setting["hidden"])})
    return Workload(
        s.entities, s.entities, s.hash_rows, s.arms, s.duplicates, s.candidates, s.dim, s.hidden, s.generation_events
    )


def figures(point: Point) -> dict[str, float]:
    """What one system took, by the names of the laws: medians over its windows."""

    def of(windows: Iterable[dict[str, float]], *names: str) -> float:
        return median(sum(window[name] for name in names) for window in windows)

    asked, compared = point["windows"]["queries"], point["windows"]["compared"]
    refreshes, memory = point["windows"]["refreshes"], {name: one["peak"] for name, one in point["memory"].items()}
    query = of(asked, "router-0") / QUERIES
    comparisons = WINDOWS * QUERIES - sum(window["dropped"] for window in compared)
    # comparisons come late: of all windows together
    more = sum(window["router-1"] for window in compared) / comparisons - query
    return {
        "router_query": query,
        "router_compared": max(more, 1e-6),
        "router_report": of(point["reports"], "router-0") / REPORTS,
        "router_memory": memory["router-1"],
        "replica_query": of(asked, "replica-0", "replica-1") / QUERIES,
        "replica_refresh": of(refreshes, "replica-0", "replica-1") / 2,
        "replica_memory": (memory["replica-0"] + memory["replica-1"]) / 2,
        "trainer_generation": of(refreshes, "trainer"),
        "trainer_memory": memory["trainer"],
        "store_report": of(point["reports"], "store") / REPORTS,
        "store_generation": of(refreshes, "store"),
        "duplicate_bytes": point["parts"]["duplicate/0"],
        "catalog_bytes": point["parts"]["catalog"],
        "waiting_bytes": point["waiting_bytes"],
        "user_bytes": point["bytes"]["users"],
        "rank_bytes": point["bytes"]["replica"],
    }


def fitted_laws(points: Sequence[Point]) -> dict[str, Any]:
    """What laws.json says."""
    own = [point for point in points if point["kind"] == "fitted"]
    shapes, found = [shape_of(point["setting"]) for point in own], [figures(point) for point in own]
    laws = {}
    for name, form in FORMS.items():
        law = fit_sum([form.counts(shape) for shape in shapes], [figure[name] for figure in found])
        laws[name] = {"coefficients": law.coefficients, "r2": law.r2, "worst": law.worst}
    about = machine.describe()
    names = ("users", "items", "arms", "candidates", "dim", "events", "duplicates")
    loads = [point["load"] for point in points]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{about['cpu']}, {about['cores']} cores, {about['instructions']}; Python {about['python']}",
        "load": [min(loads), max(loads)],
        "points": len({key(point["setting"]) for point in own}),
        "measurements": len(own),
        "most": {name: max(getattr(shape, name) for shape in shapes) for name in names},
        "samples": {name: median(point["samples"][name] for point in own) for name in own[0]["samples"]},
        "laws": laws,
    }


def checks(points: Sequence[Point], laws: Laws) -> list[tuple[dict[str, Any], str, float, float, int]]:
    """Setting, law, what was foretold and measured, of how many systems; for each combination that was drawn."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point["kind"] == "checked":
            groups.setdefault(key(point["setting"]), []).append(point)
    rows = []
    for group in groups.values():
        setting, found = group[0]["setting"], [figures(point) for point in group]
        for name in JUDGED:
            measured = median(figure[name] for figure in found)
            rows.append((setting, name, laws[name](shape_of(setting)), measured, len(group)))
    return rows


def write(points: Sequence[Point], docs: Path, laws_file: Path = LAWS) -> list[Path]:
    """laws.json and the part of the page."""
    said = fitted_laws(points)
    laws_file.write_text(json.dumps(said, indent=1) + "\n")
    laws = parsed(said)
    page = docs / "scaling.md"
    above = page.read_text().partition(LIVE)[0] if page.exists() else ""
    page.write_text(above + Template(TEMPLATE.read_text()).substitute(values(points, said, laws)))
    return [laws_file, page]


def values(points: Sequence[Point], said: dict[str, Any], laws: Laws) -> dict[str, str]:
    """What the template asks for."""
    rows = checks(points, laws)
    missed = [row for row in rows if abs(row[2] / row[3] - 1) > CLOSE]
    words = "; ".join(
        f"{FORMS[name].title} with {setting['entities']:,} users, {guess / found - 1:+.0%}"
        for setting, name, guess, found, _ in missed
    )
    return {
        "date": said["date"],
        "machine": said["machine"],
        "load": f"{said['load'][0]:.1f} to {said['load'][1]:.1f}",
        "points": str(said["points"]),
        "measurements": str(said["measurements"]),
        "laws": "\n".join(law_row(laws.laws[name], said["laws"][name]) for name in FORMS),
        "verdict": f"**{len(missed)} of {len(rows)} forecasts miss by more than {CLOSE:.0%}**"
        + (f": {words}." if missed else "."),
        "systems": str(min(row[4] for row in rows)) if rows else "0",
        "seed": str(SEED),
        "checked": "\n".join(map(check_row, rows)),
        "combinations": combinations(rows),
        "saturates": saturation(laws),
    }


def law_row(law: Law, said: dict[str, Any]) -> str:
    """Of the table of laws."""
    return f"| {law.form.title} | {law.words()} | {said['r2']:.3f} | {said['worst']:.0%} |"


def combinations(rows: Sequence[tuple[dict[str, Any], str, float, float, int]]) -> str:
    """Each combination once, with its number."""
    found = list({key(row[0]): row[0] for row in rows}.values())
    lines = []
    for number, s in enumerate(found, 1):
        hidden = " ".join(map(str, s["hidden"]))
        rows_words = f"{s['hash_rows']:,} hashed rows" if s["hash_rows"] else "a row each"
        lines.append(
            f"{number}. {s['entities']:,} users and as many items, {rows_words}, {s['arms']} arms of {s['duplicates']} "
            f"duplicates, {s['candidates']} candidates, `--dim {s['dim']} --hidden {hidden}`, generations of "
            f"{s['generation_events']:,} events"
        )
    return "\n".join(lines)


def check_row(row: tuple[dict[str, Any], str, float, float, int]) -> str:
    """Of the table of forecasts."""
    setting, name, guess, found, _ = row
    form = FORMS[name]
    shown = quantity_of(form.unit)
    return f"| {form.title} | {setting['entities']:,} | {shown(guess)} | {shown(found)} | {guess / found - 1:+.0%} |"


def saturation(laws: Laws) -> str:
    """A row for each demand: machines of each part, what saturates first with weights in the store and elsewhere."""
    lines = []
    for rate in (1e2, 1e3, 1e5):
        for duplicates in (8, 100, 1_000):
            for events in (1e6, 1e9):
                flags = SizeFlags(rate, duplicates, events, items=1e6)
                here, apart = plan(flags, laws), plan(replace(flags, weights="objects"), laws)
                counts = " / ".join(f"{part.machines:,.0f}" for part in apart.parts[:4])
                first = [first_of(made) for made in (here, apart)]
                lines.append(f"| {rate:,.0f} | {duplicates:,} | {events:,.0f} | {counts} | {' | '.join(first)} |")
    return "\n".join(lines)


def first_of(made: DeploymentPlan) -> str:
    """What saturates first, and how far it is."""
    limit = made.limits[0]
    share = f"{limit.share:.0%}" if limit.share < 1 else f"**× {limit.share:.1f}**"
    return f"{limit.what} ({share})"


def all_jobs() -> list[tuple[str, Live]]:
    """What laws are fitted to before and after what they are checked on: on a shared machine the load changes."""
    fitted = [("fitted", setting) for setting in FITTED]
    return [*fitted, *(("checked", setting) for _ in range(CHECKS) for setting in drawn()), *fitted]


def main(file: Path, docs: Path, at_once: int) -> None:
    """Measure what is missing, fit, check, write."""
    for path in write(measure(file, all_jobs(), at_once), docs):
        print(path)
