"""The names part against plain lists of Python, whatever the texts are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.store.arrays import arrays_of, pack, unpack
from simulator.types import Names

IDS = st.lists(st.text(max_size=6) | st.sampled_from(["", "a", "aa", "b", "Ä", "7"]), unique=True, max_size=30)


@given(IDS, IDS, st.lists(st.text(max_size=40), max_size=5), st.dictionaries(st.text(max_size=12), IDS, max_size=3))
def test_names_are_what_they_were_and_are_found(
    users: list[str], items: list[str], titles: list[str], context: dict[str, list[str]]
) -> None:
    found = unpack(bytearray(pack(Names(users, items, titles, context))))
    assert [list(found.users), list(found.items), list(found.titles)] == [users, items, titles]
    assert {field: list(values) for field, values in found.context.items()} == context
    for texts in (found.users, found.items, *found.context.values()):
        assert [texts.index(text) for text in texts] == list(range(len(texts)))
        with pytest.raises(ValueError, match="none of"):
            texts.index("in none of them")
    assert list(found.users[1::2]) == users[1::2] and found.users[-1:] == users[-1:]


@pytest.mark.parametrize("place", [3, -4])
def test_a_place_outside_is_an_error(place: int) -> None:
    with pytest.raises(IndexError):
        unpack(bytearray(pack(Names(["a", "b", "c"])))).users[place]


def test_names_fall_back() -> None:
    made_up, log = Names(), unpack(bytearray(pack(Names(["u-1"], ["sku-0", "sku-1"], ["", "A film"]))))
    assert (made_up.user(7), made_up.item(7), made_up.title(7)) == ("7", "7", "item 7")
    assert [log.title(0), log.title(1), log.item(1), log.user(0), log.user(1)] == [
        "sku-0",
        "A film",
        "sku-1",
        "u-1",
        "1",
    ]


def test_the_part_holds_numbers_and_bytes_alone() -> None:
    part = pack(Names([f"user {number}" for number in range(1_000)]))
    assert {array.dtype.kind for array in arrays_of(bytearray(part)).values()} == {"u", "i"}
    assert len(part) < 1_000 * (8 + 8 + 4) + 1_000
