"""How the offered rate goes over time, as pure functions: a shape's *work* is what was offered by a time, in seconds at
the full rate, so that `rate * work` is a number of queries. Work never goes down, and its slope is the rate's factor.

    steady   1 all the time
    ramp     0 up to 1, linearly over the length, then 1
    spike    1, and SPIKE for the tenth of each length that ends in its middle
"""

from __future__ import annotations

from collections.abc import Callable

SPIKE = 3.0
"""Height of a spike, in units of the full rate."""
_FROM, _TO = 0.4, 0.5
"""Where within a length the spike is."""


def _steady(seconds: float, length: float) -> float:
    return seconds


def _ramp(seconds: float, length: float) -> float:
    within = min(seconds, length)
    return within * within / (2 * length) + (seconds - within)


def _spike(seconds: float, length: float) -> float:
    whole, rest = divmod(seconds, length)
    high = whole * (_TO - _FROM) * length + min(max(rest - _FROM * length, 0.0), (_TO - _FROM) * length)
    return seconds + (SPIKE - 1) * high


SHAPES: dict[str, Callable[[float, float], float]] = {"steady": _steady, "ramp": _ramp, "spike": _spike}


def work(shape: str, seconds: float, length: float) -> float:
    """What was offered by `seconds` (0 or more) after the start; `length` in seconds as the shape takes it."""
    return SHAPES[shape](seconds, length)


def due(shape: str, amount: float, length: float) -> float:
    """Seconds after the start at which the work reaches `amount` (0 or more): its inverse, by bisection."""
    low, high = 0.0, 1.0
    while work(shape, high, length) < amount:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if work(shape, middle, length) < amount else (low, middle)
    return high
