"""Text on a picture, in pixels from its upper left corner."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

POINTS = 0.72
"""Points of a font per pixel, at 100 dots to the inch."""
SAMPLE = 22
"""Pixels of a line's sample in a legend."""
Entry = tuple[str, Mapping[str, Any]]
"""What a legend says, and colour and dashes of its line."""


class Pen:
    """Writes on a figure of 100 dots to the inch."""

    def __init__(self, figure: Figure, height: float) -> None:
        self._figure, self._height = figure, height
        self._renderer = FigureCanvasAgg(figure).get_renderer()

    def width(self, text: str, size: float, weight: str = "normal") -> float:
        """Pixels that a text takes."""
        font = FontProperties(size=size * POINTS, weight=weight)
        return float(self._renderer.get_text_width_height_descent(text, font, ismath=False)[0])

    def write(
        self, x: float, y: float, text: str, size: float, colour: str, weight: str = "normal", align: str = "left"
    ) -> None:
        """A line of text on the base line `y`; sizes in pixels."""
        width = float(self._figure.bbox.width)
        self._figure.text(
            x / width,
            1 - y / self._height,
            text,
            size=size * POINTS,
            color=colour,
            weight=weight,
            ha=align,
            va="baseline",
            parse_math=False,
        )

    def cut(self, text: str, width: float, size: float, weight: str = "normal") -> str:
        """The text, shortened where it is wider than `width`."""
        if self.width(text, size, weight) <= width:
            return text
        while text and self.width(text + "…", size, weight) > width:
            text = text[:-1]
        return text.rstrip() + "…"

    def fitting(self, text: str, width: float, size: float) -> float:
        """The largest size up to `size` at which a bold text is no wider than `width`."""
        return min(size, size * width / self.width(text, size, "bold"))

    def paragraphs(self, x: float, y: float, width: float, markdown: str, size: float, colour: str) -> None:
        """Words in lines, the first with its base line at `y`; **bold** is bold, other marks are left out."""
        bold, at = False, 0.0
        space = self.width("n n", size) - self.width("nn", size)
        for word in markdown.replace("\n\n", " \f ").split(" "):
            if word == "\f":
                at, y = 0.0, y + 1.9 * size
                continue
            bold |= word.startswith("**")
            weight = "bold" if bold else "normal"
            shown = re.sub(r"\*+|`", "", word)
            if at and at + self.width(shown, size, weight) > width:
                at, y = 0.0, y + 1.5 * size
            self.write(x + at, y, shown, size, colour, weight)
            at += self.width(shown, size, weight) + space
            bold &= not re.search(r"\*\*\W*$", word)

    def legend_rows(self, entries: Sequence[Entry], width: float, size: float) -> list[list[Entry]]:
        """The entries in rows no wider than `width`."""
        rows: list[list[Entry]] = [[]]
        at = 0.0
        for entry in entries:
            takes = SAMPLE + 24 + self.width(entry[0], size)
            if rows[-1] and at + takes > width:
                rows.append([])
                at = 0.0
            rows[-1].append(entry)
            at += takes
        return rows

    def legend(self, x: float, y: float, entries: Sequence[Entry], size: float, colour: str) -> None:
        """One row of it on the base line `y`."""
        for text, look in entries:
            height, width = 1 - (y - size / 3) / self._height, float(self._figure.bbox.width)
            ends = [x / width, (x + SAMPLE) / width]
            self._figure.add_artist(Line2D(ends, [height, height], color=look["color"], ls=look["ls"], lw=1.8))
            self.write(x + SAMPLE + 6, y, text, size, colour)
            x += SAMPLE + 24 + self.width(text, size)
