"""Generations that come while queries do: swapped without a pause, refused where they are not whole."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from protos.recommender_pb2 import RankResponse, RecommendRequest, RecommendResponse
from serving.codec import Refusal
from serving.replica.generation import Generation, Refused, Shelf
from simulator.models.ranker import Rankers
from simulator.store.protocol import Member, StoreAway
from tests.serving.generations import WORLD, about_of, parts_of, publish_generation, stack_of
from tests.serving.replica_under_test import Asking, Loading, put_gate, running, wait_for, wait_for_generation
from tests.store.memory_store import MemoryStore

Parts, About = dict[str, bytes], dict[str, Any]
STACK = stack_of(1)
QUERY = RecommendRequest(user=3, arm="relu")


def test_no_query_fails_while_generations_are_swapped() -> None:
    store, last = MemoryStore(1_000), 12
    stacks = [stack_of(number) for number in range(last + 1)]
    publish_generation(store, 0, stacks[0])
    with running(store) as asking:
        wait_for_generation(asking, 0)
        stop, seen = threading.Event(), [list[RankResponse]() for _ in range(3)]

        def ask(responses: list[RankResponse]) -> None:
            while not stop.is_set():
                responses.append(asking.rank(QUERY, RecommendRequest(user=9, arm="smelu:beta=1")))

        clients = [threading.Thread(target=ask, args=(responses,)) for responses in seen]
        for client in clients:
            client.start()
        try:
            for number in range(1, last + 1):
                publish_generation(store, number, stacks[number])
                wait_for(lambda number=number: asking.metric("flicker_generation") == number)
        finally:
            stop.set()
            for client in clients:
                client.join(20)
    for responses in seen:
        assert not any(response.failures for response in responses)
        served = [RecommendResponse.FromString(r.answers[0]).answered_by.generation for r in responses]
        assert served == sorted(served) and len(set(served)) > 1
    assert asking.metric("flicker_refreshes_total") == last + 1


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def label_of(part: bytes) -> dict[str, str]:
    return dict(json.loads(part[8 : 8 + int.from_bytes(part[:8], "little")])["__metadata__"])


def with_weights(parts: Parts, change: Callable[[dict[str, torch.Tensor]], Any]) -> Parts:
    tensors = safetensors.torch.load(parts["duplicate/0"])
    change(tensors)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return parts | {"duplicate/0": safetensors.torch.save(whole, label_of(parts["duplicate/0"]))}


def with_catalog(parts: Parts, **tables: Callable[[np.ndarray], np.ndarray]) -> Parts:
    found = safetensors.numpy.load(parts["catalog"])
    changed = {name: np.ascontiguousarray(tables.get(name, np.copy)(table)) for name, table in found.items()}
    return parts | {"catalog": safetensors.numpy.save(changed, label_of(parts["catalog"]))}


def filled(value: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda table: np.full_like(table, value)


DAMAGES: dict[str, tuple[str, Callable[[Parts, About], tuple[Parts, About]]]] = {
    "truncated": ("format", lambda p, a: (p | {"duplicate/0": p["duplicate/0"][:-7]}, a)),
    "empty": ("format", lambda p, a: (p | {"duplicate/0": b""}, a)),
    "catalog truncated": ("format", lambda p, a: (p | {"catalog": p["catalog"][:-7]}, a)),
    "header flipped": ("format", lambda p, a: (p | {"duplicate/0": flip(p["duplicate/0"], 9)}, a)),
    "another generation's weights": (
        "label",
        lambda p, a: (p | {"duplicate/0": parts_of(STACK, a["generation"] - 1)["duplicate/0"]}, a),
    ),
    "another generation's catalogue": (
        "label",
        lambda p, a: (p | {"catalog": parts_of(STACK, a["generation"] + 1)["catalog"]}, a),
    ),
    "another run": ("label", lambda p, a: (parts_of(STACK, a["generation"], "other"), a)),
    "another duplicate": ("label", lambda p, a: (p | {"duplicate/0": p["duplicate/1"]}, a)),
    "no label": (
        "label",
        lambda p, a: (p | {"duplicate/0": safetensors.torch.save(safetensors.torch.load(p["duplicate/0"]))}, a),
    ),
    "no part": ("digest", lambda p, a: ({"catalog": p["catalog"]}, a)),
    "fewer rows": (
        "shape",
        lambda p, a: (with_weights(p, lambda t: t.update({"1.table": t["1.table"][:-1]})), a),
    ),
    "no dense": ("shape", lambda p, a: (with_weights(p, lambda t: t.pop("1.dense")), a)),
    "doubles": ("shape", lambda p, a: (with_weights(p, lambda t: t.update({"1.dense": t["1.dense"].double()})), a)),
    "diverged": ("values", lambda p, a: (with_weights(p, lambda t: t["1.dense"].fill_(torch.nan)), a)),
    "collapsed": ("values", lambda p, a: (with_weights(p, lambda t: t["1.dense"].zero_()), a)),
    "overflow": ("values", lambda p, a: (with_weights(p, lambda t: t["1.dense"].fill_(3e38)), a)),
    "another width": ("shape", lambda p, a: (p, a | {"models": [m | {"hidden": [12, 7]} for m in a["models"]]})),
    "no models": ("about", lambda p, a: (p, {k: v for k, v in a.items() if k != "models"})),
    "unknown engine": ("about", lambda p, a: (p, a | {"engines": ["native", "steam"]})),
    "an engine is missing": ("about", lambda p, a: (p, a | {"engines": ["native"]})),
    "unknown activation": ("about", lambda p, a: (p, a | {"specs": ["relu", "rely"]})),
    "no duplicates": ("about", lambda p, a: (p, a | {"duplicates": 0})),
    "arm without spec": ("about", lambda p, a: (p, a | {"arms": ["relu"]})),
    "published at no time": ("about", lambda p, a: (p, a | {"published": float("nan")})),
    "published never": ("about", lambda p, a: (p, a | {"published": "today"})),
    "user column": ("shape", lambda p, a: (with_catalog(p, user_rows=lambda t: t[:, :-1]), a)),
    "segments short": ("shape", lambda p, a: (with_catalog(p, segment=lambda t: t[:-1]), a)),
    "row out of table": ("values", lambda p, a: (with_catalog(p, item_rows=filled(10**6)), a)),
    "segment unknown": ("values", lambda p, a: (with_catalog(p, segment=filled(99)), a)),
    "item unknown": ("values", lambda p, a: (with_catalog(p, candidates=lambda t: t + WORLD.items), a)),
    "item twice": ("values", lambda p, a: (with_catalog(p, candidates=filled(3)), a)),
    "negative item": ("values", lambda p, a: (with_catalog(p, candidates=lambda t: t - WORLD.items), a)),
    "no candidates": ("shape", lambda p, a: (with_catalog(p, candidates=lambda t: t[:, :0]), a)),
    "other world": ("shape", lambda p, a: (with_catalog(p, user_rows=lambda t: t[:9], segment=lambda t: t[:10]), a)),
}


@pytest.fixture(scope="module")
def served():  # type: ignore[no-untyped-def]
    """A replica and its store, kept over all damages: each is a newer generation that must change nothing."""
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    with running(store) as asking:
        wait_for_generation(asking, 0)
        yield asking, store


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_refused_and_counted(served: tuple[Asking, MemoryStore], damage: str) -> None:
    asking, store = served
    reason, change = DAMAGES[damage]
    before, expected = asking.metric("flicker_snapshots_refused_total", reason=reason), asking.ask(QUERY)
    number = store.newest() + 1
    store.publish(number, *change(parts_of(STACK, number), about_of(STACK, number)))
    wait_for(lambda: asking.metric("flicker_snapshots_refused_total", reason=reason) == before + 1)
    assert asking.ask(QUERY) == expected and asking.health() == 1
    assert asking.metric("flicker_generation") == 0


def test_a_whole_one_is_taken_after_a_refused_one() -> None:
    store = MemoryStore(1_000)
    with running(store) as asking:
        damaged = {"duplicate/0": b"no"}
        store.publish(0, parts_of(STACK, 0) | damaged, about_of(STACK, 0))
        wait_for(lambda: asking.metric("flicker_snapshots_refused_total", reason="format") >= 1)
        assert asking.health() == 2
        publish_generation(store, 1)
        wait_for_generation(asking, 1)
        store.publish(2, parts_of(STACK, 2) | damaged, about_of(STACK, 2))
        wait_for(lambda: asking.metric("flicker_snapshots_refused_total", reason="format") >= 2)
        publish_generation(store, 3)
        wait_for_generation(asking, 3)
        assert asking.ask(RecommendRequest(arm="relu", generation=1)).answered_by.generation == 1


def test_a_replica_that_starts_takes_an_older_generation_than_a_damaged_one() -> None:
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    publish_generation(store, 1)
    store.publish(2, parts_of(STACK, 2) | {"duplicate/0": b"no"}, about_of(STACK, 2))
    one = Loading(store)
    assert [one.refresh() for _ in range(3)] == [1, 1, 1]
    assert one.refused() == {"format": 1}
    publish_generation(store, 3)
    assert one.refresh() == 3


def test_a_refused_generation_of_a_store_that_starts_anew_is_counted_once() -> None:
    store = MemoryStore(1_000)
    store.publish(9, {}, about_of(STACK, 9))
    one = Loading(store)
    assert one.refresh() == -1
    store._manifests.clear()
    store.publish(2, {}, about_of(STACK, 2))
    assert [one.refresh() for _ in range(3)] == [-1, -1, -1]
    assert one.refused() == {"digest": 2}


def test_a_replica_that_takes_another_duplicate_takes_an_older_generation_than_a_damaged_one() -> None:
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    one = Loading(store)
    assert one.refresh() == 0
    store.publish(1, parts_of(STACK, 1) | {"catalog": b"no"}, about_of(STACK, 1))
    assert one.refresh() == 0
    one.lease.duplicate = 1
    assert [one.refresh() for _ in range(3)] == [0, 0, 0]
    assert one.shelf.find(0).duplicate == 1
    assert one.refused() == {"format": 2}  # once as either duplicate


def test_a_fault_of_ours_is_counted_and_does_not_stop_the_next_one() -> None:
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    one = Loading(store)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Generation, "of", lambda *arguments: 1 // 0)
        assert [one.refresh() for _ in range(3)] == [-1, -1, -1]
    assert one.refused() == {"unexpected": 1}
    publish_generation(store, 1)
    assert one.refresh() == 1


def test_a_flipped_weight_that_still_loads_would_be_served() -> None:
    """Why the store's digest matters: nothing else can see such a flip (see test_replica_process)."""
    parts, about = parts_of(STACK, 0), about_of(STACK, 0)
    weights = bytearray(flip(parts["duplicate/0"], len(parts["duplicate/0"]) - 200))
    Generation.of("default", 0, 0, "a", about, weights, bytearray(parts["catalog"]), Rankers())
    with pytest.raises(Refused, match="damaged or truncated"):
        Generation.of("default", 0, 0, "a", about, weights[:-1], bytearray(parts["catalog"]), Rankers())


def test_replicas_take_different_duplicates_and_share_when_they_must() -> None:
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    with running(store, "a") as a, running(store, "b") as b, running(store, "c") as c, running(store, "d") as d:
        every = [a, b, c, d]
        for asking in every:
            wait_for_generation(asking, 0)
        held = [asking.ask(QUERY).answered_by.duplicate for asking in every]
        assert sorted(set(held)) == [0, 1, 2]
        assert sorted(m.duplicate for m in store.members()) == sorted(held)


def test_a_shared_number_is_left_when_another_is_free() -> None:
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    assert [store.claim(name, 3, 60) for name in ("0-dead", "1-dead", "2-alive")] == [0, 1, 2]
    for number, name in enumerate(("0-dead", "1-dead", "2-alive")):
        store.announce(Member(name, "127.0.0.1:1", number, 0), 60)
    with running(store, "b") as asking:
        wait_for_generation(asking, 0)
        assert asking.ask(QUERY).answered_by.duplicate == 0
        store.release("1-dead")
        wait_for(lambda: asking.ask(QUERY).answered_by.duplicate == 1)
        with_old_number = asking.rank(RecommendRequest(arm="relu", duplicate=0)).failures[0]
        assert (with_old_number.code, with_old_number.message) == (9, "duplicate = 0: here is 1")
        wait_for(lambda: ("b", 1) in [(m.name, m.duplicate) for m in store.members()])


def test_a_generation_of_another_duplicate_is_not_kept() -> None:
    """It would pass for the same duplicate before its refresh."""
    shelf = Shelf()
    for number, duplicate in ((0, 0), (1, 1), (2, 1)):
        parts, about = parts_of(STACK, number), about_of(STACK, number)
        weights, catalog = bytearray(parts[f"duplicate/{duplicate}"]), bytearray(parts["catalog"])
        shelf.put(Generation.of("default", number, duplicate, "a", about, weights, catalog, Rankers()))
        if number == 1:
            with pytest.raises(Refusal, match="^generation = 0: here are 1$"):
                shelf.find(0)
    assert [shelf.find(number).duplicate for number in (1, 2)] == [1, 1]


class Counting(MemoryStore):
    """A store that counts how often it is asked for news."""

    asked = 0

    def wait_newer(self, than: int, wait: float) -> int:
        self.asked += 1
        return super().wait_newer(than, wait)


def test_a_refused_generation_is_not_asked_for_over_and_over() -> None:
    store = Counting(1_000)
    publish_generation(store, 0)
    with running(store) as asking:
        wait_for_generation(asking, 0)
        store.publish(1, parts_of(STACK, 1) | {"duplicate/0": b"no"}, about_of(STACK, 1))
        wait_for(lambda: asking.metric("flicker_snapshots_refused_total", reason="format") == 1)
        before = store.asked
        for _ in range(100):
            asking.ask(QUERY)
        assert store.asked - before < 20
        assert asking.metric("flicker_snapshots_refused_total", reason="format") == 1


class Leaving(MemoryStore):
    """A store that can be away."""

    away = False

    def wait_newer(self, than: int, wait: float) -> int:
        self._look()
        return super().wait_newer(than, wait)

    def fetch(self, generation: int, part: str) -> bytearray:
        self._look()
        return super().fetch(generation, part)

    def announce(self, member: Member, seconds: float) -> None:
        self._look()
        super().announce(member, seconds)

    def _look(self) -> None:
        if self.away:
            raise StoreAway("the store cannot be reached")


def test_while_the_store_is_away_queries_are_answered() -> None:
    store = Leaving(1_000)
    publish_generation(store, 0)
    with running(store) as asking:
        wait_for_generation(asking, 0)
        store.away = True
        expected = asking.ask(QUERY)
        publish_generation(store, 1)
        for _ in range(20):
            assert asking.ask(QUERY) == expected
        assert asking.health() == 1
        store.away = False
        wait_for_generation(asking, 1)


def test_a_store_that_starts_anew_is_followed() -> None:
    store = MemoryStore(1_000)
    publish_generation(store, 7)
    with running(store) as asking:
        wait_for_generation(asking, 7)
        with store._changed:
            store._manifests.clear()
            store._parts.clear()
        assert asking.ask(QUERY).answered_by.generation == 7
        publish_generation(store, 2)
        wait_for_generation(asking, 2)


def test_nothing_that_was_asked_keeps_an_old_generation_in_memory() -> None:
    """Not even until the next garbage collection: replicas use its memory again."""
    store = MemoryStore(1_000)
    publish_generation(store, 0)
    gc.collect()
    gc.disable()
    try:
        with running(store, queue=2) as asking:
            wait_for_generation(asking, 0)
            asking.ask(QUERY)
            asking.refused(RecommendRequest(arm="relu", generation=7))
            old = [weakref.ref(asking.replica.shelf.current)]
            gate = put_gate(asking.replica)
            old.append(weakref.ref(asking.replica.shelf.current))
            with ThreadPoolExecutor(2) as others:
                first = others.submit(asking.ask, QUERY)
                assert gate.reached.wait(10)
                most = others.submit(asking.rank, QUERY, QUERY, QUERY)  # for one of them there is no room
                wait_for(lambda: len(asking.replica.queue) == 2)
                with pytest.raises(grpc.RpcError, match="full"):
                    asking.rank(QUERY)
                gate.open.set()
                assert first.result(10) and len(most.result(10).failures) == 1
            assert all(one() is not None for one in old)
            for number in (1, 2):
                publish_generation(store, number)
                wait_for_generation(asking, number)
            wait_for(lambda: all(one() is None for one in old))
    finally:
        gc.enable()
