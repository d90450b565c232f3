"""The kit of pages, of reports and of the live one: templates, style sheets, looks of arms, two slates side by side.

Pages come from the templates beside this file: values are escaped, nothing is loaded from elsewhere. Colours are roles
in templates/roles.css: grey for the first arm, then Okabe and Ito's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from simulator.measures.words import count, duration, interval, label, number, plural, size, word, written
from simulator.result import Example, Place

FOLDER = Path(__file__).with_name("templates")
HUES = 7
"""Colour-blind-safe colours after the first arm's grey; further arms repeat them with another mark and line."""
LOOKS = 3
"""Marks and lines."""
MAX_PLACES, MAX_LETTERS = 20, 80
"""Places of a slate, and letters of a title, that are shown at most."""


def hue(index: int) -> int:
    """Number of the style sheet's colour for the arm at `index`: 0 is the neutral of the first arm."""
    return 0 if index == 0 else 1 + (index - 1) % HUES


def look(index: int) -> int:
    """Which mark and line the arm at `index` has: they change once all hues are used."""
    return 0 if index == 0 else (index - 1) // HUES % LOOKS


def render(template: str, folder: Path = FOLDER, **values: Any) -> str:
    """The text of a page."""
    return environment(folder).get_template(template).render(values)


@cache
def environment(folder: Path = FOLDER) -> Environment:
    """Templates with the words and numbers of words.py at hand."""
    templates = Environment(
        autoescape=lambda name: name is not None and name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(folder),
    )
    filters = (count, duration, interval, label, number, size, word, written, prose, unbroken, own_ids)
    templates.filters |= {function.__name__: function for function in filters}
    templates.globals["style"] = Markup(style())
    return templates


def style(*sheets: str) -> str:
    """Style sheets, all by default: `roles` has the colours, in light and dark, `kit` the style of the macros."""
    names = sheets or ("roles", "kit", "style")
    return "".join((FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in names)


def prose(text: str) -> Markup:
    """Escaped text in which `backticks` mark what is typed."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def unbroken(text: str) -> str:
    """A name whose `=` stay with what they stand between."""
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def own_ids(drawing: str, owner: str) -> Markup:
    """A drawing of ours, whose ids no drawing of another owner on the same page has."""
    prefix = "".join(letter if letter.isalnum() else "-" for letter in owner)
    for reference in ('id="', "url(#", 'href="#') if owner else ():
        drawing = drawing.replace(reference, f"{reference}{prefix}-")
    return Markup(drawing)


@dataclass(frozen=True)
class SlateRow:
    """A place of a slate."""

    title: str
    score: str
    """Log-odds."""
    kind: str = ""
    """Class in the style sheet: `alone` where the other slate has not the item."""


@dataclass(frozen=True)
class Twice:
    """Two slates side by side."""

    heading: str
    asked: str
    """The user, and the models that answered."""
    chosen: str
    """How this query was chosen."""
    slates: list[list[SlateRow]]
    joined: list[tuple[int, int]]
    """Place in the first slate and in the second, from 0, of what both show."""


def twice(example: Example) -> Twice:
    """Of an example."""
    first, second = ([place.item for place in slate] for slate in example.slates)
    moved = sum(one != two for one, two in zip(first, second, strict=True))
    context = "; ".join(f"{name} {value}" for name, value in example.context.items())
    one, two = example.duplicates
    asker = _short(example.user) + (f" ({_short(context)})" if context else "")
    return Twice(
        f"What one user got, twice: {moved} of {plural(len(first), 'place')} differ",
        f"User {asker} asked once. Duplicates {one} and {two} of {label(example.arm)} answered, which learned the same "
        "events under the same conditions.",
        f"Chosen by rule: of {count(example.queries)} queries {count(example.differ)} got different slates of these "
        "two; ordered by how many places differ, this one stands in the middle.",
        *joined_slates(*example.slates),
    )


def joined_slates(first: list[Place], second: list[Place]) -> tuple[list[list[SlateRow]], list[tuple[int, int]]]:
    """Two slates as `Twice` has them, and their joined places."""
    items1, items2 = ([place.item for place in slate] for slate in (first, second))
    shown = items2[:MAX_PLACES]
    joined = [(place, shown.index(item)) for place, item in enumerate(items1[:MAX_PLACES]) if item in shown]
    return [_rows(first, items2), _rows(second, items1)], joined


def _rows(slate: list[Place], other: list[str]) -> list[SlateRow]:
    return [
        SlateRow(_short(place.title), score, "" if place.item in other else "alone")
        for place in slate[:MAX_PLACES]
        for score in [f"{place.score:+.2f}".replace("-", "\N{MINUS SIGN}")]
    ]


def _short(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
