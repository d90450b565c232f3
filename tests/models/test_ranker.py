"""The serving path: threads, memory that is used again, and what it refuses. Its scores: see test_engines.py."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from simulator.config import ModelConfig, SyntheticConfig
from simulator.models import native_engine
from simulator.models.engine import Engine
from simulator.models.factories import ALLOWED
from simulator.models.ranker import Ranker, Rankers, Recycled
from simulator.types import Field, Floats, Query, Schema, slate
from simulator.world.features import Encoder
from simulator.world.stream import SyntheticWorld
from tests.models.conftest import ENGINES, NATIVE, NO_KERNELS, ODD, OWN, TORCH, Kind, make_engine

TOLERANCE = 2e-5
"""Of log-odds: sums in another order."""
WORLD = SyntheticWorld(SyntheticConfig(events=1_000, users=50, items=60), seed=3)
QUERIES = WORLD.queries(8, 20, 700, "test")
ROWS = WORLD.encoder.user_rows, WORLD.encoder.item_rows


def trained(kind: Kind, spec: str = "smelu") -> Engine:
    """Two duplicates whose parameters are all away from their start (zeros and ones hide mistakes)."""
    engine = make_engine(kind, spec, schema=WORLD.schema, model=ModelConfig(dim=4, hidden=(12, 6)))
    draws = torch.Generator().manual_seed(1)
    for name, tensor in sorted(engine.weights.tensors.items()):
        if tensor.is_floating_point():
            moved = tensor[:, 1:] if name == "table" else tensor
            moved += 0.3 * torch.randn(moved.shape, generator=draws).to(moved)
    return engine


@pytest.fixture(autouse=True)
def may_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of the tests."""
    monkeypatch.setenv(ALLOWED, ",".join(f"tests.models.own_modules:{kind.factory}" for kind in (OWN, ODD)))


def ranker(engine: Engine, make: Rankers) -> Ranker:
    return make(
        WORLD.schema, engine.arm.function, engine.name, engine.model, engine.published(0), *ROWS, engine.identity
    )


def scores(ranker: Ranker, queries: list[Query] = QUERIES) -> Floats:
    users, contexts = np.array([q.user for q in queries]), np.array([q.context for q in queries], np.int32)
    return ranker.scores(users, contexts, np.stack([q.candidates for q in queries]))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("spec", ["relu", "gsmelu:alpha=1,beta=2", "linear"])
def test_slates_are_those_of_the_whole_network(kind: Kind, spec: str) -> None:
    engine = trained(kind, spec)
    plain, found = engine.score_queries(QUERIES)[0], scores(ranker(engine, Rankers(kind.device)))
    np.testing.assert_allclose(found, plain, rtol=0, atol=TOLERANCE)
    for query, ours, theirs in zip(QUERIES, found, plain, strict=True):
        slates = [slate(each, query.candidates, 10).items.tolist() for each in (ours, theirs)]
        assert slates[0] == slates[1]


@pytest.mark.parametrize("kind", ENGINES)
def test_threads_that_score_at_once_do_not_disturb_one_another(kind: Kind) -> None:
    shared = [ranker(trained(kind, spec), Rankers(kind.device)) for spec in ("smelu", "relu")]
    parts = [QUERIES[start::4] for start in range(4)]
    alone = [[scores(each, part) for part in parts] for each in shared]

    def ask(number: int) -> bool:
        arm, part = number % 2, number % 4
        return all(np.array_equal(scores(shared[arm], parts[part]), alone[arm][part]) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(16)))


@pytest.mark.parametrize("kind", ENGINES)
def test_a_generation_in_the_memory_of_an_older_one_changes_none_that_lives(kind: Kind) -> None:
    make, engine = Rankers(kind.device), trained(kind)

    def next_one() -> Ranker:
        for tensor in (each for each in engine.weights.tensors.values() if each.is_floating_point()):
            tensor.mul_(1.01)
        return ranker(engine, make)

    kept = [next_one(), next_one()]
    expected = [scores(one) for one in kept]
    for _ in range(4):
        kept.append(next_one())
        expected.append(engine.score_queries(QUERIES)[0])
        for one, known in zip(kept, expected, strict=True):
            np.testing.assert_allclose(scores(one), known, rtol=0, atol=TOLERANCE)
        del kept[0], expected[0]


def test_memory_is_used_again_once_no_view_of_it_is_left() -> None:
    empty = Recycled()
    first = empty(3, 4)
    place, row = first.data_ptr(), first[1]
    del first
    second = empty(3, 4)
    assert second.data_ptr() != place  # a row of it is still there
    del row
    assert empty(5, 5).shape == (5, 5)  # of another size: the free one waits for who fits
    again = empty(4, 3)
    assert again.data_ptr() == place and again.shape == (4, 3)
    del again
    empty.release()
    assert not empty._free


@pytest.mark.parametrize("kind", ENGINES)
def test_another_shape_is_refused(kind: Kind) -> None:
    engine = trained(kind)
    tensors: dict[str, Tensor] = engine.published(0)
    name = "tables.user.weight" if kind.factory else "table"
    for damaged in (tensors | {name: tensors[name][:-1]}, {n: t for n, t in tensors.items() if n != name}):
        with pytest.raises(ValueError, match=name):
            Rankers(kind.device)(
                WORLD.schema, engine.arm.function, engine.name, engine.model, damaged, *ROWS, engine.identity
            )


@NO_KERNELS
def test_without_the_engine_that_taught_it_pytorch_scores_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = trained(NATIVE)
    native = ranker(engine, Rankers())
    monkeypatch.setattr(native_engine, "missing", lambda: "nothing was built")
    make = Rankers()
    with caplog.at_level(logging.WARNING, "ranker"):
        found = [ranker(engine, make) for _ in range(3)][-1]
    assert (native.name, found.name) == ("native", "torch")
    assert caplog.messages == ["smelu was taught by the native engine and is scored by PyTorch here: nothing was built"]
    np.testing.assert_allclose(scores(found), scores(native), rtol=0, atol=TOLERANCE)
    assert ranker(trained(TORCH), make).name == "torch"


@pytest.mark.parametrize("kind", ENGINES)
def test_a_world_without_context_is_served_too(kind: Kind) -> None:
    schema = Schema((Field("user", "user", 5), Field("item", "item", 7), Field("tags", "item", 3, slots=2)))
    rng = np.random.default_rng(0)
    users = np.arange(1, 6, dtype=np.int32)[:, None]
    items = np.column_stack([np.arange(6, 13), rng.integers(13, 16, 7), np.zeros(7)]).astype(np.int32)
    encoder = Encoder(schema, users, items)
    engine = make_engine(kind, schema=schema, model=ModelConfig(dim=4, hidden=(6,)))
    arm = engine.arm.function, engine.name, engine.model, engine.published(0)
    served = Rankers(kind.device)(schema, *arm, users, items, engine.identity)
    asked, candidates = np.array([0, 4]), np.array([[0, 3, 6], [1, 2, 5]])
    nothing = np.empty((2, 0), np.int32)
    rows = [encoder.candidates(int(user), own, ()) for user, own in zip(asked, candidates, strict=True)]
    plain = np.stack([engine.score_events(each)[0] for each in rows])
    np.testing.assert_allclose(served.scores(asked, nothing, candidates), plain, rtol=0, atol=TOLERANCE)
