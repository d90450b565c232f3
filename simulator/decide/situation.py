"""How a recommender is served, and the share of results that a user sees change there.

**What a user sees** who asks again after a gap g, with a refresh every T that takes a roll-out R to reach all replicas,
and D independently trained models behind them. Between the two answers lie floor(g / T) refreshes, or one more with the
probability left over, g / T - floor(g / T). During a roll-out two generations serve side by side: under random routing,
answers less than R apart are of two generations with a further probability (R - g)^3 / (3 R^2 T), where replicas change
over evenly and g + R <= T: at most R / (3 T), for users who come back at once. Random routing meets another model with
probability 1 - 1/D, sticky routing never. So the expected share is a sum of the shares that a run measured by cause:
another duplicate at the same generation, the same one L refreshes later, another one L refreshes later. The limits of
its interval are the sums of theirs: never too narrow, whatever the causes share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from simulator.config import require
from simulator.decide.evidence import independent_ratio, ratio_to
from simulator.errors import SettingError
from simulator.result import Arm
from simulator.types import Interval, exact

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(setting: str, text: str) -> float:
    """`90s`, `2m`, `1.5h`, `1d` in seconds. Raises SettingError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match:
        raise SettingError(setting, text, "a number and s, m, h or d, such as 10m")
    return float(match[1]) * UNITS[match[2]]


@dataclass(frozen=True)
class Situation:
    """How the recommender is served, and when its users come back."""

    models: int = 1
    """Independently trained models that serve; 1: all replicas hold copies of one."""
    routing: Literal["random", "sticky"] = "random"
    """Whether a user may meet another replica each time, or keeps one."""
    refresh_every: str = "1h"
    """Time between two refreshes, such as 30m or 1d."""
    rollout: str = "2m"
    """How long two generations serve side by side at a refresh; at most the time between two."""
    asks_again: str = "10m"
    """How long after the first answer a user asks again."""

    def __post_init__(self) -> None:
        require(self.models >= 1, "models", self.models, "at least 1")
        every, rollout, _ = self.times
        require(every > 0, "refresh-every", self.refresh_every, "more than 0")
        require(rollout <= every, "rollout", self.rollout, f"at most --refresh-every, {self.refresh_every}")

    @property
    def times(self) -> tuple[float, float, float]:
        """Seconds between refreshes, of a roll-out, and until a user asks again."""
        texts = ("refresh-every", self.refresh_every), ("rollout", self.rollout), ("asks-again", self.asks_again)
        every, rollout, gap = (seconds(*one) for one in texts)
        return every, rollout, gap

    def refreshes(self) -> dict[int, float]:
        """Number of refreshes between two answers -> its probability."""
        every, rollout, gap = self.times
        whole, rest = divmod(gap / every, 1)
        if whole == 0 and self.routing == "random" and rollout > gap:
            rest += (rollout - gap) ** 3 / (3 * rollout**2 * every)
        return {int(whole): 1 - rest, int(whole) + 1: rest}

    def weights(self) -> dict[tuple[str, int], float]:
        """(cause, refreshes between) -> its probability, where it is not 0."""
        same_model = 1.0 if self.routing == "sticky" else 1 / self.models
        by_cause: dict[tuple[str, int], float] = {}
        for lag, chance in self.refreshes().items():
            if lag:
                by_cause["refresh_swaps", lag] = chance * same_model
            by_cause["both_swaps" if lag else "swaps", lag] = chance * (1 - same_model)
        return {cause: weight for cause, weight in by_cause.items() if weight > 0}

    def __str__(self) -> str:
        one = "all replicas hold copies of one model"
        models = one if self.models == 1 else f"{self.models} independent models serve"
        return (
            f"{models}, {self.routing} routing, a refresh every {self.refresh_every} rolled out in {self.rollout}, "
            f"users ask again after {self.asks_again}"
        )


@dataclass(frozen=True)
class ExpectedChange:
    """The expected share of results that change when a user asks again."""

    total: Interval
    parts: dict[str, Interval]
    """By cause."""
    notes: list[str]
    """What was interpolated, or taken from fewer refreshes than lie between."""


def what_a_user_sees(arm: Arm, situation: Situation, measure: str, *, older: int = 1) -> ExpectedChange | None:
    """Expected changes of an arm; `older`: a refresh counts as so many measured ones. None where a cause is missing."""
    parts: dict[str, Interval] = {}
    notes: list[str] = []
    for (cause, lag), weight in situation.weights().items():
        measured = at_lag(arm, cause, lag * older, measure, notes)
        if measured is None:
            return None
        parts[cause] = _add_weighted(parts.get(cause, exact(0)), measured, weight)
    total = exact(0)
    for part in parts.values():
        total = _add_weighted(total, part, 1)
    return ExpectedChange(total, parts, list(dict.fromkeys(notes)))


def at_lag(arm: Arm, cause: str, lag: int, measure: str, notes: list[str]) -> Interval | None:
    """A swap measure `lag` refreshes later, interpolated linearly between the measured lags."""
    if lag == 0:
        return arm.measures.get(f"{cause}.{measure}")
    by_lag = {1: arm.measures.get(f"{cause}.{measure}")}
    by_lag |= {n: arm.measures.get(f"{cause.replace('swaps', 'lags')}.{n}.{measure}") for n in (2, 4, 8)}
    points = {n: value for n, value in by_lag.items() if value is not None}
    if not points:
        return _independent_causes(arm, lag, measure, notes) if cause == "both_swaps" else None
    if lag in points:
        return points[lag]
    below, above = max((n for n in points if n < lag), default=0), min((n for n in points if n > lag), default=0)
    if not below or not above:
        notes.append(f"{lag} refreshes lie between, {max(points)} at most were measured: the truth is likely more")
        return points[below or above]
    notes.append(f"{lag} refreshes lie between: interpolated between {below} and {above}")
    share = (lag - below) / (above - below)
    return _add_weighted(_add_weighted(exact(0), points[below], 1 - share), points[above], share)


def _independent_causes(arm: Arm, lag: int, measure: str, notes: list[str]) -> Interval | None:
    """Another duplicate after refreshes, from the two causes apart, of a live system: these measures are metrics, so
    that it lies between the larger and the sum of the two."""
    by_duplicate = at_lag(arm, "swaps", 0, measure, notes)
    by_refresh = at_lag(arm, "refresh_swaps", lag, measure, notes)
    if by_duplicate is None or by_refresh is None:
        return None
    notes.append("another model and a refresh together were not measured: taken as independent causes")
    mean = 1 - (1 - by_duplicate.mean) * (1 - by_refresh.mean)
    return Interval(mean, max(by_duplicate.low, by_refresh.low), min(by_duplicate.high + by_refresh.high, 1.0))


def _add_weighted(first: Interval, second: Interval, weight: float) -> Interval:
    pairs = (first.mean, second.mean), (first.low, second.low), (first.high, second.high)
    return Interval(*(one + weight * other for one, other in pairs))


def seen_ratio(arm: Arm, base: Arm, situation: Situation, measure: str) -> Interval | None:
    """Ratio of two arms' expected changes: the ratios by cause, weighted by their parts of the base's."""
    of_arm, of_base = (what_a_user_sees(candidate, situation, measure) for candidate in (arm, base))
    if of_arm is None or of_base is None or of_base.total.mean == 0:
        return None
    total, paired = exact(0), all(lag <= 1 for _, lag in situation.weights())
    for cause, part in of_base.parts.items():
        ratio = ratio_to(arm, base, f"{cause}.{measure}") if paired else independent_ratio(of_arm.parts[cause], part)
        if ratio is None:
            return independent_ratio(of_arm.total, of_base.total)
        total = _add_weighted(total, ratio, part.mean / of_base.total.mean)
    return total
