"""The encoder against a plain loop over a small schema."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.types import Field, Schema
from simulator.world.features import Encoder

SCHEMA = Schema(
    (
        Field("user", "user", 3),
        Field("item", "item", 4),
        Field("tags", "item", 5, slots=2),
        Field("hour", "context", 24),
        Field("position", "context", 10),
    )
)
USER_ROWS = np.array([[1], [2], [3]], np.int32)
ITEM_ROWS = np.array([[4, 8, 0], [5, 9, 10], [6, 11, 0], [7, 12, 8]], np.int32)


def test_events_are_joined_in_slot_order() -> None:
    encoder = Encoder(SCHEMA, USER_ROWS, ITEM_ROWS)
    user, item, context = np.array([2, 0, 2]), np.array([3, 1, 0]), np.array([[13, 37], [20, 38], [36, 46]], np.int32)
    expected = [[*USER_ROWS[u], *ITEM_ROWS[i], *c] for u, i, c in zip(user, item, context, strict=True)]
    features = encoder.encode(user, item, context)
    assert features.dtype == np.int32
    assert features.tolist() == expected
    assert features[:, SCHEMA.slot_range("tags")].tolist() == [[12, 8], [9, 10], [8, 0]]


def test_candidates_are_the_same_rows_as_events() -> None:
    encoder = Encoder(SCHEMA, USER_ROWS, ITEM_ROWS)
    items, context = np.array([2, 0, 3]), (15, 40)
    rows = encoder.candidates(1, items, context)
    assert rows.dtype == np.int32
    assert rows.tolist() == encoder.encode(np.full(3, 1), items, np.tile(np.array(context, np.int32), (3, 1))).tolist()


def test_no_candidates_are_no_rows() -> None:
    assert Encoder(SCHEMA, USER_ROWS, ITEM_ROWS).candidates(0, np.array([], np.int64), (15, 40)).shape == (0, 6)


def test_rows_must_fit_the_schema() -> None:
    with pytest.raises(AssertionError):
        Encoder(SCHEMA, USER_ROWS, ITEM_ROWS[:, :2])
    disordered = Schema((Field("item", "item", 4), Field("user", "user", 3)))
    with pytest.raises(AssertionError):
        Encoder(disordered, USER_ROWS, ITEM_ROWS[:, :1])
