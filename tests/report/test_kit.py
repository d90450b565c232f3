"""Two slates side by side, as a browser gets them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from simulator.report.kit import MAX_LETTERS, MAX_PLACES, twice
from simulator.report.page import page
from simulator.result import Example, Place, read_result
from tests.report.fake_results import fake_result, write
from tests.report.parsed import Page


def example(first: str, second: str, **more: object) -> Example:
    """Of items with names of a letter."""
    slates = [
        [Place(item, f"Film {item}", 1.5 - place) for place, item in enumerate(slate)] for slate in (first, second)
    ]
    return replace(Example("u-1a5b", "relu", [0, 1], slates, 500, 212, {"device": "phone"}), **more)  # type: ignore[arg-type]


def drawn(tmp_path: Path, one: Example) -> str:
    return page(replace(read_result(write(tmp_path, fake_result())), example=one))


def test_moved_items_are_joined_and_others_marked(tmp_path: Path) -> None:
    text = drawn(tmp_path, example("ABCDE", "ACXBE"))
    part = text[text.index("What one user got") :].partition("</section>")[0]
    assert Page(text).open == [] and part.startswith("What one user got, twice: 3 of 5 places differ")
    rows = re.findall(r'<li( class="alone")?><span>Film (.)</span> <small>(.*?)</small>', part)
    assert "".join(title for _, title, _ in rows) == "ABCDEACXBE"
    assert [title for alone, title, _ in rows if alone] == ["D", "X"]
    assert [score for *_, score in rows] == ["+1.50", "+0.50", "−0.50", "−1.50", "−2.50"] * 2
    paths = re.findall(r'class="(same|moved)" d="M0 (\S+) C1 \2 1 (\S+) 2 \3"', part)
    assert paths == [("same", "0.5", "0.5"), ("moved", "1.5", "3.5"), ("moved", "2.5", "1.5"), ("same", "4.5", "4.5")]
    assert "User u-1a5b (device phone) asked once. Duplicates 0 and 1 of ReLU answered" in part
    assert "of 500 queries 212 got different slates of these two" in part


def test_long_slates_and_titles_are_cut_and_hostile_ones_stay_text(tmp_path: Path) -> None:
    letters = [chr(0x4E00 + number) for number in range(MAX_PLACES + 5)]
    shown = twice(example("".join(letters), "".join(reversed(letters))))
    assert [len(slate) for slate in shown.slates] == [MAX_PLACES] * 2
    assert shown.joined == [(place, MAX_PLACES + 4 - place) for place in range(5, MAX_PLACES)]
    assert not any(row.kind for slate in shown.slates for row in slate), "the others are further down"
    bad = [[Place("1", "<script>x</script>" + "y" * 10_000, 0.0)], [Place("2", "b", 0.0)]]
    text = drawn(tmp_path, example("A", "B", user="<img src=x>", slates=bad))
    assert Page(text).open == [] and not Page(text).tags.keys() & {"script", "img"}
    assert "y" * MAX_LETTERS not in text and "…</span>" in text


def test_a_result_without_an_example_says_so(tmp_path: Path) -> None:
    text = page(read_result(write(tmp_path, fake_result())))
    assert "Not in this result: what one user got, twice." in text and 'class="twice"' not in text
