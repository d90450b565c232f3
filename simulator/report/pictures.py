"""Drawings of a run as inline SVG.

Every panel is drawn alone, about as wide as a phone, so that the page can set panels side by side or one below
another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from simulator.measures.intervals import Interval
from simulator.report.canvas import INK, MARKS, PAPER, SETTINGS, canvas, colour, line, look, span, svg, ticks
from simulator.report.result import Arm, Curve, Measures, Result
from simulator.report.words import label


@dataclass(frozen=True)
class Series:
    """One measure of a dot panel, with the mark that stands for it."""

    measure: str
    mark: str = "o"
    filled: bool = True


def dots(name: str, arms: list[Arm], series: list[Series], from_zero: bool = True) -> str:
    """One row per arm, one dot with its interval per series; SVG."""
    with matplotlib.rc_context(SETTINGS):
        row = 0.23 + 0.11 * len(series)
        figure, axes = canvas(0.55 + row * len(arms))
        shown = []
        for index, arm in enumerate(arms):
            for place, one in enumerate(series):
                value = arm.measures.get(one.measure)
                if value is not None:
                    shown.append(value)
                    y = index + (place - (len(series) - 1) / 2) * 0.24
                    _dot(axes, value, y, index, one)
        axes.set_yticks([])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        _name_rows(axes, arms)
        axes.set_xlim(*span(shown, from_zero))
        axes.xaxis.set_major_locator(ticks(4))
        return svg(figure, name)


def over_generations(name: str, result: Result, measure: str, bands: bool, from_zero: bool = True) -> str:
    """One line per arm over the generations, with its interval as a band if wanted; SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(2.4)
        shown = []
        for index, arm in enumerate(result.arms):
            points = [(g.number, g.arms[arm.spec][measure]) for g in result.generations if _has(g.arms, arm, measure)]
            if not points:
                continue
            x, values = [number for number, _ in points], [value for _, value in points]
            shown += values if bands else [Interval(v.mean, v.mean, v.mean) for v in values]
            style = line(index) | ({"marker": MARKS[look(index)], "markersize": 3.5} if len(points) <= 12 else {})
            axes.plot(x, [value.mean for value in values], clip_on=False, **style)
            if bands:
                low, high = [value.low for value in values], [value.high for value in values]
                axes.fill_between(x, low, high, color=colour(index), alpha=0.18, linewidth=0)
        axes.set_ylim(*span(shown, from_zero))
        axes.set_xlabel("generation")
        axes.xaxis.set_major_locator(ticks(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(ticks(5))
        return svg(figure, name)


def plane(name: str, arms: list[Arm], across: str, up: str, names: tuple[str, str]) -> str:
    """Each arm as a point with its intervals both ways, an arrow to the better corner; SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(3.2)
        both = [(i, arm.measures.get(across), arm.measures.get(up)) for i, arm in enumerate(arms)]
        placed = [(i, x, y) for i, x, y in both if x is not None and y is not None]
        for index, x, y in placed:
            hue = colour(index)
            axes.hlines(y.mean, x.low, x.high, color=hue, linewidth=1.1)
            axes.vlines(x.mean, y.low, y.high, color=hue, linewidth=1.1)
            axes.plot(x.mean, y.mean, color=hue, marker=MARKS[look(index)], markersize=6.5, clip_on=False)
        axes.set_xlim(*span([x for _, x, _ in placed], from_zero=False))
        bottom, top = span([y for _, _, y in placed], from_zero=True)
        axes.set_ylim(bottom, top * 1.2)  # the strip above the points is for the arrow
        axes.annotate(
            "better",
            (0.03, 0.86),
            (0.13, 0.97),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "->", "color": INK},
        )
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.xaxis.set_major_locator(ticks(4))
        axes.yaxis.set_major_locator(ticks(5))
        return svg(figure, name)


def curves(name: str, arms: list[Arm], gradient: bool) -> str:
    """The activations, or their gradients, over the input; SVG."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = canvas(2.6)
        for index, arm in enumerate(arms):
            curve: Curve | None = arm.activation
            if curve is not None:
                axes.plot(curve.x, curve.gradient if gradient else curve.y, **line(index))
        axes.set_xlabel("input x")
        axes.xaxis.set_major_locator(ticks(6))
        axes.yaxis.set_major_locator(ticks(5))
        return svg(figure, name)


def _dot(axes: Axes, value: Interval, y: float, index: int, one: Series) -> None:
    hue = colour(index)
    axes.hlines(y, value.low, value.high, color=hue, linewidth=1.3)
    face = hue if one.filled else PAPER
    axes.plot(value.mean, y, marker=one.mark, markersize=5, color=hue, markerfacecolor=face, clip_on=False)


def _has(arms: dict[str, Measures], arm: Arm, measure: str) -> bool:
    return measure in arms.get(arm.spec, {})


def _name_rows(axes: Axes, arms: list[Arm]) -> None:
    """Each arm's name left of its row. Not as tick labels: their second line would not end where the first one ends."""
    for index, arm in enumerate(arms):
        lines = _lines(label(arm.spec))
        for place, text in enumerate(lines):
            down = (place - (len(lines) - 1) / 2) * 10  # points
            where: Any = ("axes fraction", "data")
            offset: Any = {"xytext": (-8, -down), "textcoords": "offset points", "ha": "right", "va": "center"}
            axes.annotate(text, (0, index), xycoords=where, annotation_clip=False, **offset)


def _lines(name: str, longest: int = 16) -> list[str]:
    """A name in at most two lines, cut before its bracket if it has one; what is longer ends in an ellipsis."""
    if len(name) <= longest:
        return [name]
    bracket = name.find(" (")
    lines = [name[:bracket], name[bracket + 1 :]] if 0 < bracket <= longest else [name[:longest], name[longest:]]
    return [line if len(line) <= longest else line[: longest - 1] + "…" for line in lines]
