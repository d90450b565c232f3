"""The small form of `make fuzz`."""

from __future__ import annotations

import logging

import pytest

from tests.fuzz.generations import fuzz

HARMLESS = ("reorder", "twice", "edit", "part", "json")
"""What may leave the content as it was: another order, bytes behind the last array, the same letter or value again."""


def test_nothing_mutated_is_served_and_something_good_is(caplog: pytest.LogCaptureFixture) -> None:
    refused, taken = fuzz(100, seed=1)
    assert set(refused) == {"digest", "label"}
    assert taken["reorder"] and not [kind for kind in taken if taken[kind] and kind not in HARMLESS]
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
