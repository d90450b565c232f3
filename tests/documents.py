"""What there is to read: the pages of Markdown, their headings and their blocks of code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
"""Stands in the line before a block of commands, with the reason."""


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: Path
    line: int
    """Of the opening fence, from 1."""
    language: str
    text: str
    before: str
    """The line before it."""

    @property
    def place(self) -> str:
        """`docs/data.md:5`."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    found, lines = list[Block](), page.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = number
        elif start is not None and line == "```":
            language = lines[start][3:].strip()
            text = "\n".join([*lines[start + 1 : number], ""])
            found.append(Block(page, start + 1, language, text, lines[start - 1] if start else ""))
            start = None
    assert start is None, f"{page}: a fence is never closed"
    return found


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> list[str]:
    """Titles of all levels, in order."""
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """Of a heading, as sites for Markdown make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def recipes() -> dict[str, list[Block]]:
    """Heading -> blocks, in order, of CONTRIBUTING.md; what stands before its first heading is none."""
    page = ROOT / "CONTRIBUTING.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    starts = {title: lines.index(f"## {title}") for title in headings(page)[1:]}
    ends = [*list(starts.values())[1:], len(lines)]
    spans = zip(starts.items(), ends, strict=True)
    return {title: [one for one in blocks(page) if start < one.line <= end] for (title, start), end in spans}
