"""Estimates under dotted names (`pd`, `swaps.pair`, `refresh_lags.2.top1`) as intervals and as ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping

from simulator.measures.intervals import Estimate, Interval, ratio
from simulator.measures.registry import ACCURACY, DIFFERENCES, GAP, MEASURES, PERSONALISATION, QUALITIES

MOST = {name: each.most for held in (MEASURES, QUALITIES, ACCURACY) for name, each in held.items()}
MOST |= dict.fromkeys(("regret", "useful_swaps", "useless_swaps", PERSONALISATION), 1.0)
"""The largest value that a measure can have, whatever it is a cause of."""
RATIOS_TO_ANY = {name: name for name in ("pd", "log_loss", "auc", *QUALITIES, PERSONALISATION)}
RATIOS_TO_ANY["pair"] = "swaps.pair"
"""Short name of a ratio to every other arm -> the measure."""
RATIOS = RATIOS_TO_ANY | {name: f"swaps.{name}" for name in MEASURES}
RATIOS |= {f"{cause}_{name}": f"{cause}_swaps.{name}" for cause in ("refresh", "both") for name in MEASURES}
RATIOS["pd_ranking"] = "pd_ranking"
"""The same of ratios to the first arm."""


def intervals(estimates: Mapping[str, Estimate]) -> dict[str, Interval]:
    """With their intervals, within what each can be."""
    found = {}
    for name, estimate in estimates.items():
        found[name] = estimate.interval(*_range(name))
    return found


def _range(name: str) -> tuple[float, float]:
    """The least and the largest value that a measure can have."""
    signed = name == GAP or (name in DIFFERENCES and DIFFERENCES[name].signed)
    return -math.inf if signed else 0.0, MOST.get(name.rpartition(".")[2], math.inf)


def within(value: Interval, name: str) -> Interval:
    """With limits inside of what a measure can be; of a ratio (no name) not below 0."""
    least, most = _range(name)
    return Interval(value.mean, max(value.low, least), min(value.high, most))


def ratios(own: Mapping[str, Estimate], base: Mapping[str, Estimate], names: Mapping[str, str]) -> dict[str, Interval]:
    """Of an arm to another, under short names; without those of 0, and of AUC where a log holds engagements only."""
    found = {
        short: ratio(own[name], base[name])
        for short, name in names.items()
        if name in own and name in base and not math.isnan(base[name].mean)
    }
    return {name: value for name, value in found.items() if value}
