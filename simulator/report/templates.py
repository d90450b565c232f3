"""Pages from the templates beside this file: values are escaped, nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from simulator.words import count, duration, interval, label, number, size, word, written

FOLDER = Path(__file__).with_name("templates")


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
    templates.filters |= {
        function.__name__: function
        for function in (count, duration, interval, label, number, size, written, prose, unbroken)
    }
    templates.filters["word"] = word
    templates.filters["own_ids"] = own_ids
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
