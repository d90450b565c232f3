"""Parts of the tabs: text as HTML, charts with their sentence, choices, and numbers that can be typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from markupsafe import Markup
from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from simulator.measures.intervals import Interval
from simulator.report.kit import environment, hue
from simulator.words import interval

OnChange = Callable[[str], Any]


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


def legend(words: Sequence[str]) -> Markup:
    """Colours of arms, and which arm has which, in their order."""
    if len(words) < 2:
        return Markup("")
    entry = Markup('<li><span class="swatch" style="background:var(--arm-{})"></span> {}</li>')
    entries = Markup("").join(entry.format(hue(place), name) for place, name in enumerate(words))
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
