"""Arrays read in place against the format's own library, and what is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from simulator.store.arrays import DTYPES, arrays_of

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
