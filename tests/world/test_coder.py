"""Texts as numbers: by native code and by pyarrow alone, as a dictionary would number them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.native.loader import NativeMissing, library
from simulator.world import values as module
from simulator.world.values import Coder, NativeCoder, PlainCoder, make_coder

TEXT = st.none() | st.text(st.sampled_from("ab\0üñ😀"), max_size=40)


@pytest.fixture(params=[NativeCoder, PlainCoder], scope="module")
def kind(request: pytest.FixtureRequest) -> Any:
    if request.param is NativeCoder:
        try:
            library()
        except NativeMissing as problem:
            pytest.skip(str(problem))
    return request.param


def check(coder: Coder, batches: list[pa.StringArray]) -> None:
    """The numbers and the texts are those of a dictionary."""
    numbers: dict[str, int] = {}
    expected = [
        numbers.setdefault(text, len(numbers)) if text else -1 for batch in batches for text in batch.to_pylist()
    ]
    found = np.concatenate([*(coder.code(batch) for batch in batches), coder.rest()])
    assert found.dtype == np.int32 and found.tolist() == expected
    assert coder.texts().to_pylist() == list(numbers)


@given(batches=st.lists(st.lists(TEXT, max_size=20), max_size=6), first=st.integers(0, 3))
def test_any_texts_are_numbered_by_first_appearance(kind: Any, batches: list[list[str | None]], first: int) -> None:
    check(kind(), [pa.array(batch, pa.string()).slice(first) for batch in batches])


def test_many_distinct_texts_of_every_length(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 20_000)
    draws = np.random.default_rng(0)
    texts = ["x" * (n % 37) + str(n * n) for n in range(60_000)]
    batches = [[texts[n] for n in draws.integers(0, len(texts), 7_000)] for _ in range(30)]
    check(kind(), [pa.array(batch) for batch in batches])


def test_texts_that_hardly_differ_keep_their_own_numbers(kind: Any) -> None:
    """One byte at each place of each length, so that no part of a text is left out of what tells it apart."""
    texts = [f"{'a' * place}b{'a' * (size - place - 1)}" for size in range(1, 40) for place in range(size)]
    check(kind(), [pa.array([*texts, *reversed(texts)])])


def test_without_a_library_pyarrow_alone_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NativeMissing("no library")

    monkeypatch.setattr(module, "library", missing)
    assert isinstance(make_coder(), PlainCoder) and isinstance(make_coder(native=False), PlainCoder)
