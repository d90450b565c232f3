"""Arrays are read as the format's own library reads them, where they lie; names are found in a part made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from simulator.store.arrays import DTYPES, arrays_of, pack, unpack
from simulator.types import Names

WHOLE = safetensors.numpy.save({"one": np.arange(6, dtype=np.float32).reshape(2, 3), "two": np.arange(4)})


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__"),
        st.sampled_from(sorted(DTYPES.values())).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=4,
    )
)
def test_what_the_library_writes_is_read_the_same(written: dict[str, np.ndarray]) -> None:
    found = arrays_of(bytearray(safetensors.numpy.save(written, metadata={"format": "pt"})))
    assert sorted(found) == sorted(written)
    for name, array in written.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_arrays_share_the_memory_of_the_bytes() -> None:
    data = bytearray(WHOLE)
    arrays_of(data)["one"][1, 2] = 9
    assert arrays_of(data)["one"][1, 2] == 9


@given(st.data())
def test_damage_is_refused_or_stays_within_the_bytes(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[: data.draw(st.integers(0, len(WHOLE)))])
    for place in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=3)) if damaged else []:
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        found = arrays_of(damaged)
    except ValueError:
        return
    assert sum(array.nbytes for array in found.values()) <= 2 * len(damaged)


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "Q7", "shape": [2], "data_offsets": [0, 8]},
        {"shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        7,
    ],
)
def test_a_header_that_lies_is_refused(about: object) -> None:
    header = json.dumps({"one": about}).encode()
    with pytest.raises(ValueError):
        arrays_of(bytearray(len(header).to_bytes(8, "little") + header + bytes(8)))


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
