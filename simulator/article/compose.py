"""A figure as one SVG file that stands alone: claim, legend, panels side by side, note; light colours on white."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from html import escape

from simulator.report.charts import Figure, swatch
from simulator.report.templates import style

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
    y = _legend(parts, figure.legend, y + 14)
    y = _panels(parts, figure, y)
    for line in _wrapped(figure.note, 12, LETTER_WIDTH):
        y += 16
        parts.append(_text(MARGIN, y, line, 12, soft=True))
    height = y + MARGIN
    body = _resolved("".join(parts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="Segoe UI, Roboto, Helvetica Neue, Liberation Sans, Arial, '
        f'sans-serif"><title>{escape(figure.claim)}</title><rect width="100%" height="100%" '
        f'fill="{_palette()["paper"]}"/>{body}</svg>\n'
    )


def _wrapped(words: str, size: int, letter: float) -> list[str]:
    """Lines as wide as the figure."""
    return textwrap.wrap(words, int((WIDTH - 2 * MARGIN) / (letter * size)))


def _legend(parts: list[str], entries: list[tuple[int, str]], y: float) -> float:
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


def _panels(parts: list[str], figure: Figure, y: float) -> float:
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


def _resolved(text: str) -> str:
    """Colours instead of roles: an image has no page around it."""
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda role: _palette()[role[1]], text)
