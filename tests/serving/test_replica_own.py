"""Modules of the user's in a replica: served like any arm where they are allowed, and never imported where not."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from protos.recommender_pb2 import RecommendRequest
from serving.codec import slate_of
from serving.replica.generation import Generation, Refused
from simulator.models.engines import Engines
from simulator.models.factories import ALLOWED
from simulator.models.ranker import Rankers
from simulator.models.specs import parse_arms
from simulator.store.arrays import label
from tests.serving.generations import CONFIG, RECENT, WORLD, plain_scores, publish_generation
from tests.serving.replica_under_test import Asking, best_first, running, wait_for, wait_for_generation
from tests.store.memory_store import MemoryStore
from trainer import publish

FACTORY = "tests.models.own_modules:make"
ARMS = ("relu", f"torch:{FACTORY},relu=smelu:beta=1", f"torch:{FACTORY},width=4,lr=0.05")
QUERY = RecommendRequest(user=3, arm="relu")
RUN = MemoryStore(1).run
About = dict[str, Any]


def engines_of(arms: tuple[str, ...] = ARMS, chunks: int = 1) -> Engines:
    """Arms that have learned so many small chunks."""
    config = replace(CONFIG, arms=arms, model=replace(CONFIG.model, batch=32))
    engines = Engines(WORLD.schema, parse_arms(arms), config, threads=1)
    for chunk in WORLD.batches(engines.chunk_events, 0, chunks * engines.chunk_events):
        engines.learn(chunk)
    return engines


def parts_and_about(engines: Engines, generation: int) -> tuple[dict[str, bytes], About]:
    """As a trainer publishes them."""
    cut = {"generation": generation, "events": 100, "published": 1_000.0 + generation, "quality": {}}
    arms = tuple(engine.arm.label for engine in engines.engines)
    config = replace(CONFIG, arms=arms)
    parts = publish.parts(engines, config, WORLD, RECENT, RUN, generation)
    return parts, publish.about(engines, config, WORLD, cut)


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas may import the module of the tests."""
    monkeypatch.setenv(ALLOWED, f"elsewhere:make,{FACTORY}")


@pytest.mark.usefixtures("allowed")
def test_modules_are_served_beside_the_built_in_model_with_the_scores_of_the_engine() -> None:
    store, stacks = MemoryStore(1_000), [engines_of(chunks=chunks) for chunks in (1, 2)]
    assert [engine.name for engine in stacks[0].engines][1:] == ["torch", "torch"]
    with running(store) as asking:
        for number, engines in enumerate(stacks):
            store.publish(number, *parts_and_about(engines, number))
            wait_for_generation(asking, number)
            for place, arm in enumerate(ARMS):
                for candidates in ([], [7, 2, 90]):
                    query = RecommendRequest(user=3, context=[1, 5, 0], arm=arm, candidates=candidates, score_all=True)
                    response = asking.ask(query)
                    who = response.answered_by
                    assert (who.arm, who.generation) == (arm, number)
                    items, expected = plain_scores(engines, place, who.duplicate, query)
                    scores = np.array(response.scored.scores, np.float32)
                    np.testing.assert_array_equal(response.scored.items, items)
                    # a module of the user's is one code path: equal to the last bit
                    np.testing.assert_allclose(scores, expected, rtol=0, atol=0 if place else 2e-5)
                    assert slate_of(response).items.tolist() == best_first(scores, items)[:10]
        assert not any(reason for reason in ("module", "shape", "values") if refusals(asking, reason))


def refusals(asking: Asking, reason: str) -> float:
    """How many generations the replica refused for a reason."""
    return asking.metric("flicker_snapshots_refused_total", reason=reason)


def test_a_factory_that_is_not_allowed_is_refused_without_importing_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "planted.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED, f"planted:mak,{FACTORY}")
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    with running(store) as asking, caplog.at_level(logging.WARNING):
        wait_for_generation(asking, 0)
        expected = asking.ask(QUERY)
        parts, about = parts_and_about(engines_of(), 1)
        about |= {"specs": ["relu", "torch:planted:make,relu=smelu:beta=1", "torch:planted:make"]}
        store.publish(1, parts, about)
        wait_for(lambda: refusals(asking, "module") == 1)
        assert asking.ask(QUERY) == expected and asking.health() == 1
        assert asking.metric("flicker_generation") == 0
        publish_generation(store, 2)
        wait_for_generation(asking, 2)
    assert "planted" not in sys.modules
    (line,) = [message for message in caplog.messages if "refused" in message]
    assert line.startswith("generation 1 refused: arms = torch:planted:make: not among the factories that may be")
    assert "\n" not in line and line.endswith("add it to FLICKER_MODELS if you trust it")


def change(arm: int, **entries: Any) -> Callable[[About], About]:
    """Of the announced identity of an arm's module."""

    def changed(about: About) -> About:
        modules = list(about["modules"])
        modules[arm] = modules[arm] | entries
        return about | {"modules": modules}

    return changed


def put(arm: int, value: Any) -> Callable[[About], About]:
    """In the place of what was announced of an arm's module."""
    return lambda about: about | {"modules": [value if at == arm else m for at, m in enumerate(about["modules"])]}


EDITED: dict[str, tuple[str, str, Callable[[About], About]]] = {
    "source": ("module", "taught with another source (000", change(1, source="0" * 64)),
    "torch": ("module", "taught with another version of PyTorch (0.1, here", change(2, torch="0.1")),
    "states": ("module", "taught with other parameters (", change(1, states={})),
    "states that are none": ("module", "taught with other parameters (none announced)", change(1, states=[1])),
    "another width": (
        "module",
        "taught with other parameters (",
        lambda about: about | {"specs": [*about["specs"][:2], f"torch:{FACTORY},width=5"]},
    ),
    "an option that it does not know": (
        "module",
        "got an unexpected keyword argument 'widht'",
        lambda about: about | {"specs": [*about["specs"][:2], f"torch:{FACTORY},widht=5"]},
    ),
    "no identity": ("module", "taught with another source (None, here", put(1, {})),
    "no module": ("module", "taught with another source (None, here", put(2, None)),
    "an identity that is a word": ("about", "cannot be used", put(1, "x")),
    "an identity that is a list": ("about", "cannot be used", put(2, [1])),
    "one identity too few": ("about", "cannot be used", lambda about: about | {"modules": about["modules"][:2]}),
    "none at all": ("about", "cannot be used", lambda about: {k: v for k, v in about.items() if k != "modules"}),
}


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, bytes], About]:
    """A generation."""
    return parts_and_about(engines_of(), 0)


def taken(parts: dict[str, bytes], about: About) -> Generation:
    """What a replica makes of it. Raises Refused."""
    weights, catalog = bytearray(parts["duplicate/0"]), bytearray(parts["catalog"])
    return Generation.of(RUN, 0, 0, "a", about, weights, catalog, Rankers())


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("edit", EDITED)
def test_what_was_taught_with_another_module_is_refused(edit: str, made: tuple[dict[str, bytes], About]) -> None:
    parts, about = made
    assert [ranker.name for ranker in taken(parts, about).rankers][1:] == ["torch", "torch"]
    reason, words, edited = EDITED[edit]
    with pytest.raises(Refused) as refused:
        taken(parts, edited(about))
    assert refused.value.reason == reason and words in str(refused.value) and "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Asking, MemoryStore]]:
    """A replica with modules and its store: each test publishes a newer generation that must change nothing."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(ALLOWED, FACTORY)
        store = MemoryStore(1_000)
        store.publish(0, *parts_and_about(engines_of(), 0))
        with running(store) as asking:
            wait_for_generation(asking, 0)
            yield asking, store


@pytest.mark.parametrize("edit", ["source", "an identity that is a word"])
def test_a_replica_goes_on_with_the_generation_before(
    edit: str,
    served: tuple[Asking, MemoryStore],
    made: tuple[dict[str, bytes], About],
    caplog: pytest.LogCaptureFixture,
) -> None:
    asking, store = served
    reason, _, edited = EDITED[edit]
    before, query = refusals(asking, reason), RecommendRequest(user=3, arm=ARMS[1])
    expected, number = asking.ask(query), store.newest() + 1
    with caplog.at_level(logging.WARNING):
        labelled = {
            name: safetensors.torch.save(safetensors.torch.load(part), label(RUN, number, name))
            for name, part in made[0].items()
        }
        store.publish(number, labelled, edited(made[1]) | {"generation": number})
        wait_for(lambda: refusals(asking, reason) == before + 1)
    assert asking.ask(query) == expected and asking.health() == 1
    assert [message for message in caplog.messages if "refused" in message] == caplog.messages
    assert len(caplog.messages) == 1


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("damage", ["missing", "shape", "dtype", "nan"])
def test_tensors_that_are_not_as_announced_are_refused(damage: str, made: tuple[dict[str, bytes], About]) -> None:
    tensors = safetensors.torch.load(made[0]["duplicate/0"])
    weight = tensors.pop("1.first.weight")
    changed = {"shape": weight[:-1], "dtype": weight.double(), "nan": weight * torch.nan}
    tensors |= {"1.first.weight": changed[damage].contiguous()} if damage in changed else {}
    with pytest.raises(Refused, match="first.weight") as refused:
        taken(made[0] | {"duplicate/0": safetensors.torch.save(tensors, label(RUN, 0, "duplicate/0"))}, made[1])
    assert refused.value.reason == ("values" if damage == "nan" else "shape")


BUFFERS = """
import torch
from torch import nn
from tests.models.own_modules import Plain


def make(schema):
    model = Plain(schema, 4)
    model.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    for number, dtype in enumerate((torch.bool, torch.int8, torch.int16, torch.int32, torch.float16, torch.float64)):
        model.register_buffer(f"kept{number}", torch.ones(2).to(dtype))
    return model
"""


def test_buffers_of_every_kind_are_served_infinite_ones_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of minus infinity is usual in attention."""
    (tmp_path / "own_with_buffers.py").write_text(BUFFERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED, "own_with_buffers:make")
    parts, about = parts_and_about(engines_of(("torch:own_with_buffers:make",), 1), 0)
    (ranker,) = taken(parts, about).rankers
    own = dict(ranker._module.named_buffers())  # type: ignore[attr-defined]
    assert own["mask"].isinf().any() and {str(t.dtype) for t in own.values()} >= {"torch.int8", "torch.float16"}
