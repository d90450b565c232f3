"""Several results as one: seeds of a sweep, or repeated runs, that are alike but for their seeds.

**A mean of means, with the wider of two intervals.** Results of n seeds are independent, so half-widths add in squares:
sqrt(sum h^2) / n. What each seed's own interval cannot see (one fleet's says nothing of other initialisations, that of
AUC nothing of users) shows in the spread between seeds: t s / sqrt(n), Student's t with n - 1 degrees of freedom.
Neither holds the other where n is small or an interval is conditional: the wider one is taken. On one log all seeds
were asked by the same users, whose part does not shrink: there half-widths are averaged. Ratios: as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import ResultError
from simulator.measures.intervals import student_quantile
from simulator.measures.registry import within
from simulator.result import Arm, Bucket, Measures, Result
from simulator.types import Interval


def pooled(cells: Sequence[tuple[Path, Result]]) -> Result:
    """One estimate per arm that all of them have. Raises FlickerError where they do not measure the same."""
    (_, first), *rest = cells
    if not rest:
        return first
    # runs of one seed are one, and would make the interval too narrow
    if len({run.config.get("seed") for _, run in cells}) < len(cells) and first.kind == "run":
        hint = "name runs of different seeds, one of each"
        raise ResultError(f"{rest[-1][0]}: a seed is there twice: {hint}")
    for folder, other in rest:
        _require_alike(first, other, folder)
    results = [result for _, result in cells]
    shared = not first.world.get("has_truth")
    by_spec = [{arm.spec: arm for arm in run.arms} for run in results]
    kept = _common(by_spec)
    if not kept:
        raise ResultError(f"{rest[0][0]}: has no arm of {cells[0][0]}: name results with arms in common")
    same = [[arms[spec] for arms in by_spec] for spec in kept]
    seeds = sorted(run.config.get("seed", 0) for run in results)
    steps = zip(*(run.generations for run in results), strict=False)
    return replace(
        first,
        world=_world(results),
        arms=[_arm(arms, shared) for arms in same],
        generations=[
            replace(step[0], arms={spec: _pooled_measures([g.arms[spec] for g in step], shared) for spec in kept})
            for step in steps
            if all(g.arms.keys() >= set(kept) for g in step)
        ],
        notes=[
            f"{len(results)} results were pooled (seeds {', '.join(map(str, seeds))}): an interval is the wider of the "
            "one by their spread (Student's t) and of their own, added in squares.",
            *first.notes,
        ],
        seconds=sum(run.seconds for run in results),
        peak_memory_bytes=max(run.peak_memory_bytes for run in results),
        command="\n".join(run.command for run in results),
        config=first.config | {"seeds": seeds},
        baselines={
            name: _pooled_measures([run.baselines[name] for run in results], shared)
            for name in _common([run.baselines for run in results])
        },
    )


def _world(results: list[Result]) -> dict[str, Any]:
    """The first world, with the number of made-up ones, and the means of their shares of the variance."""
    world, shares = dict(results[0].world), [run.world["shares"] for run in results if "shares" in run.world]
    if shares:
        world["worlds"] = len(results)
        world["shares"] = {name: float(np.mean([one[name] for one in shares])) for name in shares[0]}
    return world


def _require_alike(first: Result, other: Result, folder: Path) -> None:
    """Alike but for seeds, arms and fleets. Raises ResultError for the first difference."""
    expected, actual = (
        {"world": run.world.get("name"), "learned": run.world.get("learned")} | run.config for run in (first, other)
    )
    for name in (name for name in expected | actual if name not in ("seed", "arms", "fleets")):
        if expected.get(name) != actual.get(name):
            difference = f"{name} = {actual.get(name)}, where the first has {expected.get(name)}"
            raise ResultError(f"{folder}: {difference}: name results that differ by their seed alone")


def _arm(arms: list[Arm], shared: bool) -> Arm:
    first = arms[0]
    return replace(
        first,
        measures=_pooled_measures([arm.measures for arm in arms], shared),
        ratios=_pooled_measures([arm.ratios for arm in arms], shared, logarithms=True),
        costs={name: float(np.mean([arm.costs[name] for arm in arms])) for name in _common([a.costs for a in arms])},
        against={
            other: _pooled_measures([arm.against[other] for arm in arms], shared, logarithms=True)
            for other in _common([arm.against for arm in arms])
        },
        buckets={
            name: [_bucket(parts, shared) for parts in zip(*(arm.buckets[name] for arm in arms), strict=True)]
            for name in _common([arm.buckets for arm in arms])
            if len({len(arm.buckets[name]) for arm in arms}) == 1
        },
        by={},
    )


def _bucket(parts: Sequence[Bucket], shared: bool) -> Bucket:
    """Groups of about equally many events, by their rank: limits are means."""
    columns = zip(*((part.low, part.high, part.share) for part in parts), strict=True)
    low, high, share = (sum(values) / len(parts) for values in columns)
    return Bucket(low, high, share, within(estimate([part.pd for part in parts], shared), "pd"))


def _common(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    return [name for name in mappings[0] if all(name in mapping for mapping in mappings)]


def _pooled_measures(runs: list[Measures], shared: bool, logarithms: bool = False) -> Measures:
    return {
        name: within(estimate([measures[name] for measures in runs], shared, logarithms), "" if logarithms else name)
        for name in _common(runs)
    }


def estimate(values: Sequence[Interval], shared: bool = False, logarithms: bool = False) -> Interval:
    """Pooled over seeds, see above; `shared`: the same users were asked each time."""
    n = len(values)
    if n == 1 or (logarithms and min(value.low for value in values) <= 0):
        logarithms = False
    transform: Callable[[float], float] = math.log if logarithms else float
    inverse: Callable[[float], float] = math.exp if logarithms else float
    means = [transform(value.mean) for value in values]
    below = [transform(value.mean) - transform(value.low) for value in values]
    above = [transform(value.high) - transform(value.mean) for value in values]
    mean = sum(means) / n
    spread = student_quantile(0.975, n - 1) * float(np.std(means, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    down, up = (max(spread, (sum(part) if shared else math.hypot(*part)) / n) for part in (below, above))
    return Interval(inverse(mean), inverse(mean - down), inverse(mean + up))
