"""summary.json: what a live run found, per arm as in result.json (simulator/outcome.py), and how serving went.

    {"schema": 1, "flicker": VERSION, "command": ..., "seconds": x, "peak_memory_bytes": n,
     "arms": {LABEL: {"swaps": {"slot": I, ...}, "refresh_swaps": {...}, "comparisons": n, "log_loss": I, "auc": I,
                      "user_visible_swap_ratio": x, "user_visible_slot_ratio": x}},
     "lost": [why a process was dead for good, ...],
     "serving": {"requests", "failures", "p50", "p99", "refreshes", "first_answer", "first_gauge"}}   times in seconds

user_visible_swap_ratio: of the queries that users asked again moments later, the share whose slate changed in any slot,
for whatever cause; user_visible_slot_ratio: the share of their slots that changed. null where nobody asked twice.
swaps, refresh_swaps: every measure of simulator/measures/registry.py; ratios are sums of counters over the whole run,
never means of ratios. I = {"mean", "low", "high"}: a bootstrap over blocks of some seconds, given this run's one fleet.
log_loss and auc are progressive, of the last generation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.files import flicker_version, write_atomically
from simulator.live.watch import CAUSES, Sums, Watch
from simulator.measures.intervals import Interval, Resamples
from simulator.measures.registry import MEASURES, Measure
from simulator.words import label, number, percent

SCHEMA = 1


def write_summary(out: Path, watch: Watch, load_summary: Path, command: str, lost: Sequence[str] = ()) -> str:
    """Write `out`/summary.json; returns the finding in a sentence."""
    load = _read(load_summary)
    arms = {arm: _arm(watch, load, arm) for arm in watch.arms()}
    summary = {
        "schema": SCHEMA,
        "flicker": flicker_version(),
        "command": command,
        "seconds": round(watch.seconds(), 1),
        "peak_memory_bytes": watch.peak_memory,
        "arms": arms,
        "lost": list(lost),
        "serving": _serving(watch, load),
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=1).encode())
    return finding(arms)


def finding(arms: dict[str, Any]) -> str:
    """What the live comparisons say of the first arm and the steadiest other one."""
    swaps = {arm: values["swaps"]["pair"]["mean"] for arm, values in arms.items() if values["swaps"].get("pair")}
    if not swaps:
        return "No comparisons yet: let it run longer, or raise --rate or --shadow."
    first, *others = swaps
    said = f"Two duplicates of {label(first)} put {percent(swaps[first])} of all pairs of items in opposite order"
    if not others or swaps[first] == 0:
        return f"{said}."
    best = min(others, key=lambda arm: swaps[arm])
    ratio = number(swaps[best] / swaps[first], 2)
    return f"{said}; {label(best)} {percent(swaps[best])}, {ratio} of it."


def _arm(watch: Watch, load: dict[str, Any], arm: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for cause, name in CAUSES.items():
        found[name] = {measure.name: _ratio(watch.blocks, (arm, cause), measure) for measure in MEASURES.values()}
    found["comparisons"] = watch.router.total("flicker_compared_total", arm=arm, measure="slate")
    for measure in ("log_loss", "auc"):
        value = watch.trainer.value(f"flicker_progressive_{measure}", arm=arm)
        found[measure] = None if math.isnan(value) else Interval(value, value, value).as_dict()
    seen = load.get("user_visible_swap_ratio", {}).get(arm, {})
    found["user_visible_swap_ratio"] = seen.get("ratio")
    found["user_visible_slot_ratio"] = seen.get("slot_ratio")
    return found


def _ratio(blocks: list[Sums], whose: tuple[str, str], measure: Measure) -> dict[str, float] | None:
    """Sum of numerators / sum of denominators, with a bootstrap over blocks; None where nothing was compared."""
    totals = np.array([block.get((*whose, measure.name), (0.0, 0.0)) for block in blocks])
    if len(totals) < 2 or totals[-1, 1] == 0:
        return None
    steps = np.diff(totals, axis=0, prepend=0.0)
    steps = steps[steps[:, 1] > 0]
    estimate = Resamples(1, 1, len(steps)).models(steps[None, None, :, 0], steps[:, 1])
    return estimate.interval(most=measure.most).as_dict()


def _serving(watch: Watch, load: dict[str, Any]) -> dict[str, Any]:
    answered = watch.router.total("flicker_router_queries_total", code="OK")
    every = watch.router.total("flicker_router_queries_total")
    failures = sum(load.get("failures", {}).values()) if "failures" in load else every - answered
    return {
        "requests": load.get("requests", every),
        "failures": failures,
        "p50": load.get("p50"),
        "p99": load.get("p99"),
        "offered": load.get("offered"),
        "achieved": load.get("achieved"),
        "refreshes": watch.refreshes,
        "first_answer": watch.first.get("answer"),
        "first_gauge": watch.first.get("gauge"),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
