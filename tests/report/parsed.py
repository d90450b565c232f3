"""A report as a browser sees it: parsed with the standard library."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from simulator.report import write_report
from tests.report.fake_results import Json, write

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """A parsed page: its tags, ids, references, headings and the rows of its first table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.attributes: set[str] = set()
        self.texts: dict[str, list[str]] = {"h1": [], "h2": [], "title": []}
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")
        if self.tags["table"] == 1 and tag == "tr":
            self.rows.append([])
        if self.tags["table"] == 1 and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        data = plain(data)
        for tag in self.texts:
            if tag in self.open:
                self.texts[tag][-1] += data
        if self.tags["table"] == 1 and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def plain(text: str) -> str:
    """With ordinary spaces."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def draw(folder: Path, result: Json) -> tuple[str, Page]:
    """Write, draw, read and parse."""
    text = write_report(write(folder, result)).read_text(encoding="utf-8")
    return text, Page(text)
