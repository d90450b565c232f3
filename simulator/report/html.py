"""Pieces of a page: sections, panels side by side, prose, and the document around them; style.css is the look."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path


def document(title: str, parts: list[str]) -> str:
    """A whole page that loads nothing from elsewhere."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body><main>",
            *parts,
            "</main></body></html>\n",
        ]
    )


def prose(text: str) -> str:
    """Escaped text in which `backticks` mark what is typed."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def row(head: str, cells: Iterable[str]) -> str:
    """A row of a table: its name, and its cells as HTML."""
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def table(heads: Iterable[str], rows: Iterable[str], kind: str = "") -> str:
    """Rows below headings (escaped here), which may scroll sideways; `kind` is a class of the style sheet."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    opening = f'<div class="scroll"><table class="{kind}">' if kind else '<div class="scroll"><table>'
    return f"{opening}{top and f'<thead><tr>{top}</tr></thead>'}<tbody>{''.join(rows)}</tbody></table></div>"


def section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def grid(panels: list[str]) -> str:
    return f'<div class="grid">{"".join(panels)}</div>'


def panel(heading: str, drawing: str, note: str = "") -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<figure><figcaption>{escape(heading)}</figcaption>{drawing}{below}</figure>"
