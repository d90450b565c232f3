"""All figures of one or several sweeps on one page."""

from __future__ import annotations

from html import escape

from simulator.figures.figure import Figure
from simulator.figures.markdown import one_command
from simulator.figures.sweep import Sweep
from simulator.figures.table import Row
from simulator.report.canvas import swatch
from simulator.report.html import document, grid, panel, section
from simulator.report.words import plural


def page(told: list[tuple[Sweep, list[Figure]]], rows: list[Row], command: str) -> str:
    """The HTML text: claims first, then the figures of each world."""
    worlds = [sweep.world for sweep, _ in told]
    title = f"Every figure, redrawn: {' and '.join(worlds)}"
    parts = [
        f'<header><p class="kicker">Flicker figures · {escape(", ".join(worlds))}</p><h1>{escape(title)}</h1></header>',
        section("What the article says, and what holds here", _table(rows, worlds)),
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
    entries = "".join(f"<li>{swatch(look)} {escape(words)}</li>" for look, words in figure.legend)
    legend = f'<ul class="legend">{entries}</ul>' if entries else ""
    panels = grid([panel(one.heading, _unique(one.svg, sweep), one.note) for one in figure.panels])
    again = f"<code>{escape(one_command(sweep, figure))}</code>"
    note = f'<p class="note">{escape(figure.note)} {again}</p>'
    kicker = f'<p class="kicker">Figure {figure.number} · {escape(sweep.world)}</p>'
    return f"<section>{kicker}<h2>{escape(figure.claim)}</h2>{legend}{panels}{_numbers(figure)}{note}</section>"


def _numbers(figure: Figure) -> str:
    """The table below the panels."""
    if figure.table is None:
        return ""
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in figure.table.heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in figure.table.rows
    )
    table = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    return f'{table}<p class="note">{escape(figure.table.note)}</p>'


def _unique(svg: str, sweep: Sweep) -> str:
    """Ids that no drawing of another world on the same page has."""
    mark = "".join(letter if letter.isalnum() else "-" for letter in sweep.world)
    return svg.replace('id="', f'id="{mark}-').replace("url(#", f"url(#{mark}-").replace('href="#', f'href="#{mark}-')


def _table(rows: list[Row], worlds: list[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in ("The article says", *worlds))
    body = "".join(
        f'<tr><th scope="row">{escape(row.claim)}</th>'
        + "".join(f"<td><b>{one.verdict}</b><br>{escape(one.say)}</td>" for one in row.findings)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _commands(told: list[tuple[Sweep, list[Figure]]], command: str) -> str:
    lines = "\n".join([*(sweep.command for sweep, _ in told), command])
    runs = ", ".join(f"{sweep.world}: {plural(len(sweep.runs), 'run')}" for sweep, _ in told)
    return f"<pre><code>{escape(lines)}</code></pre><p>{escape(runs)}.</p>"
