"""Parts of the tabs: text as HTML, charts with their sentence, choices, numbers that can be typed; options of charts.

Charts are drawn by ECharts as SVG, without animation: a viewer of hours wants the numbers, not the movement. Colours
are roles of the style sheet: dark and light need no redraw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup
from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from simulator.measures.words import interval
from simulator.report.kit import environment, hue, look
from simulator.types import Interval, exact

OnChange = Callable[[str], Any]
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


MARK_LINE: dict[str, Any] = {"symbol": "none", "silent": True, "animation": False}


@cache
def kit() -> Any:
    """The report's macros: `table(heads, rows)`, `beside(slates, joined)`. What is put in is escaped."""
    return environment().get_template("kit.html").module


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> Markup:
    """Rows whose first cell is their name."""
    return Markup(kit().table(heads, rows, kind))


def value(estimate: Interval | None, places: int | None = None) -> Markup:
    """A mean with its interval below."""
    mean, bounds = interval(estimate, places)
    return Markup("<b>{}</b> <small>{}</small>").format(mean, bounds) if bounds else Markup("<b>{}</b>").format(mean)


def joined(form: str, entries: Iterable[Sequence[Any]]) -> Markup:
    """Each entry put into a piece of HTML, one after the other."""
    return Markup("").join(Markup(form).format(*entry) for entry in entries)


def notes(lines: Iterable[object], kind: str = "note") -> Markup:
    """A small paragraph for each line; of kind `refused`: what went wrong."""
    return joined(f"<p class={kind}>{{}}</p>", ([line] for line in lines))


def legend(words: Sequence[str]) -> Markup:
    """Colours of arms, and which arm has which, in their order."""
    if len(words) < 2:
        return Markup("")
    entry = '<li><span class="swatch" style="background:var(--arm-{})"></span> {}</li>'
    entries = joined(entry, ((hue(place), name) for place, name in enumerate(words)))
    return Markup("<ul class=legend>{}</ul>").format(entries)


class Html:
    """A place for text that changes; `show` sends nothing where it is as it was."""

    def __init__(self, classes: str = "", role: str = "") -> None:
        self._element = ui.html("", sanitize=False).classes(classes)  # made of escaped parts alone
        if role:
            self._element.props(f"role={role}")
        self._shown = Markup("")

    def show(self, content: Markup) -> None:
        """Replace the content."""
        if content != self._shown:
            self._shown = content
            self._element.set_content(str(content))


class Chart:
    """A chart below its title, with a sentence that explains it; not there while it has nothing to show."""

    def __init__(self, height: str = "18rem") -> None:
        with ui.element("figure").classes("chart") as self._container:
            with ui.element("figcaption"):
                self._title, self._about = Html(), Html("note")
            self._chart = ui.echart({"series": []}, renderer="svg").style(f"height:{height};width:100%")
            self._chart.props("role=img")
        self._shown: dict[str, Any] = {}
        self._container.set_visibility(False)

    def show(self, title: str, about: str, options: dict[str, Any], rows: int = 0) -> None:
        """Draw it anew where something has changed; `rows`: as many rem high as that many rows need."""
        self._container.set_visibility(bool(options["series"]))
        self._title.show(Markup("<h3>{}</h3>").format(title))
        self._about.show(Markup("<p>{}</p>").format(about))
        if options != self._shown:
            self._shown = options
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.props["aria-label"] = title
            if rows:
                self._chart.style(f"height:{4 + 2.6 * rows}rem")
            self._chart.update()


class Select:
    """A drop-down list of the browser's own, which keyboards and phones know."""

    def __init__(self, label: str, options: Mapping[str, str], on_change: OnChange, chosen: str = "") -> None:
        """`options`: value -> words."""
        self._on_change = on_change
        self.value = chosen or next(iter(options), "")
        self._options: dict[str, str] = {}
        with ui.element("label").classes("field") as self._container:
            ui.label(label)
            self._select = ui.element("select")
            self._select.props["aria-label"] = label
            self._select.on("change", self._chosen, js_handler="e => emit(e.target.value)")
        self.offer(options)

    def visible(self, is_visible: bool) -> None:
        """Whether it can be chosen at all."""
        self._container.set_visibility(is_visible)

    def offer(self, options: Mapping[str, str], chosen: str = "") -> None:
        """Replace the options; the value stays where it is among them, else it is `chosen`, or the first."""
        if dict(options) == self._options:
            return
        self._options = dict(options)
        if self.value not in options:
            self.value = chosen if chosen in options else next(iter(options), "")
        self._select.clear()
        with self._select:
            for option_value, words in options.items():
                option = TextElement(tag="option", text=words)
                option.props["value"] = option_value
        self._select.props["value"] = self.value

    def _chosen(self, event: GenericEventArguments) -> Any:
        if event.args not in self._options:  # no browser sends that by itself
            return None
        self.value = self._select.props["value"] = str(event.args)
        return self._on_change(self.value)


class TextInput:
    """Something to type: a whole number within limits, or text where there are none."""

    def __init__(
        self, label: str, content: str, on_change: OnChange, limits: tuple[int, int] | None = None, **props: str
    ) -> None:
        """`props` of the HTML element."""
        self._on_change = on_change
        self.value = content
        with ui.element("label").classes("field"):
            ui.label(label)
            self.element = ui.element("input")
        # not `value`: that would be put back at every change of the page, also while somebody types
        self.element.props.update({"defaultValue": content, "aria-label": label, **props})
        if limits:
            self.element.props.update({"type": "number", "min": limits[0], "max": limits[1], "step": 1})
        self.element.on("change", self._typed, js_handler="e => emit(e.target.value)")

    def number(self) -> int:
        """The whole number that was typed, 0 for anything else."""
        return int(self.value) if self.value.isdecimal() and len(self.value) < 10 else 0

    def set(self, content: str) -> None:
        """Replace the content, as long as nothing was typed."""
        self.value = self.element.props["defaultValue"] = content

    def _typed(self, event: GenericEventArguments) -> Any:
        self.value = str(event.args)
        return self._on_change(self.value)


def button(words: str, on_click: Callable[[], Any], about: str = "") -> Element:
    """A button of the browser's own; `about` is its tooltip."""
    element = TextElement(tag="button", text=words).classes("button")
    element.props["type"] = "button"
    if about:
        element.props["title"] = about
    element.on("click", lambda _: on_click(), args=[])
    return element


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


def drawing(
    series: list[Any], x: dict[str, Any], y: dict[str, Any], trigger: str = "item", **grid: int
) -> dict[str, Any]:
    """Series over two axes; `grid`: pixels on each side of them."""
    sides = {"left": 8, "right": 24, "top": 8, "bottom": 40, "containLabel": True} | grid
    tooltip = {**TOOLTIP, "trigger": trigger}
    return {"animation": False, "grid": sides, "tooltip": tooltip, "xAxis": x, "yAxis": y, "series": series}


def rows(dots: Sequence[Dot], across: str) -> dict[str, Any]:
    """Dots below each other on one scale from 0, a row each, with intervals."""
    names, wrapped = [dot.words for dot in dots], {**TEXT, "width": 150, "overflow": "truncate"}
    series = [
        _scatter(dot, {"value": [short(dot.x.mean), place], "name": dot.words}, 11, [(dot.x, True, place)])
        for place, dot in enumerate(dots)
    ]
    x = axis(across, min=0, max=limits([dot.x for dot in dots])[1], nameGap=28)
    return drawing(series, x, axis("", type="category", data=names, inverse=True, axisLabel=wrapped))


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
        series[0]["markLine"] = MARK_LINE | {
            "lineStyle": {"color": "var(--soft)", "type": "dotted", "width": 1},
            "label": {**SOFT, "fontSize": 10, "formatter": "{b}"},
            "data": [{"xAxis": round(1000 * at), "name": words} for at, words in marks],
        }
    above = 40 if marks else 24  # pixels: the axis has its name over the words of the marks
    x = axis("", type="time", splitLine={"show": False}, axisLabel={**SOFT, "hideOverlap": True})
    y = axis(up, min=0, nameLocation="end", nameTextStyle={**TEXT, "align": "left"}, nameGap=above - 14)
    return drawing(series, x, y, "axis", top=above, bottom=8) | {"legend": {"show": False}}


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
    drawn = [(dot, dot.x, dot.y) for dot in dots if dot.y is not None]
    series = []
    for dot, x, y in drawn:
        place = [short(x.mean), short(y.mean)]
        bars = [(x, True, place[1]), (y, False, place[0])] if dot.chosen else []
        more = {"name": dot.words, "z": 3 if dot.chosen else 2}
        series.append(_scatter(dot, place, 13 if dot.chosen else 8, bars) | more)
    left, right = limits([x if dot.chosen else exact(x.mean) for dot, x, _ in drawn])
    _, top = limits([y if dot.chosen else exact(y.mean) for dot, _, y in drawn])
    axes = axis(across, min=left, max=right, nameGap=28), axis(up, min=0, max=top, nameGap=44)
    return drawing(series, *axes, left=32, top=16)


def _scatter(dot: Dot, data: Any, size: int, bars: Sequence[tuple[Interval, bool, float]]) -> dict[str, Any]:
    """A dot with `bars`: intervals, whether each goes across or up, and its place in the other direction."""
    lines = []
    for estimate, is_across, place in bars:
        if estimate.known:
            ends = [short(estimate.low), short(estimate.high)]
            lines.append([{"coord": [end, place] if is_across else [place, end]} for end in ends])
    style = {"color": colour(dot.arm), "width": 2, "type": "solid"}
    return {
        "type": "scatter",
        "data": [data],
        "itemStyle": {"color": colour(dot.arm), "opacity": 1 if dot.chosen else 0.35},
        "symbol": SYMBOLS[look(dot.arm)],
        "symbolSize": size,
        "emphasis": {"disabled": True},
        "markLine": {**MARK_LINE, "label": {"show": False}, "lineStyle": style, "data": lines},
    }


def limits(intervals: Sequence[Interval]) -> tuple[float, float]:
    """Round numbers that all intervals lie between: what sticks out of its axis, ECharts does not draw at all."""
    low = min((one.low if one.known else one.mean for one in intervals), default=0.0)
    high = max((one.high if one.known else one.mean for one in intervals), default=1.0)
    spread = max((high - low) or abs(high) or 1.0, 1e-12)  # less than that nobody sees, and could not be divided by
    step = 10 ** math.floor(math.log10(spread)) / 5
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return short(start * step), short(max(end, start + 1) * step)


def short(value: float) -> float:
    """Rounded to 4 significant digits."""
    return float(f"{value:.4g}")
