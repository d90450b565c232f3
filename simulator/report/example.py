"""What one user got, twice: two slates side by side, for the template `kit.html` to draw; moved items are joined."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.result import Example, Place
from simulator.words import count, label, plural

MAX_PLACES, MAX_LETTERS = 20, 80
"""Places of a slate, and letters of a title, that are shown at most."""


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
    joined = [
        (place, items2.index(item)) for place, item in enumerate(items1[:MAX_PLACES]) if item in items2[:MAX_PLACES]
    ]
    return [_rows(first, items2), _rows(second, items1)], joined


def _rows(slate: list[Place], other: list[str]) -> list[SlateRow]:
    return [
        SlateRow(_short(place.title), _signed(place.score), "" if place.item in other else "alone")
        for place in slate[:MAX_PLACES]
    ]


def _signed(score: float) -> str:
    return f"{score:+.2f}".replace("-", "\N{MINUS SIGN}")


def _short(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
