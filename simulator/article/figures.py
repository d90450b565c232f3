"""The pages' figures, all worlds in each: the title says what is compared, the caption how.

Each is an SVG file that stands alone: claim, legend, panels side by side, note; light colours on white.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape

from simulator.article import claims, grid
from simulator.article.claims import NORMS, at_best_rate, choice, design, designs, family, of_norm, relu, sources
from simulator.article.table import Units, WorldCells, envelope, matched, mean, points, ratio, roughly
from simulator.measures.words import label, plural, written
from simulator.report.charts import Axis, Figure, Line, Panel, Point, chart, dots, swatch
from simulator.report.kit import style
from simulator.types import exact


def _units(worlds: Sequence[WorldCells], group: str) -> str:
    """`5 units of 2 duplicates`, as a group was run."""
    sizes = {len(units) for world in worlds for units in world.groups.get(group, {}).values()}
    return f"{' or '.join(map(str, sorted(sizes)))} units of 2 duplicates" if sizes else "no units"


def _plane(world: WorldCells, group: Mapping[str, Sequence[str]], source: Mapping[str, str], name: str) -> Panel | None:
    """PD against log loss, both as ratios to ReLU without a norm at its own rate; each family by its envelope.
    `source`: which group of cells a family is of."""
    base, lines = relu(world), []
    for look, (words, names) in enumerate(group.items()):
        settings = family(world, source[words], *names)
        relative = {
            spec: {unit: {"x": 100 * (one["log_loss"] / base[unit]["log_loss"] - 1), "pd": one["pd"] / base[unit]["pd"]}
                   for unit, one in units.items() if unit in base and one.get("pd") and base[unit].get("pd")}
            for spec, units in settings.items()
        }  # fmt: skip
        frontier = envelope(points(relative, "pd", sorted(base), across="x"))
        kept = [(mean(relative[spec], "x"), ratio(settings[spec], base, "pd"), spec) for *_, spec in frontier]
        all_figures = [Point(x, y, key=spec) for x, y, spec in kept if x is not None and y is not None and x.mean < 3]
        lines += [Line(words, all_figures, look, strength=0.35)] if all_figures else []
    if len(lines) < 2:
        return None
    axes = Axis("log loss above ReLU's, %", air=0.2), Axis("PD / ReLU's", zero=True, air=0.1)
    return chart(f"{name}-{_letters(world.name)}", world.name, lines, *axes, better=True)


def _letters(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _looks(worlds: Sequence[WorldCells]) -> list[tuple[int, str]]:
    """A legend of the worlds."""
    return [(look, world.name) for look, world in enumerate(worlds)]


def _panels(worlds: Sequence[WorldCells], draw: Callable[[WorldCells], Panel | None]) -> list[Panel]:
    return [panel for world in worlds if (panel := draw(world)) is not None]


def frontiers(worlds: Sequence[WorldCells]) -> Figure:
    """PD against log loss of activations without a norm."""

    def draw(world: WorldCells) -> Panel | None:
        by_words = {"ReLU": ["relu"], "SmeLU": designs(world, "activations", "smelu")}
        by_words |= {label(name): designs(world, "activations", name) for name in (*claims.RIVALS, "linear")}
        return _plane(world, by_words, dict.fromkeys(by_words, "activations"), "frontiers")

    names = ["ReLU", "SmeLU", *(label(name) for name in (*claims.RIVALS, "linear"))]
    note = (
        "Each curve is what a family reaches over its strength and three learning rates, without layer norm; one point "
        f"a setting, 95 % intervals paired with ReLU at its own rate (0, 1). {_units(worlds, 'activations')}; settings "
        "more than 3 % above ReLU's log loss are left out."
    )
    title = "How little PD each activation reaches at which log loss"
    return Figure(1, "frontiers", title, _panels(worlds, draw), list(enumerate(names)), note)


def norms(worlds: Sequence[WorldCells]) -> Figure:
    """The same under each norm."""

    def draw(world: WorldCells) -> Panel | None:
        by_words = {"ReLU, none": ["relu"], "SmeLU, none": designs(world, "activations", "smelu")}
        source = dict.fromkeys(by_words, "activations")
        normed = {f"{words}, {norm}": of_norm(world, words.lower(), norm) for norm in NORMS for words in PAIR}
        by_words, source = by_words | normed, source | dict.fromkeys(normed, "norms")
        return _plane(world, by_words, source, "norms")

    names = [f"{name}, {norm}" for norm in ("none", *NORMS) for name in PAIR]
    note = (
        "Layer norm none, before or after the activation, or weights of unit length (weight). Envelopes over SmeLU's "
        f"beta and three learning rates, to ReLU without a norm (0, 1). {_units(worlds, 'norms')}."
    )
    title = "Layer norm: PD against log loss, ReLU and SmeLU"
    return Figure(2, "norms", title, _panels(worlds, draw), list(enumerate(names)), note)


def equal_loss(worlds: Sequence[WorldCells]) -> Figure:
    """Every family against ReLU without a norm at equal log loss: PD, pair swaps, personalisation."""
    panels, other_measures = [], ("personalisation", "ndcg")
    for measure, heading in (("pd", "PD"), ("pair", "Pair swaps"), *((other, "") for other in other_measures)):
        lines = []
        for look, world in enumerate(worlds):
            relu_family = family(world, "activations", "relu")
            measured = []
            for words, members in claims.families(world).items():
                matched_by = measure if measure in ("pd", "pair") else "pd"
                match = matched(members, relu_family, relu_family, matched_by, other_measures)
                value = match and (match.ratio if measure == matched_by else match.other_ratios.get(measure))
                measured += [Point(value, exact(0), words)] if value else []
            lines += [Line(world.name, measured, look)] if measured else []
        words = heading or {"ndcg": "NDCG: higher is better", "personalisation": "Personalisation"}[measure]
        zero = measure != "ndcg"
        panels += [dots(f"equal-{measure}", words, lines, Axis("ratio to ReLU", zero=zero))] if lines else []
    note = (
        "Families at the same log loss as ReLU without a norm, from the larger of their two least ones to 1 % above "
        "ReLU's: geometric means of ratios, in units that did not choose the settings. A family that is missing is "
        f"never within 1 %. {_units(worlds, 'activations')}."
    )
    return Figure(3, "matched", "PD, swaps, personalisation and NDCG at equal log loss", panels, _looks(worlds), note)


def over_beta(worlds: Sequence[WorldCells]) -> Figure:
    """Log loss and PD over SmeLU's beta, each at its own rate."""
    panels = []
    for measure, heading in (("log_loss", "Log loss: lower is better"), ("pd", "PD"), ("refresh_pair", "At a refresh")):
        lines, marks = [], {0.0: "0"}
        for look, world in enumerate(worlds):
            line_points = [Point(exact(0), exact(1), key="relu")]
            for place, name in enumerate(designs(world, "activations", "smelu"), 1):
                marks[float(place)] = name.rpartition("=")[2]
                if value := ratio(at_best_rate(world, "activations", name), relu(world), measure):
                    line_points.append(Point(exact(place), value, key=name))
            lines += [Line(world.name, line_points, look)] if len(line_points) > 1 else []
        up = Axis("ratio to ReLU", zero=measure != "log_loss", air=1.0)
        panels += [chart(f"beta-{measure}", heading, lines, Axis("beta", marks), up)] if lines else []
    note = (
        "SmeLU without a norm, each beta at its own learning rate; beta = 0 is ReLU. Settings are spaced evenly. "
        f"{_units(worlds, 'activations')}, 95 % intervals paired with ReLU."
    )
    return Figure(4, "beta", "SmeLU's beta: log loss, PD and swaps at a refresh", panels, _looks(worlds), note)


PLACES = {"same start, window 16": "", "own start": "own", "window 128": "shuffled", "own start, window 128": "both"}
"""Condition -> the group of cells; the usual one is among those of activations and norms."""


def conditions(worlds: Sequence[WorldCells]) -> Figure:
    """Absolute PD, pair swaps and log loss by start, window, norm and rate."""
    names = [f"{name}, rate {rate}" for name in ("ReLU", "SmeLU") for rate in grid.CONDITION_RATES]
    panels = []
    for world in (world for world in worlds if "own" in world.groups):
        for measure, heading in (("pd", "PD"), ("pair", "pair swaps"), ("log_loss", "log loss")):
            lines = [Line(words, _of_conditions(world, words, measure), look) for look, words in enumerate(names)]
            name, axis = f"conditions-{measure}-{_letters(world.name)}", Axis("", zero=measure != "log_loss")
            panels.append(dots(name, f"{world.name}: {heading}", [one for one in lines if one.points], axis))
    note = (
        "Start shared by duplicates or each its own; windows shuffled as a whole, in mini-batches; norm; rate. "
        "SmeLU's beta is 0.25 without a norm, 1 with it before, 2 after. Values themselves, no ratios, with 95 % "
        f"intervals over {_units(worlds, 'own')}."
    )
    title = "Start, shuffling, norm and learning rate: PD, swaps and log loss"
    return Figure(5, "conditions", title, panels, list(enumerate(names)), note)


def _of_conditions(world: WorldCells, words: str, measure: str) -> list[Point]:
    """ReLU or SmeLU at one rate, in each condition and under each norm that it was run in."""
    measured = []
    for place, group in PLACES.items():
        for norm, beta in grid.CONDITION_ARMS:
            (spec,) = (
                spec for spec in grid.under_norm(norm, [beta], [words.rpartition(" ")[2]])
                if spec.startswith(words.partition(",")[0].lower())
            )  # fmt: skip
            units = world.units(group or ("activations" if norm == "none" else "norms"), spec)
            if value := mean(units, measure):
                measured.append(Point(value, exact(0), f"{place}\nnorm {norm}"))
    return measured


def by_source(worlds: Sequence[WorldCells]) -> Figure:
    """PD, pair swaps and log loss with one source of noise at a time."""
    panels = []
    for world in (world for world in worlds if sources(world)):
        for measure, heading in (("pd", "PD"), ("pair", "pair swaps")):
            lines = []
            for look, spec in enumerate(("relu", "smelu:beta=0.25")):
                values = [(name, mean(arms.get(spec, {}), measure)) for name, arms in sources(world).items()]
                lines.append(Line(label(spec), [Point(value, exact(0), name) for name, value in values if value], look))
            name = f"sources-{measure}-{_letters(world.name)}"
            panels.append(dots(name, f"{world.name}: {heading}", lines, Axis("", zero=True)))
    note = f"One source of noise at a time, all else held still, rate 0.08, no norm. {_units(worlds, 'noise order')}."
    legend = [(0, "ReLU"), (1, "SmeLU (beta = 0.25)")]
    return Figure(6, "sources", "Each source of noise alone: PD and pair swaps", panels, legend, note)


def costs(worlds: Sequence[WorldCells]) -> Figure:
    """PD and log loss of each cure; what it costs is in the table."""
    panels = []
    for measure, heading in (("pd", "PD"), ("log_loss", "Log loss: lower is better")):
        lines = []
        for look, world in enumerate(worlds):
            ratios = [(words, ratio(units, relu(world), measure)) for words, units in _cures(world).items()]
            measured = [Point(value, exact(0), words) for words, value in ratios if value]
            lines += [Line(world.name, measured, look)] if measured else []
        axis = Axis("ratio to ReLU", zero=measure == "pd")
        panels += [dots(f"costs-{measure}", heading, lines, axis)] if lines else []
    note = (
        f"Each at its own rate (of two, or one), to ReLU at its own. {_units(worlds, 'cures')}, 95 % intervals. "
        "Look-ups, training and scoring time are in the table."
    )
    return Figure(7, "costs", "What each cure does to PD and log loss", panels, _looks(worlds), note)


def _cures(world: WorldCells) -> dict[str, Units]:
    """SmeLU as chosen, and every cure at its own rate."""
    name, smooth = choice(world)
    smelu_as_chosen = {"SmeLU, as chosen": smooth} if name != "relu" else {}
    names = dict.fromkeys(map(design, world.groups.get("cures", {})))
    return smelu_as_chosen | {label(name_of_cure): at_best_rate(world, "cures", name_of_cure) for name_of_cure in names}


def seen(worlds: Sequence[WorldCells]) -> Figure:
    """Pair swaps by cause: ReLU, and SmeLU as chosen."""
    causes = {"another duplicate": "pair", "a refresh": "refresh_pair", "both": "both_pair"}
    panels = []
    for world in worlds:
        name, units = choice(world)
        arms = [("ReLU", relu(world))] + ([(label(name), units)] if name != "relu" else [])
        lines = []
        for look, (words, units_of_arm) in enumerate(arms):
            values = [(cause, mean(units_of_arm, measure)) for cause, measure in causes.items()]
            lines.append(Line(words, [Point(value, exact(0), cause) for cause, value in values if value], look))
        if all(line.points for line in lines):
            panels.append(dots(f"seen-{_letters(world.name)}", world.name, lines, Axis("", zero=True)))
    note = (
        "Share of pairs of 200 candidates in another order. A team whose replicas hold copies of one model sees "
        f"refreshes alone. {_units(worlds, 'activations')}, 95 % intervals."
    )
    legend = [(0, "ReLU"), (1, "SmeLU, as chosen")]
    return Figure(8, "seen", "Pair swaps by cause: duplicates, refreshes, both", panels, legend, note)


DRAWN = (frontiers, norms, equal_loss, over_beta, conditions, by_source, costs, seen)


def all_figures(worlds: Sequence[WorldCells]) -> list[Figure]:
    """Every figure that there are cells for."""
    return [figure for draw in DRAWN if (figure := draw(worlds)).panels]


def cost_rows(world: WorldCells) -> list[list[str]]:
    """Cure, PD, log loss, look-ups, training, scoring, memory: ratios to ReLU at its own rate."""
    base, rows = relu(world), []
    for words, units in _cures(world).items():
        pd, loss = ratio(units, base, "pd"), ratio(units, base, "log_loss")
        if pd and loss:
            costs = ("lookups", "train_seconds", "score_seconds", "model_bytes")
            rows.append(
                [words, written(pd, 2), written(loss, 3), *(roughly(ratio(units, base, cost)) for cost in costs)]
            )
    return rows


def source_rows(world: WorldCells) -> list[list[str]]:
    """Source of noise, PD of ReLU and of SmeLU, and ratios: PD, pair swaps, log loss, personalisation."""
    rows, places = [], {"pd": 3, "pair": 3, "log_loss": 4, "personalisation": 2}
    for name, arms in sources(world).items():
        plain, smooth = (arms.get(spec, {}) for spec in ("relu", "smelu:beta=0.25"))
        ratios = [written(ratio(smooth, plain, measure), digits) for measure, digits in places.items()]
        rows.append([name, written(mean(plain, "pd")), written(mean(smooth, "pd")), *ratios])
    return rows


def count(worlds: Sequence[WorldCells]) -> str:
    """`5 worlds, 240 cells, 1,840 settings in units`."""
    cells = sum(len(world.lines) for world in worlds)
    arms = sum(len(line.arms) for world in worlds for line in world.lines)
    return f"{plural(len(worlds), 'world')}, {plural(cells, 'cell')}, {plural(arms, 'arm')} in all"


PAIR = ("ReLU", "SmeLU")
WIDTH, MARGIN, GAP, COLUMNS = 1000, 16, 22, 3
MAX_WIDTH = 390
"""Pixels of a panel: its letters grow with it."""
LETTER_WIDTH, BOLD_WIDTH = 0.53, 0.62
"""Mean width of a letter, as share of its size, in the widest of the fonts that a viewer may have (DejaVu)."""


def standalone(figure: Figure) -> str:
    """The SVG text of a figure with panels."""
    parts: list[str] = []
    y = MARGIN + 6.0
    for line in _wrapped(figure.claim, 16, BOLD_WIDTH):
        y += 20
        parts.append(_text(MARGIN, y, line, 16, "600"))
    y = _draw_legend(parts, figure.legend, y + 14)
    y = _draw_panels(parts, figure, y)
    for line in _wrapped(figure.note, 12, LETTER_WIDTH):
        y += 16
        parts.append(_text(MARGIN, y, line, 12, soft=True))
    height = y + MARGIN
    # colours instead of roles: an image has no page around it
    body = re.sub(r"var\(--([a-z0-9-]+)\)", lambda role: _palette()[role[1]], "".join(parts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="Segoe UI, Roboto, Helvetica Neue, Liberation Sans, Arial, '
        f'sans-serif"><title>{escape(figure.claim)}</title><rect width="100%" height="100%" '
        f'fill="{_palette()["paper"]}"/>{body}</svg>\n'
    )


def _wrapped(words: str, size: int, letter: float) -> list[str]:
    """Lines as wide as the figure."""
    return textwrap.wrap(words, int((WIDTH - 2 * MARGIN) / (letter * size)))


def _draw_legend(parts: list[str], entries: list[tuple[int, str]], y: float) -> float:
    """Swatches and words, wrapped; returns the height below them."""
    x = float(MARGIN)
    for index, words in entries:
        width = 34 + LETTER_WIDTH * 13 * len(words) + 16
        if x + width > WIDTH - MARGIN and x > MARGIN:
            x, y = float(MARGIN), y + 20
        parts.append(_placed(swatch(index), x, y + 2, 26, 12))
        parts.append(_text(x + 32, y + 13, words, 13))
        x += width
    return y + (26 if entries else 0)


def _draw_panels(parts: list[str], figure: Figure, y: float) -> float:
    """Headings and drawings, row by row; returns the height below them."""
    columns = COLUMNS if len(figure.panels) > 2 and len(figure.panels) % COLUMNS != 1 else 2  # none alone in a row
    width = min(MAX_WIDTH, (WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns)
    for start in range(0, len(figure.panels), columns):
        row_height = 0.0
        for place, panel in enumerate(figure.panels[start : start + columns]):
            x = MARGIN + place * (width + GAP)
            box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', panel.svg)
            assert box is not None, "a drawing without size"
            height = width * float(box[2]) / float(box[1])
            parts.append(_text(x, y + 16, panel.heading, 14, "600"))
            parts.append(_placed(panel.svg, x, y + 24, width, height))
            if panel.note:
                parts.append(_text(x, y + 24 + height + 13, panel.note, 12, soft=True))
            row_height = max(row_height, 24 + height + (18 if panel.note else 4))
        y += row_height + 10
    return y


def _placed(svg: str, x: float, y: float, width: float, height: float) -> str:
    """A drawing at a place, with a size of its own."""
    inner = re.sub(r' (width|height|class|aria-hidden)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    return inner.replace("<svg", f'<svg x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"', 1)


def _text(x: float, y: float, words: str, size: int, weight: str = "400", soft: bool = False) -> str:
    fill = "var(--soft)" if soft else "var(--ink)"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" style="fill:{fill}">'
        f"{escape(words)}</text>"
    )


@cache
def _palette() -> dict[str, str]:
    """The page's light colours by role."""
    sheet = style("roles")
    light = sheet[sheet.index(":root") : sheet.index("}")]
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", light))
