"""Two slates as the playground draws them: by brute force, and with whatever a log may call its items."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from page.asking import SlatePair, TitledSlate
from page.playground import MAX_PLACES, differing, field_values, pair_html
from protos.recommender_pb2 import AnsweredBy
from simulator.result import Place
from tests.page.live import diff

ITEMS = st.lists(st.integers(0, 12).map(str), max_size=MAX_PLACES, unique=True)
TEXT = st.text(max_size=20)


def slate(items: list[str], title: str = "Film", unknown: bool = False) -> TitledSlate:
    """An answer of these items."""
    places = [Place(item, f"{title} {item}", 0.5 - number) for number, item in enumerate(items)]
    return TitledSlate(AnsweredBy(replica="a", arm="relu", duplicate=1, generation=2), places, unknown)


class Elements(HTMLParser):
    """Names of all elements, and classes of rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names, self.rows = set[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.names.add(tag)
        if tag == "li":
            self.rows.append(dict(attrs).get("class") or "")


@given(ITEMS.filter(bool), ITEMS.filter(bool))
def test_what_moved_is_joined_and_what_stands_alone_is_marked(one: list[str], other: list[str]) -> None:
    text = str(pair_html(SlatePair((slate(one), slate(other)), {})))
    alone, moved = diff(one, other)
    paths = re.findall(r'<path class="(\w+)" d="M0 ([\d.]+) C[\d. ]+ 2 ([\d.]+)"', text)
    assert {(int(float(a)), int(float(b))) for kind, a, b in paths if kind == "moved"} == moved
    rows = Elements(text).rows
    assert [kind == "alone" for kind in rows] == [item in alone for item in [*one, *other]]
    longest = max(len(one), len(other))
    padded = [items + [""] * (longest - len(items)) for items in (one, other)]
    places = [number for number in range(longest) if padded[0][number] != padded[1][number]]
    assert differing(slate(one).places, slate(other).places) == places and f"{len(places)} of " in text


@given(ITEMS.filter(bool), ITEMS.filter(bool))
def test_what_changed_since_flashes(before: list[str], after: list[str]) -> None:
    same = slate(["1"])
    rows = Elements(str(pair_html(SlatePair((slate(after), same), {}), SlatePair((slate(before), same), {})))).rows
    changed = [number >= len(before) or before[number] != item for number, item in enumerate(after)]
    assert ["changed" in kind for kind in rows] == [*changed, False]


@given(TEXT)
def test_titles_and_ids_stay_text(title: str) -> None:
    hostile = f"{title}</li><script>alert(1)</script><img src=x>"
    names = Elements(str(pair_html(SlatePair((slate(["<b>"], hostile), slate(["1"], hostile)), {"slot": 1.0})))).names
    assert not names & {"script", "img", "b"}


def test_whom_the_world_has_not_is_told() -> None:
    told = "The world has no such user"
    assert told in pair_html(SlatePair((slate(["1"], unknown=True), slate(["1"], unknown=True)), {}))
    assert told not in pair_html(SlatePair((slate(["1"]), slate(["1"])), {}))


def test_values_of_a_context_have_names_or_numbers() -> None:
    assert field_values(["phone", "tv"], 3) == ["phone", "tv", "2"] and field_values([], 2) == ["0", "1"]
    assert len(field_values([], 10_000)) == 100
