"""Arms with intervals of any width, for claims that must not gain by doubt."""

from __future__ import annotations

from simulator.measures.intervals import Interval
from simulator.result import Arm

Numbers = tuple[float, float, float]


def about(mean: float, half: float) -> Numbers:
    """Mean and limits, `half` to both sides."""
    return mean, mean - half, mean + half


def arm(spec: str, pd: Numbers = (1, 1, 1), loss: Numbers = (1, 1, 1), best: tuple[str, Numbers] | None = None,
        **more: Numbers) -> Arm:  # fmt: skip
    """An arm by its ratios to ReLU; `best`: another arm of its run, and the ratio of log loss to it."""
    ratios = {"pd": pd, "pair": pd, "log_loss": loss, "ranking_loss": loss} | more
    measures = {name.replace("_pair", ".pair"): Interval(*more[name]) for name in more if name.endswith("_pair")}
    m = float(spec.partition("m=")[2] or 1)
    against = {best[0]: {"log_loss": Interval(*best[1])}} if best else {}
    known = {name: Interval(*value) for name, value in ratios.items()}
    return Arm(spec, measures, known, {"lookups": 200 * m}, None, {}, against)


def arms(*made: Arm) -> dict[str, Arm]:
    """By their specs, ReLU before them."""
    return {one.spec: one for one in (arm("relu"), *made)}
