"""A batch survives its way through bytes, and damage is noticed."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulator.store.codec import HEADER, decode, encode
from simulator.store.protocol import StoreError
from simulator.types import Batch
from tests.store.batches import batch, same


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    n, slots = draw(st.integers(0, 20)), draw(st.integers(0, 4))
    low, high = draw(st.sampled_from([(0, 1), (0, 255), (0, 256), (0, 65536), (0, 2**31 - 1), (-3, 300)]))
    whole = st.integers(low, high)
    any_label = st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, 1.0])
    label = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), any_label]))
    return Batch(
        draw(
            hnp.arrays(
                np.int64, n, elements=st.integers(low, high if low < 0 else draw(st.sampled_from([high, 2**62])))
            )
        ),
        draw(hnp.arrays(np.int64, n, elements=whole)),
        draw(hnp.arrays(np.float64, n, elements=st.floats(allow_nan=False))),
        draw(hnp.arrays(np.int32, (n, slots), elements=whole)),
        draw(hnp.arrays(np.float32, n, elements=label)),
        draw(st.none() | hnp.arrays(np.float32, n, elements=st.floats(width=32, allow_nan=False))),
    )


@given(batches())
def test_decoding_gives_back_every_value_and_dtype(original: Batch) -> None:
    decoded = decode(encode(original))
    assert same(decoded, original)
    assert all(column.flags.writeable for column in vars(decoded).values() if column is not None)


def test_the_columns_are_narrow() -> None:
    # 3 events of 4 slots: user and item below 256 1 byte each, time 8, four rows of 2 bytes, label 1
    assert len(encode(batch(0, 3, rows=60_000))) == HEADER.size + 3 * (1 + 1 + 8 + 4 * 2 + 1)


def test_a_slice_of_a_batch_is_as_good_as_a_whole_one() -> None:
    whole = batch(5, 40)
    assert same(decode(encode(whole[3:33:3])), whole[3:33:3])


@given(st.data())
def test_a_flipped_bit_in_the_columns_is_noticed(data: st.DataObject) -> None:
    damaged = bytearray(encode(batch(1, 10)))
    place = data.draw(st.integers(HEADER.size, len(damaged) - 1))
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StoreError, match="checksum"):
        decode(bytes(damaged))


def test_a_flipped_bit_in_the_header_is_noticed_or_changes_nothing() -> None:
    for whole in (batch(1, 10), replace(batch(1, 10), weight=np.ones(10, np.float32))):
        for place in range(8 * HEADER.size):
            damaged = bytearray(encode(whole))
            damaged[place // 8] ^= 1 << place % 8
            try:
                assert same(decode(bytes(damaged)), whole)
            except StoreError:
                pass


def test_columns_are_of_the_kind_that_they_must_be() -> None:
    """Else a table row of 2^32 + 5 would become row 5, and a label a user."""
    whole, rows = batch(1, 10), 2**32 + batch(1, 10).features.astype(np.int64)
    with pytest.raises(StoreError, match="columns are not those of its header"):
        decode(encode(Batch(whole.user, whole.item, whole.time, rows, whole.label)))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="columns are not those of its header"):
        decode(encode(whole).replace(b"BBdHB-", b"fBdHB-"))


@given(st.integers(0, 100))
def test_a_truncated_batch_is_noticed(length: int) -> None:
    with pytest.raises(StoreError):
        decode(encode(batch(1, 10))[:length])


def test_another_version_and_another_program_are_named() -> None:
    data = encode(batch(1, 10))
    with pytest.raises(StoreError, match="format 9"):
        decode(data[:2] + struct.pack("<B", 9) + data[3:])
    with pytest.raises(StoreError, match="another program"):
        decode(b"PK" + data[2:])
