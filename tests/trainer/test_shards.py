"""Several trainers that share the duplicates: the same to the last bit as one, whatever happens to them."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import FlickerError, ResultError, SettingError
from simulator.models.factories import ALLOWED
from simulator.process import Stopped
from simulator.store.protocol import Shard, Store, StoreAway, StoreError
from simulator.store.redis import open_store
from simulator.store.server import StoreServer
from tests.store.memory_store import MemoryStore
from tests.trainer.conftest import Reference
from tests.trainer.small_trainer import (
    ARGUMENTS,
    CHUNK,
    CHUNKS,
    CONFIG,
    GENERATION,
    GENERATIONS,
    OWN_CONFIG,
    OWN_FACTORY,
    PATIENCE,
    Running,
    announced,
    published,
    running,
    saved,
    wait_for,
)
from tests.trainer.test_killed import ROOT, Launch
from tests.trainer.test_killed import launch as launch
from tests.trainer.test_killed import server as server
from trainer import loop
from trainer.lease import Lease, parse_shard
from trainer.progressive import Scores
from trainer.publish import joined

TWO = Shard(0, 2).all


@contextlib.contextmanager
def all_of(store: Store, path: Path, count: int, **settings: Any) -> Iterator[list[Running]]:
    """All shards, side by side in threads."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running(store, path / str(shard.number), shard=shard, **settings))
            for shard in Shard(0, count).all
        ]


def finish_all(store: Store, path: Path, count: int, **settings: Any) -> None:
    """Learn the whole world, from wherever the folders stand."""
    with all_of(store, path, count, **settings) as shards:
        for one in shards:
            one.learn(CHUNKS * CHUNK)
            one.wait_for(lambda: store.newest() == GENERATIONS)


def check(store: Store, path: Path, count: int, reference: Reference) -> None:
    """What is published, and said of it, is what one trainer publishes; no shard learned more or less than all."""
    assert published(store) == reference.parts
    assert announced(store) == reference.abouts
    for number in range(count):
        state = saved(path / str(number))[1]
        assert (state["events"], state["generation"]) == (CHUNKS * CHUNK, GENERATIONS)


@pytest.mark.parametrize("count", [2, 3])
def test_shards_publish_what_one_trainer_does(reference: Reference, tmp_path: Path, count: int) -> None:
    store = MemoryStore(10_000)
    finish_all(store, tmp_path, count)
    check(store, tmp_path, count, reference)


def test_shards_of_a_module_publish_what_one_trainer_does(
    own_reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOWED, OWN_FACTORY)
    store = MemoryStore(10_000)
    finish_all(store, tmp_path, 2, config=OWN_CONFIG)
    check(store, tmp_path, 2, own_reference)


def test_a_lost_shard_holds_up_the_generation_and_goes_on_where_it_was(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "AGAIN", 0.05)
    store, first, second = MemoryStore(2 * GENERATION), tmp_path / "0", tmp_path / "1"
    with running(store, first, shard=TWO[0]) as one:
        one.wait_for(lambda: one.metric("flicker_shards_missing") == 1)
        time.sleep(0.2)
        assert store.newest() == -1 and one.trainer.state.events == GENERATION, "it does not learn on"
        assert store.waiting() > GENERATION, "nothing is forgotten that the other has not learned"
        with running(store, second, shard=TWO[1]) as other:
            other.learn(3 * GENERATION)
        one.wait_for(lambda: one.metric("flicker_shards_missing") == 1)
        waited = one.metric("flicker_shards_wait_seconds_total")
        assert waited and waited > 0.2
    # stopped while it waited
    newest = store.newest()
    assert newest >= 2 and saved(first)[1]["generation"] in (newest, newest + 1)
    finish_all(store, tmp_path, 2)
    check(store, tmp_path, 2, reference)


MOMENTS = {
    "one has handed in, the other not": (
        ("simulator.store.redis:RedisStore._handed_in", 2),
        ("trainer.resume:StateFolder.save", 2),
    ),
    "one has uploaded half of its parts, the other has handed in": (
        ("simulator.store.parts:RedisParts.put", 3),
        ("simulator.store.redis:RedisStore._handed_in", 2),
    ),
    "both have handed in, and the last died before it announced": (
        ("simulator.store.redis:RedisStore._handed_in", 2),
        ("simulator.store.redis:RedisStore._handed_in", 2),
    ),
    "one has renamed half of its files, the other has begun to write": (
        ("fsspec.implementations.local:LocalFileSystem.mv", 3),
        ("fsspec.implementations.local:LocalFileSystem.open", 3),
    ),
    "one has not saved, the other has not cut": (
        ("trainer.resume:write_snapshot", 2),
        ("simulator.models.engines:Engines.learn", 3),
    ),
}
"""Where the first and the second of two trainers die at their second generation."""


@pytest.fixture(scope="module")
def killed(server: StoreServer, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The state folders of both, for each of the moments."""
    folders, ends = {name: tmp_path_factory.mktemp("killed") for name in MOMENTS}, []
    for run, (name, both) in enumerate(MOMENTS.items()):
        for shard, (where, count) in zip(TWO, both, strict=True):
            state = folders[name] / str(shard.number)
            wiring = f"--store {server.url} --run shards-{run} --state {state} --rate 5000 --shard {shard}".split()
            wiring += ["--weights", f"file://{folders[name]}/weights"] if "files" in name else []
            ends.append((where, count, wiring + ARGUMENTS))
    endings, errors = launch(ROOT / "tests/trainer/dying.py", json.dumps(ends)).communicate(timeout=2 * PATIENCE)
    assert json.loads(endings.splitlines()[-1]) == [-signal.SIGKILL] * len(ends), errors
    return folders


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(moment: str, server: StoreServer, killed: dict[str, Path], reference: Reference) -> None:
    run = f"shards-{list(MOMENTS).index(moment)}"
    weights = f"file://{killed[moment]}/weights" if "files" in moment else ""
    store = open_store(server.url, run=run, weights=weights)
    try:
        assert store.newest() == 1
        finish_all(store, killed[moment], 2, run=run)
        check(store, killed[moment], 2, reference)
        left = sorted(path.name for path in (killed[moment] / f"weights/{run}").glob("*/part/*"))
        assert left == (["3", "4", "5"] if weights else []), "nothing half-written either"
    finally:
        store.close()


def test_the_number_of_trainers_cannot_change(tmp_path: Path) -> None:
    store = MemoryStore(10_000)
    finish_all(store, tmp_path, 2)
    for shard in (Shard(0, 3), Shard()):
        with pytest.raises(StoreError, match="trainer-0-of-2 reads this log, beside which trainer.* cannot: start as"):
            with running(store, tmp_path / "new", shard=shard) as one:
                one.wait_for(lambda: False)
    with pytest.raises(ResultError, match="other settings .shard: 0/2 there, 1/2 here.: use the same ones"):
        with running(store, tmp_path / "0", shard=TWO[1]) as one:
            one.wait_for(lambda: False)


def test_shards_that_learn_something_else_are_told_so(tmp_path: Path) -> None:
    store = MemoryStore(10_000)
    other = replace(CONFIG, seed=CONFIG.seed + 1)
    with pytest.raises(StoreError, match="shard 1 learns something else than shard 0 .settings: .*the same settings"):
        with running(store, tmp_path / "0", shard=TWO[0]) as one:
            one.wait_for(lambda: one.metric("flicker_shards_missing") == 1)
            with running(store, tmp_path / "1", shard=TWO[1], config=other) as two:
                two.wait_for(lambda: False)


def test_what_no_duplicate_knows_is_not_known_of_all() -> None:
    def scores(*auc: float | None) -> Scores:
        return {"a": {"auc": list(auc)}}

    abouts = [{"scores": scores(0.5, 0.25), "published": 2.0}, {"scores": scores(0.75), "published": 1.0}]
    assert joined(abouts) == {"quality": {"a": {"auc": 0.5}}, "published": 2.0}
    abouts[1]["scores"] = scores(None)
    assert joined(abouts)["quality"] == {"a": {"auc": None}}


@pytest.mark.parametrize("text", ["", "2/2", "0/0", "-1/2", "1", "any", "any/0", "01/2", "0/2 ", "x/2"])
def test_a_shard_that_cannot_be(text: str) -> None:
    with pytest.raises(SettingError, match="^shard = .*: I/N, such as 0/2: I from 0 to N - 1, or any/N$"):
        parse_shard(text)


class Leased:
    """Trainers that ask for whichever shard is free."""

    def __init__(self, store: Store, seconds: float) -> None:
        self.store, self.seconds, self.stops, self.leases = store, seconds, list[threading.Event](), list[Lease]()

    def claim(self, count: int) -> Lease:
        self.stops.append(threading.Event())
        owner = f"trainer {len(self.stops)}"
        self.leases.append(Lease(self.store, count, self.stops[-1], lambda problem: None, self.seconds, owner))
        return self.leases[-1]


def test_each_takes_a_free_shard_and_keeps_it(tmp_path: Path) -> None:
    some = Leased(MemoryStore(10), 0.3)
    first, second = some.claim(2), some.claim(2)
    assert [first.shard, second.shard] == TWO
    waiting = threading.Thread(target=lambda: some.claim(2))
    waiting.start()
    time.sleep(0.5)  # longer than a lease
    assert len(some.leases) == 2
    first.check()
    first.release()
    waiting.join(PATIENCE)
    assert some.leases[2].shard == TWO[0]
    for lease in some.leases[1:]:
        lease.release()


def test_who_was_frozen_for_too_long_ends_without_saving(tmp_path: Path) -> None:
    some = Leased(MemoryStore(10_000), 0.3)
    frozen = some.claim(1)
    with pytest.raises(FlickerError, match="shard = 0/1: another trainer has taken it, since this one was not heard"):
        with running(MemoryStore(10_000), tmp_path, check_held=frozen.check) as one:
            one.learn(CHUNKS * CHUNK)
            with frozen._lock:  # its renewals stand still
                assert some.claim(1).shard == Shard()
            wait_for(some.stops[0].is_set)
            generation = one.trainer.state.generation
    assert saved(tmp_path)[1]["events"] == generation * GENERATION, "what it learned since was not saved"
    some.leases[1].check()
    for lease in some.leases:
        lease.release()


def test_processes_take_the_free_shards_and_a_spare_the_one_that_is_given_back(
    server: StoreServer, launch: Launch, reference: Reference, tmp_path: Path
) -> None:
    flags = f"--store {server.url} --run any --state {tmp_path} --rate 600 --shard any/2".split() + ARGUMENTS
    store = open_store(server.url, run="any")
    trainers = [launch("-m", "trainer", *flags) for _ in range(2)]
    assert store.wait_newer(0, PATIENCE) >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-0", "shard-1"]
    spare = launch("-m", "trainer", *flags)
    while "all of 2 shards are held" not in spare.stderr.readline():  # type: ignore[union-attr]
        assert spare.poll() is None
    trainers[0].terminate()
    assert trainers[0].wait(PATIENCE) == 0
    wait_for(lambda: store.newest() == GENERATIONS)
    for one in (trainers[1], spare):
        one.terminate()
        assert one.wait(PATIENCE) == 0
    assert published(store) == reference.parts and announced(store) == reference.abouts
    store.close()


def test_it_ends_in_order_where_nobody_can_say_whether_the_shard_is_still_its_own(tmp_path: Path) -> None:
    def check_held() -> None:
        if one.stop.is_set():
            raise Stopped

    with running(MemoryStore(10_000), tmp_path, rate=4_000.0, check_held=check_held) as one:
        one.learn(GENERATION + CHUNK)
    events = saved(tmp_path)[1]["events"]
    assert events % GENERATION == 0 and events <= one.trainer.state.events


class Away(MemoryStore):
    """Cannot be reached for a while."""

    away = False

    def claim_shard(self, owner: str, shards: int, seconds: float) -> int:
        if self.away:
            raise StoreAway("away: a test said so")
        return super().claim_shard(owner, shards, seconds)


def test_a_lease_that_ran_out_while_the_store_was_away_and_that_nobody_took_is_taken_again() -> None:
    store = Away(10)
    lease = Leased(store, 0.2).claim(1)
    store.away = True
    time.sleep(0.4)
    back = threading.Timer(0.3, setattr, (store, "away", False))
    back.start()
    lease.check()
    assert not store.away
    lease.release()
    assert store.claim_shard("other", 1, 1.0) == 0
