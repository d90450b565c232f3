"""Values as Grafana writes them, for the units that our dashboards use."""

from __future__ import annotations

import math

UNITS = ("none", "short", "percentunit", "s", "bytes")
"""Beside `suffix:TEXT`."""


def formatted(value: float, unit: str, decimals: int | None = None, step: float | None = None) -> str:
    """A value with its unit.

    `decimals` as many as three significant digits need unless said; or as many as the `step` between ticks needs.
    """
    factor, name = _scale(value, unit)
    value *= factor
    if step is not None:
        decimals = max(0, math.ceil(-math.log10(step * factor) - 1e-9))
    if decimals is not None:
        return f"{value:.{decimals}f}{name}"
    places = next((places for bound, places in ((100, 0), (10, 1), (1, 2), (0.1, 3)) if abs(value) >= bound), 4)
    text = f"{value:.{places}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + name


def _scale(value: float, unit: str) -> tuple[float, str]:
    """What to multiply with, and what to write behind. Raises ValueError for a unit that is not known."""
    if unit.startswith("suffix:"):
        return 1, f" {unit.removeprefix('suffix:')}"
    match unit:
        case "none":
            return 1, ""
        case "percentunit":
            return 100, "%"
        case "s" if value and abs(value) < 1:
            return 1000, " ms"
        case "s":
            return (1, " s") if abs(value) < 60 else (1 / 60, " min")
        case "bytes":
            return _thousands(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
        case "short":
            return _thousands(value, 1000, ("", "K", "Mil", "Bil", "Tri"))
    raise ValueError(f"unit = {unit!r}: one of {', '.join(UNITS)} or suffix:TEXT")


def _thousands(value: float, base: int, names: tuple[str, ...]) -> tuple[float, str]:
    power = 0 if abs(value) < base else min(int(math.log(abs(value), base) + 1e-9), len(names) - 1)
    return float(base) ** -power, f" {names[power]}" if names[power] else ""
