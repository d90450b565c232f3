"""The pages of figures: figures.html and docs/results.md.

Claims first, decided on every world, then every figure of each world with the command that makes it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from simulator.figures import claims
from simulator.figures.chart import Figure, Table
from simulator.figures.claims import NO_WORSE, Finding
from simulator.figures.conditions import each_source, gain_conditions
from simulator.figures.sweep import Sweep
from simulator.report import html
from simulator.report.charts import legend
from simulator.report.html import document, grid, panel, section
from simulator.words import plural

CLAIMS: tuple[tuple[str, int, Callable[[Sweep], Finding]], ...] = (
    (
        "Smooth activations at least halve PD, at no worse ranking loss and log loss",
        1,
        lambda sweep: claims.halving(sweep.arms()),
    ),
    (
        "SmeLU lies on or below Swish, GELU and Softplus over some range of the plane",
        1,
        lambda sweep: claims.below_rivals(sweep.arms()),
    ),
    ("Log loss is U-shaped in beta", 2, lambda sweep: claims.u_shape(sweep.arms())),
    ("Too much smoothness tends to the linear model", 2, lambda sweep: claims.limit(sweep.arms())),
    (
        "Ensembles lower PD too, for m times the look-ups; SmeLU does without",
        8,
        lambda sweep: claims.ensembles(sweep.arms()),
    ),
    ("Heavy shuffling or own initialisation loses the gain; normalisation matters", 6, gain_conditions),
    ("Each source of noise alone makes duplicates differ; without any they are equal", 7, each_source),
    ("Beside it: sticky routing hides duplicates, not refreshes", 8, claims.sticky),
    ("Beside it: the same arm twice (A/A) differs by chance alone", 1, lambda sweep: claims.floor(sweep.arms())),
)
"""Claim, the figure that shows it, and how it is decided."""


@dataclass(frozen=True)
class Row:
    """One claim and what each world says to it."""

    claim: str
    figure: int
    findings: list[Finding]


def table(sweeps: list[Sweep]) -> list[Row]:
    """Every claim on every sweep, in the order given."""
    return [Row(claim, figure, [decide(sweep) for sweep in sweeps]) for claim, figure, decide in CLAIMS]


def page(told: list[tuple[Sweep, list[Figure]]], rows: list[Row], command: str) -> str:
    """The HTML text: claims first, then the figures of each world."""
    worlds = [sweep.world for sweep, _ in told]
    title = f"Every figure, redrawn: {' and '.join(worlds)}"
    parts = [
        f'<header><p class="kicker">Flicker figures · {escape(", ".join(worlds))}</p><h1>{escape(title)}</h1></header>',
        section("What the article says, and what holds here", _claims(rows, worlds)),
    ]
    for sweep, figures in told:
        parts += [_figure(sweep, one) for one in figures]
        absent = "".join(f"<li>Figure {one.number}: {escape(one.claim)}.</li>" for one in figures if not one.panels)
        if absent:
            parts.append(section(f"Not drawn for {sweep.world}", f"<ul>{absent}</ul>"))
    parts.append(section("How to get these figures again", _commands(told, command)))
    return document(title, parts)


def _figure(sweep: Sweep, figure: Figure) -> str:
    if not figure.panels:
        return ""
    panels = grid([panel(one.heading, _unique(one.svg, sweep), one.note) for one in figure.panels])
    again = f"<code>{escape(one_command(sweep, figure))}</code>"
    note = f'<p class="note">{escape(figure.note)} {again}</p>'
    kicker = f'<p class="kicker">Figure {figure.number} · {escape(sweep.world)}</p>'
    head = f"{kicker}<h2>{escape(figure.claim)}</h2>{legend(figure.legend)}"
    return f"<section>{head}{panels}{_numbers(figure)}{note}</section>"


def _numbers(figure: Figure) -> str:
    """The table below the panels."""
    if figure.table is None:
        return ""
    rows = [html.row(escape(name), map(escape, cells)) for name, *cells in figure.table.rows]
    return f'{html.table(figure.table.heads, rows)}<p class="note">{escape(figure.table.note)}</p>'


def _unique(svg: str, sweep: Sweep) -> str:
    """Ids that no drawing of another world on the same page has."""
    mark = "".join(letter if letter.isalnum() else "-" for letter in sweep.world)
    return svg.replace('id="', f'id="{mark}-').replace("url(#", f"url(#{mark}-").replace('href="#', f'href="#{mark}-')


def _claims(rows: list[Row], worlds: list[str]) -> str:
    said = [[f"<b>{one.verdict}</b><br>{escape(one.say)}" for one in row.findings] for row in rows]
    body = [html.row(escape(row.claim), cells) for row, cells in zip(rows, said, strict=True)]
    return html.table(("The article says", *worlds), body)


def _commands(told: list[tuple[Sweep, list[Figure]]], command: str) -> str:
    lines = "\n".join([*(sweep.command for sweep, _ in told), command])
    runs = ", ".join(f"{sweep.world}: {plural(len(sweep.runs), 'run')}" for sweep, _ in told)
    return f"<pre><code>{escape(lines)}</code></pre><p>{escape(runs)}.</p>"


INTRODUCTION = (
    "Generated by `{command}` from {sweeps}; do not edit. A verdict is computed from 95 % intervals: *beyond doubt* "
    "means that the whole interval lies on one side; a loss is *no worse* where the interval of its ratio ends below "
    f"{NO_WORSE}. Ratios are to ReLU in the same run, so that what fleets and users share cancels. Nothing is "
    "corrected for having tried several settings: the best of many looks better than it is."
)


def markdown(told: list[tuple[Sweep, list[Figure]]], rows: list[Row], command: str, images: str) -> str:
    """The text of the page; `images` is where it finds the SVG files."""
    lines = [
        "# Results: the article's claims, and what holds here",
        "",
        INTRODUCTION.format(command=command, sweeps=plural(len(told), "sweep")),
        "",
    ]
    lines += ["```sh", *(sweep.command for sweep, _ in told), command, "```", ""]
    lines += ["| the article says | " + " | ".join(sweep.world for sweep, _ in told) + " | command |"]
    lines += ["| --- |" + " --- |" * (len(told) + 1)]
    for row in rows:
        cells = [f"**{one.verdict}**: {_cell(one.say)}" for one in row.findings]
        again = shlex.join(["flicker", "figures", *(str(sweep.folder) for sweep, _ in told), "--only", str(row.figure)])
        lines.append(f"| {row.claim} (figure {row.figure}) | " + " | ".join(cells) + f" | `{again}` |")
    for sweep, figures in told:
        lines += ["", f"## {sweep.world}"]
        for one in figures:
            lines += ["", f"### {one.number}. {one.claim}", ""]
            if one.panels:
                name = f"{images}/{file_stem(one, sweep)}"
                lines += [
                    f"![Figure {one.number}]({name}.svg)",
                    "",
                    f"The same as numbers: [CSV]({name}.csv). {one.note}",
                ]
                lines += [*_markdown_table(one.table), "", f"`{one_command(sweep, one)}`"]
            else:
                lines += [f"Not drawn: {one.claim[0].lower()}{one.claim[1:]}."]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table | None) -> list[str]:
    if table is None:
        return []
    rows = [table.heads, ["---"] * len(table.heads), *table.rows]
    return ["", *("| " + " | ".join(map(_cell, row)) + " |" for row in rows), "", table.note]


def file_stem(figure: Figure, sweep: Sweep) -> str:
    """Name of a figure's files: `movietweetings-100k-1-plane`."""
    world = "".join(letter if letter.isalnum() else "-" for letter in sweep.world)
    return f"{world}-{figure.number}-{figure.name}"


def one_command(sweep: Sweep, figure: Figure) -> str:
    """What draws this figure again, once the sweep has run."""
    return f"flicker figures {sweep.folder} --only {figure.number}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
