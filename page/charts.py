"""The page's charts, as options of ECharts. Colours are roles of the style sheet: dark and light need no redraw.

Drawn as SVG, without animation: a viewer of hours wants the numbers, not the movement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.measures.intervals import Interval, exact
from simulator.report.kit import hue, look

SYMBOLS = ("circle", "rect", "triangle")
DASHES = ("solid", "dashed", "dotted")
TEXT = {"color": "var(--ink)", "fontSize": 12, "lineHeight": 15}
SOFT = {**TEXT, "color": "var(--soft)"}
TOOLTIP = {
    "backgroundColor": "var(--paper)",
    "borderColor": "var(--grid)",
    "textStyle": TEXT,
    "confine": True,
    ":valueFormatter": "value => typeof value == 'number' ? String(+value.toPrecision(3)) : value",
}


@dataclass(frozen=True)
class Dot:
    """A mean with its interval."""

    words: str
    """Label of its row, where every dot has one."""
    arm: int
    """Place of its arm, which gives colour and mark."""
    x: Interval
    y: Interval | None = None
    chosen: bool = True
    """Whether it stands out."""


@dataclass(frozen=True)
class LineSeries:
    """Points that are joined."""

    words: str
    arm: int
    points: Sequence[tuple[float, float]]
    dash: int = 0
    """Number in DASHES."""


def colour(arm: int) -> str:
    """Of an arm, by its place."""
    return f"var(--arm-{hue(arm)})"


def axis(name: str, **more: Any) -> dict[str, Any]:
    """A direction with a name and unit."""
    return {
        "type": "value",
        "name": name,
        "nameLocation": "middle",
        "nameTextStyle": TEXT,
        "axisLabel": SOFT,
        "axisLine": {"lineStyle": {"color": "var(--grid)"}},
        "splitLine": {"lineStyle": {"color": "var(--grid)"}},
        **more,
    }


def rows(dots: Sequence[Dot], across: str) -> dict[str, Any]:
    """Dots below each other on one scale from 0, a row each, with intervals."""
    names, wrapped = [dot.words for dot in dots], {**TEXT, "width": 150, "overflow": "truncate"}
    series = [
        {
            "type": "scatter",
            "data": [{"value": [short(dot.x.mean), place], "name": dot.words}],
            "itemStyle": {"color": colour(dot.arm)},
            "symbol": SYMBOLS[look(dot.arm)],
            "symbolSize": 11,
            "emphasis": {"disabled": True},
            "markLine": _bar([(dot.x, True, place)], dot.arm),
        }
        for place, dot in enumerate(dots)
    ]
    high = limits([dot.x for dot in dots])[1]
    return {
        "animation": False,
        "grid": {"left": 8, "right": 24, "top": 8, "bottom": 40, "containLabel": True},
        "tooltip": {**TOOLTIP, "trigger": "item"},
        "xAxis": axis(across, min=0, max=high, nameGap=28),
        "yAxis": axis("", type="category", data=names, inverse=True, axisLabel=wrapped),
        "series": series,
    }


def over_time(lines: Sequence[LineSeries], up: str, marks: Sequence[tuple[float, str]] = ()) -> dict[str, Any]:
    """Lines over unix time, on one scale from 0; `marks`: moments, and what happened."""
    series: list[dict[str, Any]] = [
        {
            "type": "line",
            "name": line.words,
            "data": [[round(1000 * at), short(value)] for at, value in line.points],
            "showSymbol": len(line.points) == 1,
            "color": colour(line.arm),
            "lineStyle": {"width": 2, "type": DASHES[line.dash]},
            "emphasis": {"disabled": True},
        }
        for line in lines
    ]
    if series and marks:
        series[0]["markLine"] = {
            "symbol": "none",
            "silent": True,
            "animation": False,
            "lineStyle": {"color": "var(--soft)", "type": "dotted", "width": 1},
            "label": {**SOFT, "fontSize": 10, "formatter": "{b}"},
            "data": [{"xAxis": round(1000 * at), "name": words} for at, words in marks],
        }
    above = 40 if marks else 24  # pixels: the axis has its name over the words of the marks
    return {
        "animation": False,
        "grid": {"left": 8, "right": 24, "top": above, "bottom": 8, "containLabel": True},
        "legend": {"show": False},
        "tooltip": {**TOOLTIP, "trigger": "axis"},
        "xAxis": axis("", type="time", splitLine={"show": False}, axisLabel={**SOFT, "hideOverlap": True}),
        "yAxis": axis(up, min=0, nameLocation="end", nameTextStyle={**TEXT, "align": "left"}, nameGap=above - 14),
        "series": series,
    }


def over_gap(lines: Sequence[LineSeries], across: str, up: str, current: float) -> dict[str, Any]:
    """Lines over a positive number on a logarithmic scale; `now` is marked on it."""
    options = over_time(lines, up, [(current / 1000, "")])
    for line, series in zip(lines, options["series"], strict=True):
        series["data"] = [[short(x), short(y)] for x, y in line.points]
    options["grid"] |= {"bottom": 40, "right": 40}
    options["xAxis"] = axis(across, type="log", nameGap=28)
    return options


def plane(dots: Sequence[Dot], across: str, up: str) -> dict[str, Any]:
    """Each setting as a point with its intervals both ways; those chosen stand out."""
    series = [
        {
            "type": "scatter",
            "name": dot.words,
            "data": [[short(dot.x.mean), short(dot.y.mean)]],
            "itemStyle": {"color": colour(dot.arm), "opacity": 1 if dot.chosen else 0.35},
            "symbol": SYMBOLS[look(dot.arm)],
            "symbolSize": 13 if dot.chosen else 8,
            "z": 3 if dot.chosen else 2,
            "emphasis": {"disabled": True},
            "markLine": _bar([(dot.x, True, short(dot.y.mean)), (dot.y, False, short(dot.x.mean))], dot.arm)
            if dot.chosen
            else {"data": []},
        }
        for dot in dots
        if dot.y is not None
    ]
    drawn = [dot for dot in dots if dot.y is not None]
    left, right = limits([dot.x if dot.chosen else exact(dot.x.mean) for dot in drawn])
    _, top = limits([dot.y if dot.chosen else exact(dot.y.mean) for dot in drawn if dot.y is not None])
    return {
        "animation": False,
        "grid": {"left": 32, "right": 24, "top": 16, "bottom": 40, "containLabel": True},
        "tooltip": {**TOOLTIP, "trigger": "item"},
        "xAxis": axis(across, min=left, max=right, nameGap=28),
        "yAxis": axis(up, min=0, max=top, nameGap=44),
        "series": series,
    }


def _bar(intervals: Sequence[tuple[Interval, bool, float]], arm: int) -> dict[str, Any]:
    """Lines from limit to limit, across or up, at a place of the other direction; none where there is no interval."""
    lines = []
    for interval, is_across, place in intervals:
        if interval.known:
            ends = [short(interval.low), short(interval.high)]
            lines.append([{"coord": [end, place] if is_across else [place, end]} for end in ends])
    style = {"color": colour(arm), "width": 2, "type": "solid"}
    return {
        "symbol": "none",
        "silent": True,
        "animation": False,
        "label": {"show": False},
        "lineStyle": style,
        "data": lines,
    }


def limits(intervals: Sequence[Interval]) -> tuple[float, float]:
    """Round numbers that all intervals lie between: what sticks out of its axis, ECharts does not draw at all."""
    low = min((interval.low if interval.known else interval.mean for interval in intervals), default=0.0)
    high = max((interval.high if interval.known else interval.mean for interval in intervals), default=1.0)
    spread = max((high - low) or abs(high) or 1.0, 1e-12)  # less than that nobody sees, and could not be divided by
    step = 10 ** math.floor(math.log10(spread)) / 5
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return short(start * step), short(max(end, start + 1) * step)


def short(value: float) -> float:
    """Rounded to 4 significant digits."""
    return float(f"{value:.4g}")
