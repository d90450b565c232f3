"""Colour, mark and line of an arm, by its place among the arms: for every drawing.

The colours themselves are roles in templates/roles.css: grey for the first arm, then Okabe and Ito's.
"""

from __future__ import annotations

HUES = 7
"""Colour-blind-safe colours after the first arm's grey; further arms repeat them with another mark and line."""
LOOKS = 3
"""Marks and lines."""


def hue(index: int) -> int:
    """Number of the style sheet's colour for the arm at `index`: 0 is the neutral of the first arm."""
    return 0 if index == 0 else 1 + (index - 1) % HUES


def look(index: int) -> int:
    """Which mark and line the arm at `index` has: they change once all hues are used."""
    return 0 if index == 0 else (index - 1) // HUES % LOOKS
