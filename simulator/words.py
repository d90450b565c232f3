"""Names and numbers as people write them: `SmeLU (beta = 1)`, `0.147 (0.131 to 0.163)`, `1.2 GB`."""

from __future__ import annotations

import math

from simulator.measures.intervals import Interval

NAMES = {
    "linear": "Identity",
    "relu": "ReLU",
    "smelu": "SmeLU",
    "gsmelu": "gSmeLU",
    "gelu": "GELU",
    "swish": "Swish",
    "softplus": "Softplus",
}
CURES = {
    "ensemble": "ensemble",
    "codistill": "co-distilled",
    "antidistill": "anti-distilled",
    "anchor": "anchored",
    "average": "weights averaged",
    "fresh": "trained afresh",
}
"""What stands before an activation in an arm's spec, and how it is written behind it."""
DASH = "–"
SUMMARY = (
    ("pd", "PD", None),
    ("swaps.pair", "pair swaps", None),
    ("swaps.slot", "slot swaps", None),
    ("swaps.top1", "top-1 swaps", None),
    ("refresh_swaps.pair", "pair swaps at a refresh", None),
    ("log_loss", "log loss", 4),
    ("auc", "AUC", 4),
    ("ranking_loss", "ranking loss", 4),
)
"""What a run is summed up by: measure, heading, places after the point (None: three significant digits)."""


def label(spec: str) -> str:
    """`smelu:beta=1#2` reads SmeLU (beta = 1) #2, `ensemble:relu:m=3` ReLU, ensemble (m = 3), and
    `torch:my_pkg.towers:make,width=64,relu=smelu` towers, SmeLU (width = 64); others are left alone."""
    design, mark, copy = spec.partition("#")
    first, _, rest = design.partition(":")
    cure, design = (CURES[first], rest) if first in CURES else ("", design)
    name, _, settings = design.partition(":")
    called = [NAMES[name]] if name in NAMES else []
    if name == "torch":
        settings, _, relu = settings.partition(",relu=")
        factory, _, settings = settings.partition(",")
        module, _, function = factory.rpartition(":")
        called = [f"{module.rpartition('.')[2]}.{function}".removesuffix(".make").lstrip(".")]
        called += [label(relu)] if relu else []
    if not called:
        return spec
    called += [cure] if cure else []
    inside = ", ".join(part.replace("=", " = ") for part in settings.replace(":", ",").split(",") if part)
    return ", ".join(called) + (f" ({inside})" if inside else "") + (f" #{copy}" if mark else "")


def decimals(value: float, least: int = 0) -> int:
    """Places after the point that show three significant digits, at least `least`."""
    if value == 0 or not math.isfinite(value):
        return least
    return max(least, 2 - math.floor(math.log10(abs(value))))


def number(value: float, places: int | None = None) -> str:
    """Three significant digits or the given places; exactly 0 is 0; below 0.0001 as a power of ten."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4 and (places is None or places > 4):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    found = f"{value:,.{decimals(value) if places is None else places}f}"
    return found if found.strip("-0.") else found.removeprefix("-")  # no minus before what rounds to 0


def interval(value: Interval | None, places: int | None = None) -> tuple[str, str]:
    """The mean, and its interval as `(low to high)` or nothing where there is none; equal places throughout."""
    if value is None:
        return DASH, ""
    if places is None:  # those of the mean, unless it is nothing beside its interval
        places = decimals(max(abs(value.mean), (value.high - value.low) / 20))
    bounds = f"({number(value.low, places)} to {number(value.high, places)})" if value.known else ""
    return number(value.mean, places), bounds


def written(value: Interval | None, places: int | None = None) -> str:
    """One line: `0.147 (0.131 to 0.163)`."""
    return " ".join(part for part in interval(value, places) if part)


def percent(share: float) -> str:
    """0.189 reads 18.9 % (never broken over two lines); below 1 % two significant digits."""
    value = 100 * share
    return f"{number(value, 1 if abs(value) >= 1 else max(decimals(value) - 1, 0))}\N{NO-BREAK SPACE}%"


def count(value: float) -> str:
    """Whole numbers with thousands separators."""
    return f"{value:,.0f}"


def plural(value: int, noun: str) -> str:
    """1 fleet, 3 fleets."""
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def size(count: float) -> str:
    """Bytes in MB or GB (powers of ten)."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Seconds below two minutes, else minutes and seconds."""
    if seconds < 120:
        return f"{number(seconds, 1 if seconds >= 1 else None)} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
