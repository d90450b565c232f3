"""Estimates under dotted names (`pd`, `swaps.pair`, `refresh_lags.2.top1`) as intervals and as ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping

from simulator.measures.intervals import Estimate, Interval, ratio
from simulator.measures.registry import ACCURACY, DIFFERENCES, GAP, MEASURES, PERSONALISATION, QUALITIES

MAXIMA = {name: measure.maximum for group in (MEASURES, QUALITIES, ACCURACY) for name, measure in group.items()}
MAXIMA |= dict.fromkeys(("regret", "useful_swaps", "useless_swaps", PERSONALISATION), 1.0)
"""The largest value of each measure, under any cause."""
RATIOS_TO_ANY = {name: name for name in ("pd", "log_loss", "auc", *QUALITIES, PERSONALISATION)}
RATIOS_TO_ANY["pair"] = "swaps.pair"
"""Short name of a ratio to every other arm -> the measure."""
RATIOS = RATIOS_TO_ANY | {name: f"swaps.{name}" for name in MEASURES}
RATIOS |= {f"{cause}_{name}": f"{cause}_swaps.{name}" for cause in ("refresh", "both") for name in MEASURES}
RATIOS["pd_ranking"] = "pd_ranking"
"""The same of ratios to the first arm."""


def intervals(estimates: Mapping[str, Estimate]) -> dict[str, Interval]:
    """Their intervals, within the range of each measure."""
    by_name = {}
    for name, estimate in estimates.items():
        by_name[name] = estimate.interval(*_range(name))
    return by_name


def _range(name: str) -> tuple[float, float]:
    """The smallest and the largest value of a measure."""
    signed = name == GAP or (name in DIFFERENCES and DIFFERENCES[name].signed)
    return -math.inf if signed else 0.0, MAXIMA.get(name.rpartition(".")[2], math.inf)


def within(value: Interval, name: str) -> Interval:
    """With limits within the range of a measure; of a ratio (no name) not below 0."""
    minimum, maximum = _range(name)
    return Interval(value.mean, max(value.low, minimum), min(value.high, maximum))


def ratios(
    estimates: Mapping[str, Estimate], base: Mapping[str, Estimate], names: Mapping[str, str]
) -> dict[str, Interval]:
    """Of an arm to another, under short names; without those of 0, and of AUC where a log holds engagements only."""
    defined = {
        short: ratio(estimates[name], base[name])
        for short, name in names.items()
        if name in estimates and name in base and not math.isnan(base[name].mean)
    }
    return {name: value for name, value in defined.items() if value}
