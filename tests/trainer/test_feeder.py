"""The world flows into the log at its pace, each event once, whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from simulator.config import ReplayConfig
from simulator.errors import DataError, FlickerError
from simulator.store.protocol import StoreAway
from simulator.types import Batch, World
from simulator.world.open import open_world
from simulator.world.stream import SyntheticWorld
from tests.small_runs import small_log
from tests.store.batches import batch, same
from tests.store.memory_store import MemoryStore
from tests.trainer.small_trainer import AT_ONCE, EVENTS, PATIENCE, small_world, wait_for
from tests.world.made_logs import log_of, rows_of, world_of
from trainer.feeder import WRITER, Feeder, Pace, as_logged, steady
from trainer.flags import TrainerFlags
from trainer.metrics import Metrics


class Feeding:
    """One feeder and what it tells."""

    def __init__(self, store: MemoryStore, world: World | None = None, pace: Pace | None = None) -> None:
        self.registry, self.stop = CollectorRegistry(), threading.Event()
        metrics = Metrics(self.registry)
        self.feeder = Feeder(world or small_world(), store, metrics, self.stop, pace or steady(AT_ONCE), 70)

    def metric(self, name: str) -> float:
        return self.registry.get_sample_value(name) or 0.0

    def end(self) -> None:
        self.stop.set()
        self.feeder.join(PATIENCE)


StartFeeding = Callable[..., Feeding]


@pytest.fixture
def feed() -> Iterator[StartFeeding]:
    """Starts feeders, which have all ended when the test has."""
    started: list[Feeding] = []

    def start(store: MemoryStore, world: World | None = None, pace: Pace | None = None) -> Feeding:
        started.append(Feeding(store, world, pace))
        started[-1].feeder.start()
        return started[-1]

    yield start
    for one in started:
        one.end()


def whole(store: MemoryStore) -> Batch:
    """All events of a log."""
    store.join("test")
    return Batch.concatenate([entry.batch for entry in store.read("test", "", 1_000_000, 0.0)])


def everything(world: World) -> Batch:
    """All events of a world."""
    return next(world.batches(world.events))


def test_every_event_in_order_then_it_says_that_the_world_ended(feed: StartFeeding) -> None:
    store = MemoryStore(EVENTS)
    one = feed(store)
    wait_for(lambda: one.metric("flicker_world_ended") == 1)
    assert same(whole(store), everything(small_world()))
    assert one.metric("flicker_feeder_events_total") == EVENTS
    assert one.metric("flicker_feeder_paused_seconds_total") == 0


def test_a_replayed_log_goes_on_at_its_mark(feed: StartFeeding, tmp_path: Path) -> None:
    world, store = open_world(ReplayConfig(small_log(tmp_path / "log")), seed=1), MemoryStore(10_000)
    for least in (200, 900):
        one = feed(store, world, steady(5_000.0))
        wait_for(lambda least=least: store.waiting() > least)
        one.end()
        assert store.mark(WRITER) == str(store.waiting())
    one = feed(store, world)
    wait_for(lambda: one.metric("flicker_world_ended") == 1)
    assert same(whole(store), everything(world))


def test_a_world_that_has_ended_stays_so(feed: StartFeeding) -> None:
    store = MemoryStore(EVENTS)
    for _ in range(2):
        one = feed(store)
        wait_for(lambda one=one: one.metric("flicker_world_ended") == 1)
    assert store.waiting() == EVENTS


def test_a_full_log_makes_it_wait(feed: StartFeeding) -> None:
    store = MemoryStore(500)
    store.join("trainer")
    one = feed(store)
    wait_for(lambda: one.metric("flicker_feeder_paused_seconds_total") > 0)
    assert store.waiting() == 490 and store.mark(WRITER) == "490"
    seen = []
    while sum(map(len, seen)) < EVENTS:
        entries = store.read("trainer", f"{sum(map(len, seen))}-0" if seen else "", 200, 5.0)
        seen += [entry.batch for entry in entries]
        store.acknowledge("trainer", entries[-1].id)
    assert same(Batch.concatenate(seen), everything(small_world()))


class Lossy(MemoryStore):
    """Does what it is asked, then loses the answer, or does not do it, by turns; away for the mark at first."""

    calls = 0

    def mark(self, writer: str) -> str:
        self._fail_by_turns(2)
        return super().mark(writer)

    def append(self, events: Batch, *, writer: str = "", mark: str = "", keys: Sequence[bytes] = ()) -> str:
        self._fail_by_turns(11)
        id = super().append(events, writer=writer, mark=mark, keys=keys)
        self._fail_by_turns(13)
        return id

    def _fail_by_turns(self, turn: int) -> None:
        self.calls += 1
        if self.calls % turn == 1:
            raise StoreAway("away: a test said so")


def test_lost_answers_do_not_repeat_events(feed: StartFeeding) -> None:
    store = Lossy(EVENTS)
    one = feed(store)
    wait_for(lambda: one.metric("flicker_world_ended") == 1)
    assert one.metric("flicker_store_errors_total") > 5
    assert same(whole(store), everything(small_world()))


def test_a_mark_of_another_world(feed: StartFeeding) -> None:
    store = MemoryStore(10_000)
    store.append(batch(0, 5), writer=WRITER, mark=str(EVENTS + 1))
    one = feed(store)
    wait_for(one.stop.is_set)
    one.end()
    assert isinstance(one.feeder.problem, FlickerError) and "fed from another world" in str(one.feeder.problem)


class Damaged(SyntheticWorld):
    """Cannot be read to its end."""

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        yield from super().batches(size, start, 700)
        raise DataError("log.csv:12: a test said so")


def test_a_log_that_turns_out_damaged_ends_the_process(feed: StartFeeding) -> None:
    store, healthy = MemoryStore(10_000), small_world()
    one = feed(store, Damaged(healthy.config, healthy.seed))
    wait_for(one.stop.is_set)
    one.end()
    assert isinstance(one.feeder.problem, DataError)
    assert store.waiting() == 700


def test_paces() -> None:
    timed = batch(0, 9)
    times = Batch(timed.user, timed.item, np.arange(9.0) ** 2, timed.features, timed.label)
    assert [steady(4.0)(part) for part in (timed, timed[:2])] == [2.25, 0.5]
    pace = as_logged(10.0)
    assert [pace(times[:3]), pace(times[3:6]), pace(times[6:])] == [0.4, 2.1, 3.9]  # (4-0, 25-4, 64-25) / 10


@pytest.mark.parametrize(
    ("flags", "seconds", "entry"),
    [
        ({}, 0.05, 200),
        ({"rate": 500.0}, 0.2, 50),
        ({"for_": 60.0}, 2.0, 5),
        ({"for_": 60.0, "head_start": 9_999}, 60 / 24, 4),
        ({"rate": 1e9}, 1e-7, 1_000),
    ],
)
def test_flags_set_the_pace(flags: dict[str, float], seconds: float, entry: int) -> None:
    pace, size = TrainerFlags(**flags).pace(small_world(), 600)  # type: ignore[arg-type]
    assert pace(batch(0, 100)) == pytest.approx(seconds)
    assert size == entry


@pytest.mark.parametrize(("rows", "seconds"), [(1_500, 5.0), (150_000, 0.05)])
def test_a_small_log_lasts_five_minutes(rows: int, seconds: float) -> None:
    world = world_of(log_of(rows_of(rows), labelled=False))
    pace, _ = TrainerFlags().pace(world, 600)
    assert pace(batch(0, 100)) == pytest.approx(seconds)


def test_it_keeps_its_pace_and_does_not_make_up_for_long_pauses(
    feed: StartFeeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock of its own, which only waiting moves."""
    now, waits = [100.0], []
    store = MemoryStore(EVENTS)
    one = Feeding(store, pace=lambda events: 0.5)

    def wait(seconds: float) -> bool:
        waits.append(round(seconds, 6))
        now[0] += seconds + (30.0 if len(waits) == 3 else 0.1)  # a long pause once; a little late every time
        return len(waits) == 8

    monkeypatch.setattr("trainer.feeder.time.monotonic", lambda: now[0])
    monkeypatch.setattr(one.stop, "wait", wait)
    one.feeder._run()
    # due every half second; 30 s late after the third, of which one second is made up for
    assert waits == [0.5, 0.4, 0.4, 0.0, 0.0, 0.0, 0.2, 0.4]


def test_what_is_wished_for_comes_at_once_and_the_rest_at_its_pace(
    feed: StartFeeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock of its own; a pace that knows the time of the last event is told of those that were hurried."""
    now, waits, paced = [100.0], [], []
    one = Feeding(MemoryStore(EVENTS), pace=lambda events: paced.append(len(events)) or 0.5)

    def wait(seconds: float) -> bool:
        waits.append(round(seconds, 6))
        now[0] += seconds
        if len(waits) == 5:
            one.feeder.feed_at_once(100)  # while it waits
        return len(waits) == 9

    monkeypatch.setattr("trainer.feeder.time.monotonic", lambda: now[0])
    monkeypatch.setattr(one.stop, "wait", wait)
    one.feeder.feed_at_once(150)  # entries are of 70
    one.feeder._run()
    assert waits == [0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.5, 0.5] and len(paced) == 9
