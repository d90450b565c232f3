"""Which figures are shown against what, with the laws through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from scaling_axes import Setting
from scaling_drawing import Panel, Series
from scaling_estimate import Point
from scaling_laws import Law, fit

MEGA = 1e6
Axis = list[tuple[Setting, list[Point]]]
Value = Callable[[Setting, Point], float]
Count = Callable[[Setting], float]


@dataclass(frozen=True)
class Figure:
    """One quantity against one count."""

    title: str
    x: str
    y: str
    lines: Sequence[tuple[str, Axis, Value]]
    count: Count
    log: bool = False

    def series(self) -> list[Series]:
        """Each line with its law."""
        return [self._line(*line) for line in self.lines]

    def _line(self, name: str, axis: Axis, value: Value) -> Series:
        x = [self.count(setting) for setting, _ in axis]
        values = [[value(setting, point) for point in said] for setting, said in axis]
        y = [median(found) for found in values]
        return Series(name, x, y, [min(f) for f in values], [max(f) for f in values], fit(x, y))

    def drawn(self) -> Panel:
        """As a panel."""
        return Panel(self.title, self.x, self.y, self.series(), self.log)


def entities(setting: Setting) -> float:
    """Users, and as many items."""
    return setting.entities


def catalogue(title: str, y: str, lines: Sequence[tuple[str, Axis]], value: Value) -> Figure:
    """A quantity against users and items, a line for each way to keep them."""
    return Figure(title, "users, and as many items", y, [(n, axis, value) for n, axis in lines], entities, log=True)


def alone(title: str, y: str, axes: dict[str, Axis], varied: str, value: Value) -> Figure:
    """A quantity against one of the counts of a setting."""
    x = "duplicates of each arm" if varied == "duplicates" else varied
    return Figure(title, x, y, [("", axes[varied], value)], lambda setting: float(getattr(setting, varied)))


def learning_panels(axes: dict[str, Axis]) -> list[Figure]:
    """Time of learning and of ranking, memory of a run."""

    def time(setting: Setting, point: Point) -> float:
        return float(1e6 * point["learn"] / point["learned"])  # ms per 1,000 events

    def ranking(setting: Setting, point: Point) -> float:
        return float(1e3 * point["cpu"]["rank"] / (point["ranked"] / setting.candidates))

    def memory(setting: Setting, point: Point) -> float:
        return float(max(point["peak"].values()) / MEGA)

    def measuring(setting: Setting, point: Point) -> float:
        return float(point["cpu"]["measure"])

    def made(setting: Setting, point: Point) -> float:
        return float(point["cpu"]["world"])

    cpu, peak = "CPU ms per 1,000 events", "peak of a run, MB"
    tables = [("a row for each", axes["rows"]), ("hashed", axes["hashed"])]
    return [
        catalogue("Learning: catalogue", cpu, tables, time),
        alone("Learning: duplicates", cpu, axes, "duplicates", time),
        alone("Learning: arms", cpu, axes, "arms", time),
        alone("Ranking: candidates", "CPU ms per query, all models", axes, "candidates", ranking),
        catalogue("To make the world", "CPU s", tables, made),
        alone("Measuring: duplicates", "CPU s", axes, "duplicates", measuring),
        alone("Measuring: arms", "CPU s", axes, "arms", measuring),
        alone("Measuring: candidates", "CPU s", axes, "candidates", measuring),
        catalogue("Memory: catalogue", peak, tables, memory),
        alone("Memory: duplicates", peak, axes, "duplicates", memory),
        alone("Memory: arms", peak, axes, "arms", memory),
        alone("Memory: candidates", peak, axes, "candidates", memory),
    ]


def serving_panels(axes: dict[str, Axis], published: dict[str, Axis]) -> list[Figure]:
    """Time and memory of a replica, and what is published for it."""

    def cpu(part: str, scale: float) -> Value:
        return lambda setting, point: float(point["cpu"][part] * scale)

    def peak(setting: Setting, point: Point) -> float:
        return float(point["peak"]["refresh"] / MEGA)

    def size(setting: Setting, point: Point) -> float:
        return float(point["snapshot"] / MEGA)

    tables = [("a row for each", axes["rows"]), ("hashed", axes["hashed"])]
    cut = [("a row for each", published["rows"]), ("hashed", published["hashed"])]
    ways = [("one at a time", cpu("one", 1e6)), ("16 at once", cpu("many", 1e6))]
    query, memory, users = "CPU µs per query", "peak of a refresh, MB", "users, and as many items"
    by_candidates = [(name, axes["candidates"], value) for name, value in ways]
    return [
        Figure("A query: candidates", "candidates", query, by_candidates, lambda setting: setting.candidates),
        Figure("A query: catalogue", users, query, [(n, axes["rows"], value) for n, value in ways], entities, log=True),
        catalogue("To prepare a generation", "CPU ms", tables, cpu("refresh", 1e3)),
        alone("To prepare one: arms", "CPU ms", axes, "arms", cpu("refresh", 1e3)),
        catalogue("Published, per duplicate", "MB", cut, size),
        catalogue("To publish two duplicates", "CPU ms", cut, cpu("publish", 1e3)),
        catalogue("Memory of a replica", memory, tables, peak),
        alone("Memory of a replica: arms", memory, axes, "arms", peak),
    ]


def law_table(figures: Sequence[Figure]) -> str:
    """One row a line: the law, how well it fits, first and last point with their spread."""
    lines = []
    for figure in figures:
        for series in figure.series():
            assert series.law is not None
            name = f"{figure.title}{', ' + series.name if series.name else ''}"
            ends = " to ".join(ranged(series, place) for place in (0, -1))
            x = f"{figure.x} {series.x[0]:,.0f} to {series.x[-1]:,.0f}"
            law, quality = law_words(series.law, 1.0, "x"), f"{series.law.r2:.4f} | {series.law.worst:.0%}"
            lines.append(f"| {name} | {x} | {figure.y}: {ends} | {law} | {quality} |")
    return "\n".join(lines)


def ranged(series: Series, place: int) -> str:
    """A median with the lowest and highest of the repeats."""
    return f"{digits(series.y[place])} ({digits(series.low[place])}–{digits(series.high[place])})"


def law_words(law: Law, scale: float, x: str) -> str:
    """The law in numbers, times `scale`."""
    if law.form == "power":
        return f"{digits(law.a * scale)} {x}^{law.b:.2f}"
    sign, square = "-" if law.b < 0 else "+", "²" if law.form == "square" else ""
    return f"{digits(law.a * scale)} {sign} {digits(abs(law.b) * scale)} {x}{square}"


def digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
