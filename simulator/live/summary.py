"""What a live run found, as a Result of kind `live`, and how serving went.

Ratios are sums of counters over the whole run, never means of ratios; their intervals a bootstrap over blocks of some
seconds, given this run's one fleet. log_loss and auc are progressive, of the last generation.
user_visible_swap_ratio: of the queries that users asked again moments later, the share whose slate changed in any slot,
for whatever cause; user_visible_slot_ratio: the share of their slots that changed.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simulator.config import ExperimentConfig
from simulator.live.watch import CAUSES, Sums, Watch
from simulator.measures.intervals import Resamples
from simulator.measures.registry import MEASURES, Measure
from simulator.result import Arm, Result, write_result
from simulator.types import Interval, exact


def write_summary(
    out: Path,
    watch: Watch,
    load_summary: Path,
    command: str,
    lost: Sequence[str] = (),
    config: ExperimentConfig | None = None,
) -> str:
    """Write `out`/result.json; returns the finding in a sentence."""
    load = _read(load_summary)
    world = config.world if config else None
    result = Result(
        kind="live",
        world={"name": getattr(getattr(world, "path", None), "stem", "synthetic")},
        arms=[Arm(arm, dict(_measures(watch, load, arm))) for arm in watch.arms()],
        notes=["Live: 95 % intervals are over blocks of seconds of this run. Log loss and AUC are progressive."],
        seconds=round(watch.seconds(), 1),
        peak_memory_bytes=watch.peak_memory,
        config=json.loads(json.dumps(asdict(config), default=str)) if config else {},
        versions={"python": platform.python_version()},
        machine={"platform": platform.platform(), "cores": os.cpu_count()},
        command=command,
        serving=_serving(watch, load) | {"lost": list(lost)},
    )
    write_result(out, result)
    from simulator.report.finding import headline  # brings matplotlib: seconds that nobody has waited for

    return f"{headline(result)}."


def _measures(watch: Watch, load: dict[str, Any], arm: str) -> Iterator[tuple[str, Interval]]:
    """What is known of an arm."""
    blocks = [*watch.blocks, watch.recent[-1][1]]  # with what was compared since the last whole block
    for cause, name in CAUSES.items():
        for measure in MEASURES.values():
            if interval := ratio(blocks, (arm, cause), measure):
                yield f"{name}.{measure.name}", interval
    visible = load.get("user_visible_swap_ratio", {}).get(arm, {})
    single = {name: watch.trainer.value(f"flicker_progressive_{name}", arm=arm) for name in ("log_loss", "auc")}
    single |= {"user_visible_swap_ratio": visible.get("ratio"), "user_visible_slot_ratio": visible.get("slot_ratio")}
    for name, value in single.items():
        if value is not None and math.isfinite(value):
            yield name, exact(value)


def ratio(blocks: Sequence[Sums], comparison: tuple[str, str], measure: Measure) -> Interval | None:
    """Of (arm, cause) in the steps between blocks: sum of numerators / sum of denominators, with a bootstrap over them;
    None where nothing was compared."""
    totals = np.array([block.get((*comparison, measure.name), (0.0, 0.0)) for block in blocks])
    steps = np.diff(totals, axis=0, prepend=0.0)
    steps = steps[steps[:, 1] > 0]
    if len(steps) == 0:
        return None
    return _draws(len(steps)).models(steps[None, None, :, 0], steps[:, 1]).interval(maximum=measure.maximum)


@lru_cache(maxsize=32)
def _draws(blocks: int) -> Resamples:
    return Resamples(1, 1, blocks)


def _serving(watch: Watch, load: dict[str, Any]) -> dict[str, Any]:
    answered = watch.router.total("flicker_router_queries_total", code="OK")
    every = watch.router.total("flicker_router_queries_total")
    compared = {arm: watch.router.total("flicker_compared_total", arm=arm, measure="slate") for arm in watch.arms()}
    return {
        "requests": load.get("requests", every),
        "failures": sum(load.get("failures", {}).values()) if "failures" in load else every - answered,
        **{name: load.get(name) for name in ("p50", "p99", "offered", "achieved")},
        "refreshes": watch.refreshes,
        "first_answer": watch.first.get("answer"),
        "first_gauge": watch.first.get("gauge"),
        "comparisons": compared,
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
